//! What can go wrong between a plan and its result.

/// An error of the runtime. Every message names the step or file it is about and what was expected.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// A plan whose steps do not fit together (shapes, missing values, unknown algorithm, ...).
    #[error("step `{step}`: {problem}")]
    Plan {
        /// Name of the step.
        step: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Input or output of the wrong length or type.
    #[error("{0}")]
    Data(String),
    /// A bundle that cannot be read or is damaged.
    #[error("bundle `{path}`: {problem}")]
    Bundle {
        /// The file or folder.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Packed weights that are not those of the plan they were found with, or were packed for something else.
    #[error("{0}")]
    Packed(String),
    /// A device, thread or system call that refused.
    #[error("{0}")]
    System(String),
}

impl KernelError {
    /// A [`KernelError::Plan`] about `step`.
    pub fn plan(step: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Plan { step: step.into(), problem: problem.into() }
    }
}
