//! Source of packed weights: packed from the stored weights, packed and recorded for a file, or
//! found in a file.
//!
//! A kernel requests its packed data in a fixed order, whatever the source, so recorded data is
//! found again by order. A key per layer guards it. The key hashes everything that packing may
//! depend on except the weights: algorithm, tunables, problem, instruction set, fused operators and
//! [`REVISION`]. The number of threads and the batch size are not part of it.
//!
//! Values that only take part in arithmetic are used in place (`Packing::numbers`,
//! `Packing::list`). Values that kernels compute addresses from (`Packing::table`) are copied,
//! and the kernels check them before use, whatever the source: a file may hold anything, and may
//! change.
//!
//! Bundles decide the layout of files.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::buffer::{Buffer, LINE, Number, lines_of};
use paretune_base::error::KernelError;
use paretune_base::memory::mapping::Mapping;

/// Revision of the packed data. It must increase whenever a kernel packs differently; a test
/// compares it with the packed bytes.
pub const REVISION: u32 = 2;

/// Consecutive elements of one type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Section {
    /// Code of the element type, `Number::KIND`.
    pub kind: u8,
    /// How many numbers there are.
    pub len: usize,
}

/// Packed data of one convolution.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackedLayer {
    /// Hash of everything that the packed data depends on, except the weights.
    pub key: [u8; 16],
    /// In the order in which they were packed.
    pub sections: Vec<Section>,
}

impl Section {
    /// Returns the size in bytes, in whole cache lines; `None` on overflow, or if the element type
    /// is unknown.
    pub fn bytes(&self) -> Option<usize> {
        match self.kind {
            f32::KIND | i32::KIND | u32::KIND => lines_of::<u32>(self.len),
            i16::KIND | u16::KIND => lines_of::<u16>(self.len),
            i8::KIND | u8::KIND => lines_of::<u8>(self.len),
            _ => None,
        }
    }
}

/// Source of packed weights, see the module. One packing serves the layers of one plan, in their
/// order.
pub struct Packing {
    source: Source,
    /// Number of requests that were packed from weights.
    made: Cell<usize>,
}

enum Source {
    Weights,
    Recorder(RefCell<Recording>),
    File(Reader),
}

/// Recorded data in the form in which a file holds it.
#[derive(Default)]
pub struct Recording {
    /// One for each convolution, in the order of the plan.
    pub layers: Vec<PackedLayer>,
    /// All sections, each on a cache-line boundary.
    pub bytes: Vec<u8>,
}

/// Position in the packed data of a file.
struct Reader {
    mapping: Arc<Mapping>,
    layers: Arc<[PackedLayer]>,
    /// Index of the layer after the current one.
    layer: Cell<usize>,
    /// Index of the current layer's next section; `at` is its byte offset.
    section: Cell<usize>,
    at: Cell<usize>,
    /// Bytes of the file that are used in place.
    used: Cell<usize>,
}

impl Packing {
    /// Returns a source that packs from weights and keeps no copy.
    #[must_use]
    pub fn fresh() -> Self {
        Self { source: Source::Weights, made: Cell::new(0) }
    }

    /// Returns a source that packs from weights and keeps a copy for [`Packing::recorded`].
    pub fn recording() -> Self {
        Self { source: Source::Recorder(RefCell::default()), made: Cell::new(0) }
    }

    /// Returns a source that finds the recorded data from the start of `mapping` on.
    pub fn found(mapping: Arc<Mapping>, layers: Arc<[PackedLayer]>) -> Self {
        let reader = Reader {
            mapping,
            layers,
            layer: Cell::new(0),
            section: Cell::new(0),
            at: Cell::new(0),
            used: Cell::new(0),
        };
        Self { source: Source::File(reader), made: Cell::new(0) }
    }

    /// Begins the next layer: later calls ask for the weights of the request with this key.
    ///
    /// # Errors
    /// Fails with [`KernelError::Packed`] if the file has another layer at this place.
    pub fn begin(&self, key: [u8; 16]) -> Result<(), KernelError> {
        match &self.source {
            Source::Weights => Ok(()),
            Source::Recorder(recording) => {
                let layer = PackedLayer { key, sections: Vec::new() };
                recording.borrow_mut().layers.push(layer);
                Ok(())
            }
            Source::File(reader) => reader.begin(key),
        }
    }

    /// Ends the last layer.
    ///
    /// # Errors
    /// Returns [`KernelError::Packed`] if the file has more data.
    pub fn end(&self) -> Result<(), KernelError> {
        match &self.source {
            Source::File(reader) => reader.end(),
            Source::Weights | Source::Recorder(_) => Ok(()),
        }
    }

    /// Returns the recorded data, every section of which starts at a cache-line boundary.
    pub fn recorded(self) -> Recording {
        match self.source {
            Source::Recorder(recording) => recording.into_inner(),
            Source::Weights | Source::File(_) => Recording::default(),
        }
    }

    /// Returns whether packed data is found in a file, so that the weights may be missing.
    pub fn is_found(&self) -> bool {
        matches!(self.source, Source::File(_))
    }

    /// Returns the bytes of the file that kernels use in place.
    pub fn mapped_bytes(&self) -> usize {
        match &self.source {
            Source::File(reader) => reader.used.get(),
            Source::Weights | Source::Recorder(_) => 0,
        }
    }

    /// Returns the number of requests that were packed from weights.
    #[doc(hidden)] // For tests.
    pub fn made(&self) -> usize {
        self.made.get()
    }

    /// Returns `len` elements, found in the file or written by `fill` over zeros.
    pub(crate) fn numbers<T: Number>(
        &self,
        len: usize,
        fill: impl FnOnce(&mut [T]),
    ) -> Result<Buffer<T>, KernelError> {
        if let Source::File(reader) = &self.source {
            let buffer = reader.view::<T>()?;
            return if buffer.len() == len {
                Ok(buffer)
            } else {
                Err(packed_mismatch("has packed weights of another size"))
            };
        }
        self.made.set(self.made.get() + 1);
        let buffer = Buffer::new(len, fill);
        self.record(&buffer);
        Ok(buffer)
    }

    /// Returns the result of `make` for `Packing::list` and `Packing::table`, or the default if
    /// they find the data in a file.
    pub(crate) fn make<R: Default>(
        &self,
        make: impl FnOnce() -> Result<R, KernelError>,
    ) -> Result<R, KernelError> {
        if self.is_found() {
            return Ok(R::default());
        }
        self.made.set(self.made.get() + 1);
        make()
    }

    /// Returns a list of any length. The caller must check that it is long enough.
    pub(crate) fn list<T: Number>(&self, made: Vec<T>) -> Result<Buffer<T>, KernelError> {
        if let Source::File(reader) = &self.source {
            return reader.view();
        }
        let buffer = Buffer::new(made.len(), |numbers| numbers.copy_from_slice(&made));
        self.record(&buffer);
        Ok(buffer)
    }

    /// Returns a table in memory of its own from which addresses are computed. The caller must
    /// check its values.
    pub(crate) fn table<T: Number>(&self, made: Vec<T>) -> Result<Vec<T>, KernelError> {
        if let Source::File(reader) = &self.source {
            return Ok(reader.section::<T>()?.to_vec());
        }
        self.record(&made);
        Ok(made)
    }

    fn record<T: Number>(&self, numbers: &[T]) {
        let Source::Recorder(recording) = &self.source else { return };
        let Recording { layers, bytes } = &mut *recording.borrow_mut();
        let Some(layer) = layers.last_mut() else { return };
        layer.sections.push(Section { kind: T::KIND, len: numbers.len() });
        // SAFETY: `Number` types have no padding, so that all `size_of_val` bytes are initialized.
        let raw = unsafe {
            std::slice::from_raw_parts(numbers.as_ptr().cast::<u8>(), size_of_val(numbers))
        };
        bytes.extend_from_slice(raw);
        bytes.resize(bytes.len().next_multiple_of(LINE), 0);
    }
}

impl Reader {
    fn begin(&self, key: [u8; 16]) -> Result<(), KernelError> {
        self.end_layer()?;
        let layer = self.layer.get();
        match self.layers.get(layer) {
            Some(packed) if packed.key == key => {
                self.layer.set(layer + 1);
                self.section.set(0);
                Ok(())
            }
            Some(_) => Err(packed_mismatch("would be packed in another way")),
            None => Err(packed_mismatch("has no packed weights")),
        }
    }

    fn end(&self) -> Result<(), KernelError> {
        self.end_layer()?;
        if self.layer.get() == self.layers.len() {
            Ok(())
        } else {
            Err(packed_mismatch("is not the last packed layer"))
        }
    }

    fn end_layer(&self) -> Result<(), KernelError> {
        let Some(before) = self.layer.get().checked_sub(1) else { return Ok(()) };
        let sections = self.layers.get(before).map_or(0, |layer| layer.sections.len());
        if self.section.get() == sections {
            Ok(())
        } else {
            Err(packed_mismatch("has more packed weights than it needs"))
        }
    }

    /// Returns the next section of the current layer.
    fn section<T: Number>(&self) -> Result<Buffer<T>, KernelError> {
        let missing = || packed_mismatch("has fewer packed weights than it needs");
        let layer = self.layer.get().checked_sub(1).and_then(|layer| self.layers.get(layer));
        let section =
            layer.and_then(|layer| layer.sections.get(self.section.get())).ok_or_else(missing)?;
        if section.kind != T::KIND {
            return Err(packed_mismatch("has packed weights of another kind"));
        }
        let at = self.at.get();
        let buffer = Buffer::mapped(&self.mapping, at, section.len).ok_or_else(missing)?;
        self.section.set(self.section.get() + 1);
        self.at.set(at + buffer.bytes());
        Ok(buffer)
    }

    /// Returns the next section, to be used in place.
    fn view<T: Number>(&self) -> Result<Buffer<T>, KernelError> {
        let buffer = self.section::<T>()?;
        self.used.set(self.used.get() + buffer.bytes());
        Ok(buffer)
    }
}

fn packed_mismatch(problem: &str) -> KernelError {
    KernelError::Packed(problem.to_owned())
}

/// Returns the error for a corrupt index in a packed table.
pub fn corrupt_index() -> KernelError {
    packed_mismatch("has packed weights that lead nowhere")
}
