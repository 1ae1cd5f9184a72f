//! The launches of a step on a device, with the constants that they need, before anything is built
//! or allocated.

use super::source::Macros;

/// A buffer argument of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Argument {
    /// An input of the step, by index.
    Input(usize),
    /// The output of the step.
    Output,
    /// A constant, by index into [`Prepared::constants`].
    Constant(usize),
}

/// A launch of one kernel, with its sizes.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Source of the program, without the common part.
    pub(super) source: &'static str,
    /// Name of the kernel in the program.
    pub(super) kernel: &'static str,
    /// Macros for the sizes and tunables.
    pub(super) macros: Macros,
    /// Number of work-groups along each axis.
    pub(super) groups: [usize; 3],
    /// Work-items of a work-group, along the first axis.
    pub(super) threads: usize,
    /// Arguments in the order of the kernel's parameters.
    pub(super) arguments: Vec<Argument>,
}

impl Launch {
    /// Returns the text that the compiler is given.
    #[must_use]
    pub fn text(&self) -> String {
        self.macros.complete(self.source)
    }
}

impl Prepared {
    /// Returns the launches in order.
    #[must_use]
    pub fn launches(&self) -> &[Launch] {
        &self.launches
    }
}

/// A step whose kernels are ready to be built.
#[derive(Clone, Debug, Default)]
pub struct Prepared {
    /// Launches in order of execution.
    pub(super) launches: Vec<Launch>,
    /// Constants as bytes, each uploaded once.
    pub(super) constants: Vec<Vec<u8>>,
}

/// Returns the bytes of `numbers` in the machine's byte order.
pub(super) fn bytes_of(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_ne_bytes()).collect()
}
