//! The operators other than convolution, and conversions between layouts and number formats: one file
//! each, plain loops over slices that the compiler vectorizes for each instruction set.
//!
//! A file states how its operator is prepared from shapes and layout; the executor chooses layouts,
//! places buffers and calls [`OperatorKernel::run`] on every worker. Shape rules are in [`shape`].

use crate::activation::Activation;
use crate::conv::Layout;
use crate::hardware::Isa;
use crate::team::Worker;

pub(crate) mod activation;
pub(crate) mod binary;
pub(crate) mod concat;
pub(crate) mod convert;
mod folded;
mod isa;
pub(crate) mod lrn;
pub(crate) mod mean;
pub(crate) mod pad;
pub(crate) mod pointwise_pair;
pub(crate) mod pool;
pub(crate) mod scale_shift;
pub mod shape;
pub(crate) mod softmax;
pub(crate) mod transpose;

use isa::job_on;
pub(crate) use isa::{Loops, on};

/// Addresses for one run of an operator.
pub(crate) struct Io<'a> {
    /// One per input.
    pub inputs: &'a [*const u8],
    /// Where the result goes. It is one of the inputs where the operator works in place.
    pub output: *mut u8,
}

impl Io<'_> {
    /// The first `len` numbers of input `index`.
    ///
    /// # Safety
    /// The input holds that many `T` and nobody writes them during the run.
    #[inline(always)]
    pub unsafe fn input<T>(&self, index: usize, len: usize) -> &[T] {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts(self.inputs[index].cast(), len) }
    }

    /// `len` numbers of the output from `start`.
    ///
    /// # Safety
    /// The output holds them, and nobody else reads or writes them during the run.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)] // Workers write disjoint parts of one buffer.
    pub unsafe fn output<T>(&self, start: usize, len: usize) -> &mut [T] {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.output.cast::<T>().add(start), len) }
    }
}

/// An operator prepared for its shapes.
pub(crate) trait OperatorKernel: Send + Sync {
    /// This worker's part of the work; complete when all workers have passed the next barrier.
    ///
    /// # Safety
    /// Inputs and output are valid for the sizes that the kernel was made for, the output overlaps no
    /// input (except exactly, where the kernel is documented to work in place), and every member of
    /// the team makes this call.
    unsafe fn run(&self, io: &Io<'_>, worker: &Worker<'_>);

    /// Bytes of constants held.
    fn constant_bytes(&self) -> usize {
        0
    }
}

/// A value's shape in memory order, batch first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Physical {
    /// Sizes, outermost first.
    pub dims: Vec<usize>,
    /// Where each logical axis (without the batch) is in `dims`.
    pub position: Vec<usize>,
}

impl Physical {
    /// `dims` without batch in `layout`; anything but `[channels, height, width]` is row-major always.
    pub fn new(batch: usize, dims: &[usize], layout: Layout) -> Self {
        match (dims, layout) {
            (&[c, h, w], Layout::ChannelsLast) => {
                Self { dims: vec![batch, h, w, c], position: vec![3, 1, 2] }
            }
            _ => Self {
                dims: std::iter::once(batch).chain(dims.iter().copied()).collect(),
                position: (1..=dims.len()).collect(),
            },
        }
    }

    /// The product of sizes before, at, and after the place of a logical axis.
    pub fn around(&self, axis: usize) -> [usize; 3] {
        let at = self.position[axis];
        [self.dims[..at].iter().product(), self.dims[at], self.dims[at + 1..].iter().product()]
    }

    /// Distances between neighbors along each memory axis.
    pub fn strides(&self) -> Vec<usize> {
        let mut strides = vec![1; self.dims.len()];
        for axis in (0..self.dims.len().saturating_sub(1)).rev() {
            strides[axis] = strides[axis + 1] * self.dims[axis + 1];
        }
        strides
    }

    /// How many numbers there are.
    pub fn len(&self) -> usize {
        self.dims.iter().product()
    }
}

/// `[channels, pixels]` of a shape as layouts see it: `None` where layouts mean nothing for it because
/// it is not `[channels, height, width]` or a vector.
pub(crate) fn planes(dims: &[usize]) -> Option<[usize; 2]> {
    match *dims {
        [] => Some([1, 1]),
        [features] => Some([features, 1]),
        [c, h, w] => Some([c, h * w]),
        _ => None,
    }
}

/// Whether both layouts are the same bytes, or the shape knows one layout only.
pub(crate) fn is_layout_neutral(dims: &[usize]) -> bool {
    planes(dims).is_none_or(|[channels, pixels]| channels == 1 || pixels == 1)
}

/// Images, channels and layout as operators see them that keep channels apart: blocks of channels are images of their own,
/// with channels last.
pub(crate) fn as_images(context: Context, channels: usize, layout: Layout) -> (Context, usize, Layout) {
    match layout {
        Layout::ChannelBlocked(block) => {
            let images = context.batch * channels / block.max(1);
            (Context { batch: images, ..context }, block, Layout::ChannelsLast)
        }
        layout => (context, channels, layout),
    }
}

/// Prepared operators that take only shapes share this signature's vocabulary.
#[derive(Clone, Copy)]
pub(crate) struct Context {
    /// Images at a time.
    pub batch: usize,
    /// Widest instruction set.
    pub isa: Isa,
}

/// Applies `activation` to numbers that are in the first-level cache.
#[inline(always)]
pub(crate) fn activate(activation: Activation, numbers: &mut [f32]) {
    activation::in_place(activation, numbers);
}
