//! Operators other than convolution, and conversions between layouts and element types: one file
//! each, with plain loops over slices that the compiler vectorizes for each instruction set.
//!
//! A file states how its operator is prepared from shapes and layout; the executor chooses layouts,
//! places buffers and calls [`OperatorKernel::run`] on every worker. Shape rules are in
//! [`paretune_base::plan::shape`].

use paretune_base::plan::activation::Activation;
use paretune_base::plan::layout::Layout;
use paretune_base::threads::Worker;
use paretune_simd::Isa;

pub mod activation;
pub mod binary;
pub mod choose;
pub mod concat;
pub mod convert;
mod elementary;
mod folded;
pub mod grid_sample;
mod isa;
pub mod lrn;
pub mod matmul;
pub mod mean;
pub mod normalize;
pub mod pad;
pub mod pointwise_pair;
pub mod pool;
pub mod rank;
pub mod reduce;
pub mod scale_shift;
pub mod select;
pub mod softmax;
pub mod transpose;
pub mod unary;

use isa::entry_for;
pub use isa::{Loops, on};

/// Buffer addresses for one run of an operator.
pub struct Io<'a> {
    /// Address of every input, in the operator's order.
    pub inputs: &'a [*const u8],
    /// Address of the output. It equals one of the inputs if the operator works in place.
    pub output: *mut u8,
}

impl Io<'_> {
    /// Returns the first `len` elements of input `index`.
    ///
    /// # Safety
    /// The input must hold at least `len` elements of type `T`, and no thread may write them during
    /// the run.
    #[inline(always)]
    pub unsafe fn input<T>(&self, index: usize, len: usize) -> &[T] {
        // SAFETY: the caller has `len` elements of type `T` there, which no thread writes while the
        // slice lives.
        unsafe { std::slice::from_raw_parts(self.inputs[index].cast(), len) }
    }

    /// Returns `len` elements of the output, from element `start` on.
    ///
    /// # Safety
    /// The output must hold the elements, and no other thread may read or write them during the
    /// run.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)] // Workers write disjoint parts of one buffer.
    pub unsafe fn output<T>(&self, start: usize, len: usize) -> &mut [T] {
        // SAFETY: the caller has `len` elements of type `T` there, which no other thread uses while
        // the slice lives.
        unsafe { std::slice::from_raw_parts_mut(self.output.cast::<T>().add(start), len) }
    }
}

/// An operator prepared for fixed shapes.
pub trait OperatorKernel: Send + Sync {
    /// Computes this thread's share of the work. The output is complete once all threads of the
    /// pool have passed the next barrier.
    ///
    /// # Safety
    /// Inputs and output must be valid for the sizes that the kernel was built for. The output must
    /// not overlap an input, except exactly where the kernel is documented to work in place. Every
    /// thread of the pool must make this call.
    unsafe fn run(&self, io: &Io<'_>, worker: &Worker<'_>);

    /// Returns the size in bytes of the kernel's constants.
    fn constant_bytes(&self) -> usize {
        0
    }
}

/// Shape of a value in memory order, batch first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Physical {
    /// Size of each axis in elements, outermost first.
    pub dims: Vec<usize>,
    /// Index into `dims` of each logical axis (batch not counted).
    pub position: Vec<usize>,
}

impl Physical {
    /// Returns the memory shape of values of shape `dims` (batch not counted) in `layout`. Shapes
    /// other than `[channels, height, width]` are always row-major.
    pub fn new(batch: usize, dims: &[usize], layout: Layout) -> Self {
        match (dims, layout) {
            (&[c, h, w], Layout::Nhwc) => {
                Self { dims: vec![batch, h, w, c], position: vec![3, 1, 2] }
            }
            _ => Self {
                dims: std::iter::once(batch).chain(dims.iter().copied()).collect(),
                position: (1..=dims.len()).collect(),
            },
        }
    }

    /// Returns the products of the sizes before, at and after the memory position of a logical
    /// axis.
    pub fn around(&self, axis: usize) -> [usize; 3] {
        let at = self.position[axis];
        [self.dims[..at].iter().product(), self.dims[at], self.dims[at + 1..].iter().product()]
    }

    /// Returns the stride in elements of each memory axis.
    pub fn strides(&self) -> Vec<usize> {
        let mut strides = vec![1; self.dims.len()];
        for axis in (0..self.dims.len().saturating_sub(1)).rev() {
            strides[axis] = strides[axis + 1] * self.dims[axis + 1];
        }
        strides
    }

    /// Returns the number of elements, batch included.
    pub fn len(&self) -> usize {
        self.dims.iter().product()
    }

    /// Returns whether a batch has no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Returns `[channels, pixels]` of a shape. `None` for shapes other than images and vectors, to
/// which layouts do not apply.
pub fn planes(dims: &[usize]) -> Option<[usize; 2]> {
    match *dims {
        [] => Some([1, 1]),
        [features] => Some([features, 1]),
        [c, h, w] => Some([c, h * w]),
        _ => None,
    }
}

/// Returns whether the layout of a value of shape `dims` makes no difference, because all layouts
/// give the same bytes or the shape has only one.
pub fn is_layout_neutral(dims: &[usize]) -> bool {
    planes(dims).is_none_or(|[channels, pixels]| channels == 1 || pixels == 1)
}

/// Returns the context, channels and layout for operators that treat channels independently. Every
/// block of channels of NCHWc becomes an NHWC image of its own.
pub fn as_images(context: Context, channels: usize, layout: Layout) -> (Context, usize, Layout) {
    match layout {
        Layout::Nchwc(block) => {
            let images = context.batch * channels / block.max(1);
            (Context { batch: images, ..context }, block, Layout::Nhwc)
        }
        layout => (context, channels, layout),
    }
}

/// Build options that all operators share.
#[derive(Clone, Copy)]
pub struct Context {
    /// Number of images per run.
    pub batch: usize,
    /// Widest instruction set to compile for.
    pub isa: Isa,
}

/// Applies `activation` in place to elements in the first-level cache.
#[inline(always)]
pub fn activate(activation: Activation, numbers: &mut [f32]) {
    activation::in_place(activation, numbers);
}
