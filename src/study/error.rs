//! Reasons for the failure of a session.

use paretune_db::StoreError;
use paretune_evaluate::host::HostError;
use paretune_search::ProblemError;

use super::prepare::PrepareError;

/// Reason why a session failed as a whole.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The study could not be prepared.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// The space has an error or is empty.
    #[error(transparent)]
    Space(#[from] paretune_spaces::SpaceError),
    /// The search rejected its problem or strategy.
    #[error(transparent)]
    Search(#[from] ProblemError),
    /// The result store cannot be used.
    #[error("result store: {0}")]
    Store(#[from] StoreError),
    /// The worker cannot be started, or it cannot load the workload.
    #[error("{0}")]
    Worker(HostError),
    /// The baseline cannot be measured, so there is nothing to compare to.
    #[error("the baseline network could not be measured: {0}")]
    Baseline(String),
    /// A file in the study's folder cannot be used.
    #[error("study folder `{path}`: {problem}")]
    Folder {
        /// Path of the folder in question.
        path: String,
        /// Description of the problem for the user.
        problem: String,
    },
}
