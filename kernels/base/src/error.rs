//! The error type of the runtime.

/// An error of the runtime. Every message names the step or file that it concerns and the
/// expectation that failed.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// A plan whose steps do not fit together (shapes, missing values, unknown algorithm, ...).
    #[error("step `{step}`: {problem}")]
    Plan {
        /// Name of the step that has the problem.
        step: String,
        /// Description of the problem, for people.
        problem: String,
    },
    /// Input or output of the wrong length or type.
    #[error("{0}")]
    Data(String),
    /// A bundle that cannot be read or is damaged.
    #[error("bundle `{path}`: {problem}")]
    Bundle {
        /// Path of the file or folder.
        path: String,
        /// Description of the problem, for people.
        problem: String,
    },
    /// Packed weights that do not match the plan, the instruction set or the options.
    #[error("{0}")]
    Packed(String),
    /// A device, thread or system call that failed.
    #[error("{0}")]
    System(String),
}

impl KernelError {
    /// Creates a [`KernelError::Plan`] about `step`.
    pub fn plan(step: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Plan { step: step.into(), problem: problem.into() }
    }
}
