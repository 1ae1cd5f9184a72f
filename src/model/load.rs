//! Loading of networks: import from ONNX, then simplification.

use std::path::Path;

use crate::error::ModelError;
use crate::network::Network;
use crate::{onnx, passes};

impl Network {
    /// Reads an ONNX file (and the files with external data beside it) and simplifies its graph.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read, is damaged, or holds something that is not supported.
    pub fn load(path: &Path) -> Result<Self, ModelError> {
        Self::load_with(path, &onnx::ImportOptions::default())
    }

    /// Reads an ONNX file like [`Network::load`], with what the file leaves open decided by
    /// `options`.
    ///
    /// # Errors
    ///
    /// Fails like [`Network::load`].
    pub fn load_with(path: &Path, options: &onnx::ImportOptions) -> Result<Self, ModelError> {
        let mut network = onnx::load_with(path, options)?;
        network.simplify(options.outputs == onnx::Outputs::All)?;
        Ok(network)
    }

    /// Reads an ONNX file from memory, like [`Network::load`]. External data is looked for in
    /// `folder`.
    ///
    /// # Errors
    ///
    /// Fails if the bytes are damaged or hold something that is not supported.
    pub fn from_bytes(name: &str, bytes: &[u8], folder: Option<&Path>) -> Result<Self, ModelError> {
        let mut network = onnx::from_bytes(name, bytes, folder)?;
        network.simplify(false)?;
        Ok(network)
    }

    fn simplify(&mut self, empty: bool) -> Result<(), ModelError> {
        self.channels_last = passes::turn_input(&mut self.plan);
        passes::simplify(&mut self.plan);
        let failed = |problem| Err(ModelError::Graph { name: self.name.clone(), problem });
        if self.plan.steps.is_empty() && !empty {
            return failed(
                "the graph computes nothing: its output is its input, or a constant".into(),
            );
        }
        // Limits of the runtime are better reported here than at the first execution.
        match paretune_kernels::executor::validate(&self.plan, 1) {
            Ok(()) => Ok(()),
            Err(error) => failed(error.to_string()),
        }
    }
}
