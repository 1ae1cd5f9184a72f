//! Errors of reading and writing network files.

use std::path::PathBuf;

/// Error about a network that cannot be used, with advice.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The operating system could not read the file.
    #[error("cannot read `{path}`: {source}")]
    Io {
        /// Path of the unreadable file.
        path: PathBuf,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// The file is not an ONNX file, or is damaged.
    #[error("`{name}` is not a readable ONNX file: {problem}")]
    Format {
        /// Name of the damaged file.
        name: String,
        /// Description of the problem in words.
        problem: String,
    },
    /// The graph as a whole is not supported.
    #[error("`{name}`: {problem}")]
    Graph {
        /// Name of the unsupported network.
        name: String,
        /// Description of the problem, with advice.
        problem: String,
    },
    /// One node is damaged or asks for something that is not supported.
    #[error("node `{node}` ({operator}): {problem}")]
    Node {
        /// Name of the node, or of its first output.
        node: String,
        /// ONNX operator of the node.
        operator: String,
        /// Description of the problem, with advice.
        problem: String,
    },
    /// An initializer cannot be read.
    #[error("tensor `{tensor}`: {problem}")]
    Tensor {
        /// Name of the unreadable tensor.
        tensor: String,
        /// Description of the problem, with advice.
        problem: String,
    },
}
