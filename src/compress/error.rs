//! Errors of compressing a network.

use paretune_kernels::KernelError;

/// Error of compression. Its message names the layer, group or step.
#[derive(Debug, thiserror::Error)]
pub enum CompressError {
    /// The recipe asks for something that this network does not have or that cannot be done.
    #[error("recipe: {0}")]
    Recipe(String),
    /// The plan's shapes or weights are inconsistent, or its weights are not in single precision.
    #[error("step `{step}`: {problem}")]
    Plan {
        /// Name of the step at fault.
        step: String,
        /// Description of the problem in words.
        problem: String,
    },
    /// The calibration belongs to another network, or the images do not fit it.
    #[error("calibration: {0}")]
    Calibration(String),
    /// A file of the database of compressed layers is damaged or misplaced.
    #[error("database of compressed layers: {0}")]
    Database(String),
    /// A file of the database of compressed layers cannot be read or written.
    #[error(transparent)]
    Artefact(#[from] paretune_record::artefact::ArtefactError),
    /// The runtime refused to execute the network.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

impl CompressError {
    /// Creates a [`CompressError::Plan`] about `step`.
    pub(super) fn plan(step: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Plan { step: step.into(), problem: problem.into() }
    }
}
