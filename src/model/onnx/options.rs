//! Choices that an import can be given.

/// Choices of an import that the file leaves open.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// Outputs of the file that the plan computes.
    pub outputs: Outputs,
    /// Height and width of the input where the file leaves them open.
    pub input_size: Option<[usize; 2]>,
    /// Whether the rounding of activations in quantized files is kept. Without it the network is
    /// the one in floating-point numbers that the file means.
    pub keep_rounding: bool,
}

/// Choice among the outputs of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Outputs {
    /// The first output of the network alone.
    #[default]
    First,
    /// All outputs of the file.
    All,
    /// Outputs with these names, in this order.
    Named(Vec<String>),
}
