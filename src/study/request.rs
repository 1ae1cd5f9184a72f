//! What was asked of a study: `study.toml` in its folder.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::budget::Budget;
use super::front::FrontLimit;
use crate::evaluate::accuracy::Normalization;
use crate::evaluate::artefact::write_whole;
use crate::evaluate::protocol::SubjectSpec;

/// Everything that decides what a search does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StudyRequest {
    /// The network's file; none for the built-in network.
    pub model: Option<PathBuf>,
    /// The images; none for the built-in ones.
    pub data: Option<PathBuf>,
    /// How images become inputs; where not given, the built-in ones' or none (mean 0, deviation 1).
    pub normalization: Option<Normalization>,
    /// Bounds that a deployable point keeps.
    pub limits: Vec<FrontLimit>,
    /// Of `accuracy`, `latency`, `size`, `memory`.
    pub objectives: Vec<String>,
    /// An objective's name or `knee`.
    pub prefer: String,
    /// When to stop.
    pub budget: Budget,
    /// Name of the strategy.
    pub strategy: String,
    /// Backends to consider.
    pub backends: Vec<String>,
    /// Thread counts to consider, ascending.
    pub threads: Vec<usize>,
    /// A file that narrows, fixes or extends the space.
    pub space: Option<PathBuf>,
    /// Start of all randomness.
    pub seed: u64,
    /// Seconds that every finalist learns from the untouched network; 0 for none.
    #[serde(default)]
    pub finetune: u64,
}

/// `study.toml`: what was asked, and what it was asked about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StudyFile {
    /// Version of the program that wrote it.
    pub version: String,
    /// The network's name.
    pub name: String,
    /// SHA-256 of the network's file.
    pub model_sha256: String,
    /// Content hash of the images.
    pub images: String,
    /// Folder with compressed layers, beside the result store; by default in the study's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers: Option<PathBuf>,
    /// How images become inputs.
    pub normalization: Normalization,
    /// What was asked.
    pub request: StudyRequest,
}

/// What goes wrong with `study.toml`.
#[derive(Debug, thiserror::Error)]
#[error("`{path}`: {problem}")]
pub struct RequestError {
    /// The file.
    pub path: String,
    /// What is wrong.
    pub problem: String,
}

impl StudyFile {
    /// Reads `study.toml` in `folder`.
    ///
    /// # Errors
    /// Where it is missing or not what this program writes.
    pub fn read(folder: &Path) -> Result<Self, RequestError> {
        let path = folder.join("study.toml");
        let wrong = |problem: String| RequestError { path: path.display().to_string(), problem };
        let text = std::fs::read_to_string(&path).map_err(|error| wrong(error.to_string()))?;
        toml::from_str(&text).map_err(|error| wrong(error.to_string()))
    }

    /// Writes `study.toml` into `folder`, whole or not at all.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn write(&self, folder: &Path) -> Result<(), RequestError> {
        let path = folder.join("study.toml");
        let wrong = |problem: String| RequestError { path: path.display().to_string(), problem };
        let text = toml::to_string_pretty(self).map_err(|error| wrong(error.to_string()))?;
        write_whole(&path, text.as_bytes()).map_err(|error| wrong(error.to_string()))
    }

    /// Keeps compressed layers beside the result store `store` from now on, where other studies find them.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn share_layers(&mut self, folder: &Path, store: &Path) -> Result<(), RequestError> {
        let mut name = store.file_name().unwrap_or_default().to_owned();
        name.push(".layers");
        let layers = std::path::absolute(store.with_file_name(name)).and_then(|layers| {
            std::fs::create_dir_all(&layers)?;
            Ok(layers)
        });
        let wrong = |error: std::io::Error| RequestError {
            path: store.display().to_string(),
            problem: error.to_string(),
        };
        self.layers = Some(layers.map_err(wrong)?);
        self.write(folder)
    }

    /// What the workers of the study in `folder` load.
    #[must_use]
    pub fn subject(&self, folder: &Path) -> SubjectSpec {
        SubjectSpec {
            artefacts: folder.join("artefacts"),
            layers: self
                .layers
                .clone()
                .filter(|layers| layers.is_dir())
                .unwrap_or_else(|| folder.join("layers")),
            name: self.name.clone(),
            model: self.model_sha256.clone(),
            images: self.images.clone(),
            normalization: self.normalization.clone(),
        }
    }
}

impl StudyRequest {
    /// A short name for the folder of a study that nobody named: equal requests about equal content get
    /// the same one, so that the same command goes on where it stopped. The budget is left out, as is what
    /// happens to finalists: more time continues a study.
    #[must_use]
    pub fn folder_name(&self, model_name: &str, model_sha256: &str, images: &str) -> String {
        let same = Self { budget: Budget::default(), model: None, data: None, finetune: 0, ..self.clone() };
        let mut hasher = blake3::Hasher::new();
        hasher.update(model_sha256.as_bytes());
        hasher.update(images.as_bytes());
        // A request is plain data that always has a JSON form.
        hasher.update(serde_json::to_string(&same).unwrap_or_default().as_bytes());
        format!("{model_name}-{}", &hasher.finalize().to_hex()[..8])
    }
}
