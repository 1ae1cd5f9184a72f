//! The request that a study answers: `study.toml` in its folder.

use std::path::{Path, PathBuf};

use paretune_kernels::image::Transform;
use serde::{Deserialize, Serialize};

use crate::artefact::write_whole;
use crate::budget::Budget;
use crate::journal::{Journal, Past};
use crate::limit::Limit;
use crate::metric::Metric;
use crate::preference::Preference;
use crate::seal::{Condition, Sealed};

/// Mean and deviation that turn images into network inputs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Normalization {
    /// Mean of each channel on the 0-255 scale.
    pub mean: Vec<f32>,
    /// Standard deviation of each channel on the 0-255 scale, positive.
    pub std: Vec<f32>,
}

/// Workload of all trials of a session, given by content hashes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkloadSpec {
    /// Folder of the artefacts that the hashes below name.
    pub artefacts: PathBuf,
    /// Folder of compressed layers, shared by studies.
    pub layers: PathBuf,
    /// Name for messages and bundles.
    pub name: String,
    /// SHA-256 of the network's file; the artefact `SHA256.network`.
    pub model: String,
    /// Content hash of the three parts of the images; the artefact `HASH.images`.
    pub images: String,
    /// Mean and deviation that turn images into inputs.
    pub normalization: Normalization,
    /// Size, crop and channels of photos; the images of the artefact have gone through it.
    #[serde(default)]
    pub transform: Transform,
}

/// Settings that turn image files into labelled inputs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ImageRequest {
    /// Class names in the order of the network's outputs; empty for the sorted names of folders.
    pub classes: Vec<String>,
    /// Path of the file with the labels of single images.
    pub labels: Option<PathBuf>,
    /// Size, crop and channels.
    pub transform: Transform,
}

/// All settings that determine a search.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StudyRequest {
    /// Path of the network's file; `None` for the built-in network.
    pub model: Option<PathBuf>,
    /// Path of the images; `None` for the built-in ones.
    pub data: Option<PathBuf>,
    /// Mean and deviation of the inputs. By default those of the built-in images, else mean 0 and
    /// deviation 1.
    pub normalization: Option<Normalization>,
    /// Everything else that turns files into labelled inputs.
    #[serde(default)]
    pub images: ImageRequest,
    /// Limits that a deployable point must keep.
    pub limits: Vec<Limit>,
    /// Names of the objectives: `accuracy`, `latency`, `size`, `memory`.
    pub objectives: Vec<Metric>,
    /// Criterion of the best point: an objective's name or `knee`.
    pub prefer: Preference,
    /// Limit on time and trials.
    pub budget: Budget,
    /// Name of the search strategy.
    pub strategy: String,
    /// Names of the backends to consider.
    pub backends: Vec<String>,
    /// Thread counts to consider, ascending.
    pub threads: Vec<usize>,
    /// Path of a file that narrows, fixes or extends the space.
    pub space: Option<PathBuf>,
    /// Seed of the random generator.
    pub seed: u64,
    /// Seconds of fine-tuning for every finalist; 0 for none.
    #[serde(default)]
    pub finetune: u64,
}

/// Name of the file that says what a study was asked.
pub const STUDY: &str = "study.toml";

/// Contents of `study.toml`: the request and the hashes of its inputs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StudyFile {
    /// Version of the program that wrote it.
    pub version: String,
    /// Name of the network, from its file.
    pub name: String,
    /// SHA-256 of the network's file.
    pub model_sha256: String,
    /// Content hash of the images.
    pub images: String,
    /// Folder of compressed layers beside the result store; by default a folder of the study.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers: Option<PathBuf>,
    /// Mean and deviation that turn images into inputs.
    pub normalization: Normalization,
    /// Size, crop and channels of photos.
    #[serde(default)]
    pub transform: Transform,
    /// The request that the study answers.
    pub request: StudyRequest,
}

/// An error about the file `study.toml`.
#[derive(Debug, thiserror::Error)]
#[error("`{path}`: {problem}")]
pub struct RequestError {
    /// Path of the file in question.
    pub path: String,
    /// Description of the problem for the user.
    pub problem: String,
}

impl StudyFile {
    /// Reads `study.toml` in `folder`. A file that is missing or damaged is made again from the
    /// journal, in memory and, where possible, on disk.
    ///
    /// # Errors
    /// Fails if neither the file nor the journal says what was asked.
    pub fn read(folder: &Path) -> Result<Self, RequestError> {
        let path = folder.join(STUDY);
        let wrong = |problem: String| RequestError { path: path.display().to_string(), problem };
        let bytes = paretune_kernels::file::read(&path, paretune_kernels::file::MAX_TEXT_BYTES)
            .map_err(|error| wrong(error.to_string()));
        let past = Journal::read(folder).unwrap_or_default();
        let read = bytes.and_then(|bytes| {
            match Sealed::Toml.verify(&bytes) {
                Condition::Whole => {}
                Condition::Unsealed if !past.sealed => {}
                Condition::Unsealed | Condition::Damaged => {
                    return Err(wrong("is damaged: its checksum does not match".to_owned()));
                }
            }
            let text = std::str::from_utf8(&bytes).map_err(|error| wrong(error.to_string()))?;
            toml::from_str(text).map_err(|error| wrong(error.to_string()))
        });
        let error = match read {
            Ok(file) => return Ok(file),
            Err(error) => error,
        };
        let Some(file) = Self::journaled(&past) else {
            let problem =
                format!("{}; run the same `search` again, which writes it", error.problem);
            return Err(RequestError { problem, ..error });
        };
        tracing::info!("{error}; it is made again from the journal");
        if let Err(error) = file.write(folder) {
            tracing::info!("{error}");
        }
        Ok(file)
    }

    /// Returns what a journal says about the latest session: what was asked, with the changes that
    /// were made on the screen.
    #[must_use]
    pub fn journaled(past: &Past) -> Option<Self> {
        let mut file = past.sessions.iter().rev().find_map(|(_, session)| session.study.clone())?;
        if let Some(settings) = &past.settings {
            settings.apply(&mut file.request);
        }
        Some(*file)
    }

    /// Writes `study.toml` into `folder`, completely or not at all.
    ///
    /// # Errors
    /// Fails if the file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), RequestError> {
        let path = folder.join(STUDY);
        let wrong = |problem: String| RequestError { path: path.display().to_string(), problem };
        let text = toml::to_string_pretty(self).map_err(|error| wrong(error.to_string()))?;
        let bytes = Sealed::Toml.seal(text.into_bytes());
        write_whole(&path, &bytes).map_err(|error| wrong(error.to_string()))
    }

    /// Moves the folder of compressed layers to a place beside the result store `store`, where
    /// other studies find them.
    ///
    /// # Errors
    /// Fails if the folder cannot be created.
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

    /// Describes the workload that the workers of the study in `folder` load.
    #[must_use]
    pub fn workload(&self, folder: &Path) -> WorkloadSpec {
        WorkloadSpec {
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
            transform: self.transform,
        }
    }
}

impl StudyRequest {
    /// Returns a short folder name for a study without a name. Equal requests about equal content
    /// get the same name, so that a repeated command resumes its study. The name does not depend on
    /// the budget or on fine-tuning: more time continues a study.
    #[must_use]
    pub fn folder_name(&self, model_name: &str, model_sha256: &str, images: &str) -> String {
        let same = Self {
            budget: Budget::default(),
            model: None,
            data: None,
            finetune: 0,
            ..self.clone()
        };
        let mut hasher = blake3::Hasher::new();
        hasher.update(model_sha256.as_bytes());
        hasher.update(images.as_bytes());
        // A request is plain data, so its serialization cannot fail.
        hasher.update(serde_json::to_string(&same).unwrap_or_default().as_bytes());
        format!("{model_name}-{}", &hasher.finalize().to_hex()[..8])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_file_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let request = StudyRequest {
            model: None,
            data: Some("images".into()),
            normalization: None,
            images: ImageRequest::default(),
            limits: Vec::new(),
            objectives: Metric::objectives().collect(),
            prefer: Preference::Knee,
            budget: Budget { seconds: Some(12.5), trials: None },
            strategy: "auto".into(),
            backends: vec!["cpu".into()],
            threads: vec![1, 2],
            space: None,
            seed: 17,
            finetune: 0,
        };
        let file = StudyFile {
            version: "1".into(),
            name: "net".into(),
            model_sha256: "12".into(),
            images: "34".into(),
            layers: None,
            normalization: Normalization { mean: vec![0.5], std: vec![1.5] },
            transform: Transform::default(),
            request,
        };
        file.write(folder.path()).unwrap();
        assert_eq!(StudyFile::read(folder.path()).unwrap(), file);
        let path = folder.path().join(STUDY);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("seed = 17", "seed = 11")).unwrap();
        let error = StudyFile::read(folder.path()).unwrap_err().to_string();
        assert!(error.contains("damaged") && error.contains("search"), "{error}");
    }
}
