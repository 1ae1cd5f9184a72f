//! Errors of the store, worded so that they say what to do next.

use std::path::PathBuf;

/// Error of an operation on the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process owns the store.
    #[error(
        "the result store {path} is in use by {owner}; wait for it to end, or choose another \
         store with --db DIR"
    )]
    Locked {
        /// Folder that holds the store.
        path: PathBuf,
        /// Name of the owning process, as far as known.
        owner: String,
    },
    /// The path cannot hold a store.
    #[error("{path} cannot be a result store: {reason}")]
    Unusable {
        /// Folder that the caller named.
        path: PathBuf,
        /// Explanation of the refusal for the user.
        reason: String,
    },
    /// The file system refused an operation.
    #[error("result store {path}: {source}")]
    Io {
        /// Folder or file that the operation concerned.
        path: PathBuf,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// sled failed or panicked while the store was open.
    #[error(
        "the result store {path} is damaged ({reason}); open it again to set it aside and recover \
         what it holds"
    )]
    Damaged {
        /// Folder that holds the store.
        path: PathBuf,
        /// Message of the failure or panic in sled.
        reason: String,
    },
    /// The record must not be stored: it is too large, not finite, or has no kind.
    #[error("a record of kind {kind:?} was refused: {reason}")]
    Refused {
        /// Kind of the refused record.
        kind: String,
        /// Rule that the record breaks.
        reason: String,
    },
}
