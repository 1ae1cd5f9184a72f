//! What a step becomes on a device, before anything is built or allocated: launches, the constants and
//! the scratch memory that they need.

use super::source::Macros;

/// A buffer that a launch is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Argument {
    /// An input of the step.
    Input(usize),
    /// The output of the step.
    Output,
    /// One of [`Prepared::constants`].
    Constant(usize),
}

/// One kernel of one program, with sizes.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Text of the program, without what is common to all.
    pub(super) source: &'static str,
    /// Name of the kernel in it.
    pub(super) kernel: &'static str,
    /// Its macros.
    pub(super) macros: Macros,
    /// Work-groups along each axis.
    pub(super) groups: [usize; 3],
    /// Work-items of a group, along the first axis.
    pub(super) threads: usize,
    /// In the order of the kernel's parameters.
    pub(super) arguments: Vec<Argument>,
}

/// A step, ready to be built.
#[derive(Clone, Debug, Default)]
pub struct Prepared {
    /// In order.
    pub(super) launches: Vec<Launch>,
    /// What is uploaded once, as bytes.
    pub(super) constants: Vec<Vec<u8>>,
}

/// The bytes of `numbers`, as this machine holds them.
pub(super) fn bytes_of(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_ne_bytes()).collect()
}
