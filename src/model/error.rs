//! What can be wrong with a network's file.

use std::path::PathBuf;

/// A network that cannot be used, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The disk refused.
    #[error("cannot read `{path}`: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not an ONNX file, or a damaged one.
    #[error("`{name}` is not a readable ONNX file: {problem}")]
    Format {
        /// The file's name.
        name: String,
        /// What does not fit.
        problem: String,
    },
    /// The graph as a whole is not what this program handles.
    #[error("`{name}`: {problem}")]
    Graph {
        /// The network's name.
        name: String,
        /// What does not fit, and what to do.
        problem: String,
    },
    /// One node is damaged or asks for something that is not supported.
    #[error("node `{node}` ({operator}): {problem}")]
    Node {
        /// The node's name, or the name of its first output.
        node: String,
        /// Its operator.
        operator: String,
        /// What does not fit, and what to do.
        problem: String,
    },
    /// An initializer that cannot be read.
    #[error("tensor `{tensor}`: {problem}")]
    Tensor {
        /// The tensor's name.
        tensor: String,
        /// What does not fit, and what to do.
        problem: String,
    },
}
