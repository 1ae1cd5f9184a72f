//! Prepares a study folder from a request. Network and images are stored as artefacts named by
//! their content, so that neither a moved file nor another working directory changes a study.

use std::path::{Path, PathBuf};

use paretune_joint_space::builder::{JointSpaceError, joint_space};
use paretune_kernels::Backend;
use paretune_kernels::hardware::Isa;
use paretune_kernels::image::Transform;
use paretune_kernels::operator::Operator;
use paretune_model::images::{self, Dataset, ImageOptions, Loaded, ReadProgress, SplitSizes};
use paretune_model::{Network, builtin};
use paretune_record::artefact::{self, ArtefactError};
use paretune_record::request::{Normalization, RequestError, StudyFile, StudyRequest};
use paretune_spaces::{Space, SpaceFile};

use crate::baseline::{self, Head};

/// Reason why a study could not begin.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The unmodified network does not run on the images.
    #[error("the unmodified network does not run: {0}")]
    Kernel(#[from] paretune_kernels::KernelError),
    /// The network cannot be read.
    #[error(transparent)]
    Model(#[from] paretune_model::ModelError),
    /// The images cannot be read.
    #[error(transparent)]
    Images(#[from] images::ImageError),
    /// The space, or the file that narrows it, is invalid.
    #[error(transparent)]
    Space(#[from] paretune_spaces::SpaceError),
    /// The space of this network cannot be built.
    #[error(transparent)]
    JointSpace(#[from] JointSpaceError),
    /// Parts of the request contradict each other.
    #[error("{0}")]
    Request(String),
    /// The file `study.toml` cannot be read or written.
    #[error(transparent)]
    StudyToml(#[from] RequestError),
    /// An artefact of the study cannot be read or written.
    #[error(transparent)]
    Artefact(#[from] ArtefactError),
    /// A file of the study cannot be used.
    #[error("`{path}`: {problem}")]
    File {
        /// Path of the file in question.
        path: String,
        /// Description of the problem for the user.
        problem: String,
    },
}

/// Largest number of images in each of the three parts of a dataset.
pub const SPLIT: SplitSizes = SplitSizes { calibration: 1024, search: 4096, report: 8192 };

/// A network and its images, loaded.
pub struct Material {
    /// The network that is to be compressed.
    pub network: Network,
    /// The labelled or unlabelled images.
    pub dataset: Dataset,
    /// Content hash of the images.
    pub images_hash: String,
    /// Mean and deviation that turn images into inputs.
    pub normalization: Normalization,
    /// Size, crop and channels of photos, which the images have gone through.
    pub transform: Transform,
    /// Sentences for the user about the images and the unmodified network.
    pub notes: Vec<String>,
}

impl Material {
    /// Loads the network and the images of `request`, and runs the network on some of them. Many
    /// images are kept in a nameless file in `scratch`.
    ///
    /// # Errors
    /// Fails if the network or the images cannot be read or do not fit each other.
    pub fn load(
        request: &StudyRequest,
        scratch: Option<PathBuf>,
        progress: Option<ReadProgress>,
    ) -> Result<Self, PrepareError> {
        let network = load_network(request.model.as_deref())?;
        let dims = input_dims(&network)?;
        let head = Head::of(&network.plan).map_err(PrepareError::Request)?;
        let images = &request.images;
        let options = ImageOptions {
            transform: images.transform,
            classes: images.classes.clone(),
            labels: images.labels.clone(),
            outputs: Some(head.classes()),
            scratch,
            progress,
        };
        let loaded = match (&request.data, &request.model) {
            (Some(path), _) => images::load(path, dims, SPLIT, &options)?,
            (None, None) => Loaded { images: builtin::dataset(SPLIT), notes: Vec::new() },
            (None, Some(model)) => {
                return Err(PrepareError::Request(format!(
                    "`{}` needs images: add `--data DIR` with a folder per class of image files \
                     (and `--mean`, `--std` \
                     as in training); without labels, a flat folder of images will do",
                    model.display()
                )));
            }
        };
        let built_in = request.data.is_none();
        let normalization = match &request.normalization {
            Some(Normalization { mean, std }) => {
                // One number stands for all channels.
                let each = |numbers: &[f32]| match numbers {
                    [number] => vec![*number; dims[0]],
                    numbers => numbers.to_vec(),
                };
                Normalization { mean: each(mean), std: each(std) }
            }
            None if built_in => {
                Normalization { mean: builtin::MEAN.to_vec(), std: builtin::STD.to_vec() }
            }
            None => Normalization { mean: vec![0.0; dims[0]], std: vec![1.0; dims[0]] },
        };
        if normalization.mean.len() != dims[0] || normalization.std.len() != dims[0] {
            return Err(PrepareError::Request(format!(
                "--mean and --std need {} number(s) each, one per channel of the network's input",
                dims[0]
            )));
        }
        if normalization.mean.iter().any(|mean| !mean.is_finite()) {
            return Err(PrepareError::Request("--mean needs finite numbers".into()));
        }
        if normalization.std.iter().any(|std| !(std.is_normal() && *std > 0.0)) {
            return Err(PrepareError::Request("--std needs positive numbers".into()));
        }
        let Loaded { images: mut dataset, mut notes } = loaded;
        let ordered = !images.classes.is_empty();
        let seen = baseline::check(&network.plan, head, &mut dataset, &normalization, ordered);
        notes.extend(seen?);
        let images_hash = dataset_hash(&dataset);
        let transform = images.transform;
        Ok(Self { network, dataset, images_hash, normalization, transform, notes })
    }

    /// Writes the artefacts and `study.toml` to `folder`.
    ///
    /// # Errors
    /// Fails if a file cannot be written, or if the folder holds a study of another network, other
    /// images or another normalization.
    pub fn store(&self, folder: &Path, request: &StudyRequest) -> Result<StudyFile, PrepareError> {
        self.write_artefacts(folder)?;
        let file = StudyFile {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            name: self.network.name.clone(),
            model_sha256: self.network.sha256.clone(),
            images: self.images_hash.clone(),
            layers: None,
            normalization: self.normalization.clone(),
            transform: self.transform,
            request: request.clone(),
        };
        // A file that is damaged, and that the journal cannot replace, is written anew.
        if let Ok(before) = StudyFile::read(folder) {
            let same = before.model_sha256 == file.model_sha256
                && before.images == file.images
                && before.normalization == file.normalization
                && before.transform == file.transform;
            if !same {
                return Err(PrepareError::Request(format!(
                    "the study in `{}` is about another network, other images or another \
                     normalization (network `{}`); \
                     name another folder with --study",
                    folder.display(),
                    before.name
                )));
            }
        }
        file.write(folder)?;
        Ok(file)
    }

    /// Writes the network and the images to `folder`, unless they are there and whole.
    fn write_artefacts(&self, folder: &Path) -> Result<(), PrepareError> {
        let [model, images] = artefacts(folder, &self.network.sha256, &self.images_hash);
        if let Some(artefacts) = model.parent() {
            std::fs::create_dir_all(artefacts).map_err(|error| PrepareError::File {
                path: artefacts.display().to_string(),
                problem: error.to_string(),
            })?;
        }
        if !artefact::is_whole(&model) {
            artefact::write(&model, &self.network)?;
        }
        if Dataset::load_cached(&images).is_err() {
            self.dataset.save(&images)?;
        }
        Ok(())
    }
}

/// Returns the paths of the network and of the images of the study in `folder`.
fn artefacts(folder: &Path, model: &str, images: &str) -> [PathBuf; 2] {
    [format!("{model}.network"), format!("{images}.images")]
        .map(|name| folder.join("artefacts").join(name))
}

/// Makes damaged artefacts of the study in `folder` again from the files that were searched.
///
/// # Errors
/// Fails if an artefact is damaged and the files are gone or have changed.
pub fn mend(folder: &Path) -> Result<(), PrepareError> {
    let study = StudyFile::read(folder)?;
    let [model, images] = artefacts(folder, &study.model_sha256, &study.images);
    if artefact::is_whole(&model) && Dataset::load_cached(&images).is_ok() {
        return Ok(());
    }
    let cannot = |problem: &str| {
        let path = folder.join("artefacts");
        PrepareError::Request(format!(
            "the network or the images of the study, in `{}`, are damaged, and {problem}",
            path.display()
        ))
    };
    let material = Material::load(&study.request, None, None)
        .map_err(|error| cannot(&format!("cannot be made again: {error}")))?;
    if material.network.sha256 != study.model_sha256 || material.images_hash != study.images {
        return Err(cannot("the files that they were made from have changed since"));
    }
    material.write_artefacts(folder)
}

/// Returns the content hash of the three parts together.
fn dataset_hash(dataset: &Dataset) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in [&dataset.calibration, &dataset.search, &dataset.report] {
        hasher.update(part.content_hash().as_bytes());
    }
    hasher.finalize().to_hex()[..32].to_owned()
}

/// Loads the network at `path`, or the built-in one.
///
/// # Errors
/// Fails if the network cannot be read.
pub fn load_network(path: Option<&Path>) -> Result<Network, PrepareError> {
    Ok(match path {
        None => Network::from_bytes(builtin::NAME, builtin::network_bytes(), None)?,
        Some(path) => Network::load(path)?,
    })
}

/// Returns `[channels, height, width]` of the network's input.
///
/// # Errors
/// Fails if the input is not an image.
pub fn input_dims(network: &Network) -> Result<[usize; 3], PrepareError> {
    let dims = network
        .plan
        .values
        .get(network.plan.input)
        .map(|value| value.dims.clone())
        .unwrap_or_default();
    <[usize; 3]>::try_from(dims.as_slice()).map_err(|_| {
        PrepareError::Request(format!(
            "the network's input has shape {dims:?}; images need [channels, height, width]"
        ))
    })
}

/// Removes OpenCL devices from `backends` if the network has steps that they do not compute.
fn leave_out_devices(network: &Network, backends: &mut Vec<Backend>) -> Result<(), PrepareError> {
    let general = network.plan.steps.iter().find_map(|step| match &step.operator {
        Operator::Tensor(operator) => Some((step.name.as_str(), operator.name())),
        _ => None,
    });
    let Some((step, kind)) = general else { return Ok(()) };
    let count = backends.len();
    backends.retain(|backend| *backend == Backend::Cpu);
    if backends.is_empty() {
        return Err(PrepareError::Request(format!(
            "OpenCL devices do not compute step `{step}` ({kind}); add `cpu` to --backend"
        )));
    }
    if backends.len() < count {
        tracing::warn!("OpenCL is left out: devices do not compute step `{step}` ({kind})");
    }
    Ok(())
}

/// Builds the space of `network` on this machine for the given `threads` and `backends`, narrowed
/// by `file`.
///
/// # Errors
/// Fails if a backend does not exist, or if the file is invalid or leaves no configuration.
pub fn space_of(
    network: &Network,
    threads: &[usize],
    backends: &[String],
    file: Option<&PathBuf>,
) -> Result<Space, PrepareError> {
    let mut backends: Vec<Backend> = backends
        .iter()
        .map(|text| text.parse().map_err(PrepareError::Request))
        .collect::<Result<_, _>>()?;
    leave_out_devices(network, &mut backends)?;
    let mut space = joint_space(network, threads, &backends, Isa::detect())?;
    match file {
        None => Ok(space),
        Some(path) => {
            let text = paretune_kernels::file::read_text(path).map_err(|error| {
                PrepareError::File { path: path.display().to_string(), problem: error.to_string() }
            })?;
            SpaceFile::parse(&text)?.apply(&mut space)?;
            Ok(space)
        }
    }
}
