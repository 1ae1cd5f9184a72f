//! From a request to a study folder that has all it needs: the network and the images as artefacts named by
//! content, so that neither a moved file nor another working directory can change a study.

use std::path::{Path, PathBuf};

use paretune_kernels::Backend;
use paretune_kernels::hardware::Isa;
use paretune_spaces::{Space, SpaceFile};

use super::request::{RequestError, StudyFile, StudyRequest};
use super::space::{JointSpaceError, joint_space};
use crate::evaluate::accuracy::Normalization;
use crate::evaluate::artefact::{self, ArtefactError};
use crate::model::images::{self, Dataset, SplitSizes};
use crate::model::{Network, builtin};

/// Why a study could not begin.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The network.
    #[error(transparent)]
    Model(#[from] crate::model::ModelError),
    /// The images.
    #[error(transparent)]
    Images(#[from] images::ImageError),
    /// The space or the file that narrows it.
    #[error(transparent)]
    Space(#[from] paretune_spaces::SpaceError),
    /// The space of this network.
    #[error(transparent)]
    JointSpace(#[from] JointSpaceError),
    /// What was asked for does not fit together.
    #[error("{0}")]
    Request(String),
    /// `study.toml`.
    #[error(transparent)]
    StudyToml(#[from] RequestError),
    /// An artefact of the study.
    #[error(transparent)]
    Artefact(#[from] ArtefactError),
    /// A file of the study.
    #[error("`{path}`: {problem}")]
    File {
        /// Which.
        path: String,
        /// What is wrong.
        problem: String,
    },
}

/// The three parts of a dataset are at most this big.
pub const SPLIT: SplitSizes = SplitSizes { calibration: 1024, search: 4096, report: 8192 };

/// A network and its images, loaded.
pub struct Material {
    /// The network.
    pub network: Network,
    /// The images.
    pub dataset: Dataset,
    /// Their content hash.
    pub images_hash: String,
    /// How images become inputs.
    pub normalization: Normalization,
}

impl Material {
    /// Loads what `request` names.
    ///
    /// # Errors
    /// Where the network or the images cannot be read or do not fit each other.
    pub fn load(request: &StudyRequest) -> Result<Self, PrepareError> {
        let network = load_network(request.model.as_deref())?;
        let dims = input_dims(&network)?;
        let dataset = match (&request.data, &request.model) {
            (Some(path), _) => images::load(path, dims, SPLIT)?,
            (None, None) => builtin::dataset(SPLIT),
            (None, Some(model)) => {
                return Err(PrepareError::Request(format!(
                    "`{}` needs images: add `--data DIR` with a folder per class of PNG or JPEG files (and `--mean`, `--std` \
                     as in training); without labels, a flat folder of images will do",
                    model.display()
                )));
            }
        };
        let built_in = request.data.is_none();
        let normalization = match &request.normalization {
            Some(normalization) => normalization.clone(),
            None if built_in => Normalization { mean: builtin::MEAN.to_vec(), std: builtin::STD.to_vec() },
            None => Normalization { mean: vec![0.0; dims[0]], std: vec![1.0; dims[0]] },
        };
        if normalization.mean.len() != dims[0] || normalization.std.len() != dims[0] {
            return Err(PrepareError::Request(format!(
                "--mean and --std need {} number(s) each, one per channel of the network's input",
                dims[0]
            )));
        }
        if normalization.std.iter().any(|std| !(std.is_finite() && *std > 0.0)) {
            return Err(PrepareError::Request("--std needs positive numbers".into()));
        }
        let images_hash = dataset_hash(&dataset);
        Ok(Self { network, dataset, images_hash, normalization })
    }

    /// Lays the artefacts and `study.toml` down in `folder`.
    ///
    /// # Errors
    /// Where the disk refuses, or the folder holds a study about something else.
    pub fn store(&self, folder: &Path, request: &StudyRequest) -> Result<StudyFile, PrepareError> {
        let artefacts = folder.join("artefacts");
        std::fs::create_dir_all(&artefacts).map_err(|error| PrepareError::File {
            path: artefacts.display().to_string(),
            problem: error.to_string(),
        })?;
        let model = artefacts.join(format!("{}.network", self.network.sha256));
        if !model.exists() {
            artefact::write(&model, &self.network)?;
        }
        let images = artefacts.join(format!("{}.images", self.images_hash));
        if !images.exists() {
            self.dataset.save(&images)?;
        }
        let file = StudyFile {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            name: self.network.name.clone(),
            model_sha256: self.network.sha256.clone(),
            images: self.images_hash.clone(),
            layers: None,
            normalization: self.normalization.clone(),
            request: request.clone(),
        };
        if folder.join("study.toml").exists() {
            let before = StudyFile::read(folder)?;
            let same = before.model_sha256 == file.model_sha256
                && before.images == file.images
                && before.normalization == file.normalization;
            if !same {
                return Err(PrepareError::Request(format!(
                    "the study in `{}` is about another network, other images or another normalization (network `{}`); \
                     name another folder with --study",
                    folder.display(),
                    before.name
                )));
            }
        }
        file.write(folder)?;
        Ok(file)
    }
}

/// Content hash of the three parts together.
fn dataset_hash(dataset: &Dataset) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in [&dataset.calibration, &dataset.search, &dataset.report] {
        hasher.update(part.content_hash().as_bytes());
    }
    hasher.finalize().to_hex()[..32].to_owned()
}

/// The network at `path`, or the built-in one.
///
/// # Errors
/// Where it cannot be read.
pub fn load_network(path: Option<&Path>) -> Result<Network, PrepareError> {
    Ok(match path {
        None => Network::from_bytes(builtin::NAME, builtin::network_bytes(), None)?,
        Some(path) => Network::load(path)?,
    })
}

/// `[channels, height, width]` of the network's input.
///
/// # Errors
/// Where the input is no image.
pub fn input_dims(network: &Network) -> Result<[usize; 3], PrepareError> {
    let dims =
        network.plan.values.get(network.plan.input).map(|value| value.dims.clone()).unwrap_or_default();
    <[usize; 3]>::try_from(dims.as_slice()).map_err(|_| {
        PrepareError::Request(format!(
            "the network's input has shape {dims:?}; images need [channels, height, width]"
        ))
    })
}

/// The space of `network` on this machine with `threads` and `backends` to choose from, narrowed by `file`.
///
/// # Errors
/// Where a backend is not there, or the file is wrong or leaves nothing.
pub fn space_of(
    network: &Network,
    threads: &[usize],
    backends: &[String],
    file: Option<&PathBuf>,
) -> Result<Space, PrepareError> {
    let backends: Vec<Backend> =
        backends.iter().map(|text| text.parse().map_err(PrepareError::Request)).collect::<Result<_, _>>()?;
    let mut space = joint_space(network, threads, &backends, Isa::detect())?;
    match file {
        None => Ok(space),
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| PrepareError::File {
                path: path.display().to_string(),
                problem: error.to_string(),
            })?;
            SpaceFile::parse(&text)?.apply(&mut space)?;
            Ok(space)
        }
    }
}
