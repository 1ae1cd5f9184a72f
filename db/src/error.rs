//! What can go wrong with a store, in words that say what to do about it.

use std::path::PathBuf;

/// Why the store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process owns the store.
    #[error(
        "the result store {path} is in use by {owner}; wait for it to end, or choose another store with --db DIR"
    )]
    Locked {
        /// Folder of the store.
        path: PathBuf,
        /// Who holds it, as far as known.
        owner: String,
    },
    /// The path cannot hold a store.
    #[error("{path} cannot be a result store: {reason}")]
    Unusable {
        /// Folder that was named.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The file system refused.
    #[error("result store {path}: {source}")]
    Io {
        /// Folder or file concerned.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// sled failed or panicked while the store was open.
    #[error(
        "the result store {path} is damaged ({reason}); open it again to set it aside and recover what it holds"
    )]
    Damaged {
        /// Folder of the store.
        path: PathBuf,
        /// What sled said.
        reason: String,
    },
    /// A record that must not be stored: too large, not finite, without a kind.
    #[error("a record of kind {kind:?} was refused: {reason}")]
    Refused {
        /// The record's kind.
        kind: String,
        /// Why.
        reason: String,
    },
}
