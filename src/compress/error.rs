//! What can go wrong when a network is compressed.

use paretune_kernels::KernelError;

/// An error of compression. Messages name the layer, group or step they are about.
#[derive(Debug, thiserror::Error)]
pub enum CompressError {
    /// A recipe that asks for what this network does not have or what cannot be done.
    #[error("recipe: {0}")]
    Recipe(String),
    /// A plan whose shapes or weights do not fit together, or that is not in single precision.
    #[error("step `{step}`: {problem}")]
    Plan {
        /// Name of the step.
        step: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A calibration of another network, or images that do not fit.
    #[error("calibration: {0}")]
    Calibration(String),
    /// A file of the database of compressed layers.
    #[error("database of compressed layers: {0}")]
    Database(String),
    /// A file of the database of compressed layers that cannot be read or written.
    #[error(transparent)]
    Artefact(#[from] crate::artefact::ArtefactError),
    /// The runtime refused to execute the network.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

impl CompressError {
    /// A [`CompressError::Plan`] about `step`.
    pub(super) fn plan(step: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Plan { step: step.into(), problem: problem.into() }
    }
}
