//! Where kernels get their packed numbers from: made from weights, made and kept for a file, or found in one.
//!
//! Every kernel asks for what it packs one after the other and in the same order, whatever it is asked with. So what
//! was made once is found again by order. A key per layer guards it: of everything that packing may depend on but the
//! weights themselves (algorithm, tunables, problem, instruction set, what surrounds it, [`REVISION`]). Threads and
//! batch are not among them.
//!
//! Numbers that are only calculated with are used where they lie ([`Packing::numbers`], [`Packing::list`]). Those that
//! kernels find their way with ([`Packing::table`]) are copied, and the kernels check them before they follow them,
//! wherever they come from: a file may say anything, and may change.
//!
//! What files look like is left to [`crate::bundle`].

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Request;
use super::buffer::{Buffer, LINE, Number, lines_of};
use crate::error::KernelError;
use crate::hardware::Isa;
use crate::mapping::Mapping;
use crate::operator::ConvProblem;

/// Grows with every change of what any kernel packs; a test holds it against what is packed.
pub(super) const REVISION: u32 = 1;

/// Numbers of one kind that follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Section {
    /// [`Number::KIND`]
    pub kind: u8,
    pub len: usize,
}

/// What one convolution has packed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PackedLayer {
    /// What it depends on, hashed.
    pub key: [u8; 16],
    pub sections: Vec<Section>,
}

impl Section {
    /// Bytes that it takes, in whole cache lines; `None` where that is more than there can be, or of no known kind.
    pub(crate) fn bytes(&self) -> Option<usize> {
        match self.kind {
            f32::KIND | i32::KIND | u32::KIND => lines_of::<u32>(self.len),
            i16::KIND | u16::KIND => lines_of::<u16>(self.len),
            i8::KIND | u8::KIND => lines_of::<u8>(self.len),
            _ => None,
        }
    }
}

/// See the module. One packing serves the layers of one plan, in their order.
pub struct Packing {
    source: Source,
    /// How often something was made from weights.
    made: Cell<usize>,
}

enum Source {
    Weights,
    Recorder(RefCell<Recording>),
    File(Reader),
}

/// What was made, as it is to lie in a file.
#[derive(Default)]
pub(crate) struct Recording {
    pub layers: Vec<PackedLayer>,
    pub bytes: Vec<u8>,
}

/// What is found.
struct Reader {
    mapping: Arc<Mapping>,
    layers: Arc<[PackedLayer]>,
    /// The layer after the present one.
    layer: Cell<usize>,
    /// The next section of the present layer, and where it lies.
    section: Cell<usize>,
    at: Cell<usize>,
    /// Bytes that are used where they lie.
    used: Cell<usize>,
}

impl Packing {
    /// Packs, and keeps nothing but what kernels need.
    #[must_use]
    pub fn fresh() -> Self {
        Self { source: Source::Weights, made: Cell::new(0) }
    }

    /// Packs, and keeps a copy for [`Packing::recorded`].
    pub(crate) fn recording() -> Self {
        Self { source: Source::Recorder(RefCell::default()), made: Cell::new(0) }
    }

    /// Finds what was recorded from the start of `mapping` on.
    pub(crate) fn found(mapping: Arc<Mapping>, layers: Arc<[PackedLayer]>) -> Self {
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

    /// Begins the next layer: what is asked for from now on is for `request`.
    ///
    /// # Errors
    /// [`KernelError::Packed`] where the file has something else there.
    pub(crate) fn begin(&self, request: &Request<'_>) -> Result<(), KernelError> {
        match &self.source {
            Source::Weights => Ok(()),
            Source::Recorder(recording) => {
                let layer = PackedLayer { key: key(request), sections: Vec::new() };
                recording.borrow_mut().layers.push(layer);
                Ok(())
            }
            Source::File(reader) => reader.begin(key(request)),
        }
    }

    /// Ends the last layer.
    ///
    /// # Errors
    /// [`KernelError::Packed`] where the file has more.
    pub(crate) fn end(&self) -> Result<(), KernelError> {
        match &self.source {
            Source::File(reader) => reader.end(),
            Source::Weights | Source::Recorder(_) => Ok(()),
        }
    }

    /// What was recorded, with everything on cache-line boundaries.
    pub(crate) fn recorded(self) -> Recording {
        match self.source {
            Source::Recorder(recording) => recording.into_inner(),
            Source::Weights | Source::File(_) => Recording::default(),
        }
    }

    /// Whether weights need not be there.
    pub(crate) fn is_found(&self) -> bool {
        matches!(self.source, Source::File(_))
    }

    /// Bytes of a file that kernels use where they lie.
    pub(crate) fn mapped_bytes(&self) -> usize {
        match &self.source {
            Source::File(reader) => reader.used.get(),
            Source::Weights | Source::Recorder(_) => 0,
        }
    }

    /// How often something was made from weights.
    #[cfg(test)]
    pub(crate) fn made(&self) -> usize {
        self.made.get()
    }

    /// `len` numbers, zeros but for what `fill` makes of them.
    pub(super) fn numbers<T: Number>(
        &self,
        len: usize,
        fill: impl FnOnce(&mut [T]),
    ) -> Result<Buffer<T>, KernelError> {
        if let Source::File(reader) = &self.source {
            let buffer = reader.view::<T>()?;
            return if buffer.len() == len {
                Ok(buffer)
            } else {
                Err(misfit("has packed weights of another size"))
            };
        }
        self.made.set(self.made.get() + 1);
        let buffer = Buffer::new(len, fill);
        self.record(&buffer);
        Ok(buffer)
    }

    /// What `make` makes for [`Packing::list`] and [`Packing::table`]; nothing where they find it.
    pub(super) fn make<R: Default>(
        &self,
        make: impl FnOnce() -> Result<R, KernelError>,
    ) -> Result<R, KernelError> {
        if self.is_found() {
            return Ok(R::default());
        }
        self.made.set(self.made.get() + 1);
        make()
    }

    /// As many numbers as there are. Whoever asks sees to it that they are enough.
    pub(super) fn list<T: Number>(&self, made: Vec<T>) -> Result<Buffer<T>, KernelError> {
        if let Source::File(reader) = &self.source {
            return reader.view();
        }
        let buffer = Buffer::new(made.len(), |numbers| numbers.copy_from_slice(&made));
        self.record(&buffer);
        Ok(buffer)
    }

    /// Numbers to find one's way with, in memory of their own. Whoever asks checks them.
    pub(super) fn table<T: Number>(&self, made: Vec<T>) -> Result<Vec<T>, KernelError> {
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
        // SAFETY: plain numbers without padding are as many bytes as they take.
        let raw = unsafe { std::slice::from_raw_parts(numbers.as_ptr().cast::<u8>(), size_of_val(numbers)) };
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
            Some(_) => Err(misfit("would be packed in another way")),
            None => Err(misfit("has no packed weights")),
        }
    }

    fn end(&self) -> Result<(), KernelError> {
        self.end_layer()?;
        if self.layer.get() == self.layers.len() {
            Ok(())
        } else {
            Err(misfit("is not the last packed layer"))
        }
    }

    fn end_layer(&self) -> Result<(), KernelError> {
        let Some(before) = self.layer.get().checked_sub(1) else { return Ok(()) };
        let sections = self.layers.get(before).map_or(0, |layer| layer.sections.len());
        if self.section.get() == sections {
            Ok(())
        } else {
            Err(misfit("has more packed weights than it needs"))
        }
    }

    /// The next section.
    fn section<T: Number>(&self) -> Result<Buffer<T>, KernelError> {
        let missing = || misfit("has fewer packed weights than it needs");
        let layer = self.layer.get().checked_sub(1).and_then(|layer| self.layers.get(layer));
        let section = layer.and_then(|layer| layer.sections.get(self.section.get())).ok_or_else(missing)?;
        if section.kind != T::KIND {
            return Err(misfit("has packed weights of another kind"));
        }
        let at = self.at.get();
        let buffer = Buffer::mapped(&self.mapping, at, section.len).ok_or_else(missing)?;
        self.section.set(self.section.get() + 1);
        self.at.set(at + buffer.bytes());
        Ok(buffer)
    }

    /// The next section, to be used where it lies.
    fn view<T: Number>(&self) -> Result<Buffer<T>, KernelError> {
        let buffer = self.section::<T>()?;
        self.used.set(self.used.get() + buffer.bytes());
        Ok(buffer)
    }
}

fn misfit(problem: &str) -> KernelError {
    KernelError::Packed(problem.to_owned())
}

/// The complaint about a table that leads out of what it is about.
pub(super) fn stray() -> KernelError {
    misfit("has packed weights that lead nowhere")
}

/// The order of bytes in numbers, and what is packed for `isa`.
fn machine(isa: Isa) -> String {
    let order = if cfg!(target_endian = "little") { "little" } else { "big" };
    format!("{REVISION} {order} {}", isa.name())
}

/// A hash of everything that packing may depend on, but for the weights.
fn key(request: &Request<'_>) -> [u8; 16] {
    // Every pixel is computed with the same weights, however many images there are.
    let problem = ConvProblem { batch: 1, ..request.problem };
    let Request { weights, activation, input, output, residual, schedule, isa, .. } = request;
    let surroundings = (activation, input, output, residual);
    let text = format!("{} {problem:?} {schedule:?} {:?} {surroundings:?}", machine(*isa), weights.format());
    let mut key = [0; 16];
    key.copy_from_slice(&blake3::hash(text.as_bytes()).as_bytes()[..16]);
    key
}
