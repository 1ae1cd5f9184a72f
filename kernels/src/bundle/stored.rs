//! A bundle on disk, whose weights are read on demand only.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::format;
use super::format::{Contents, StoredWeights};
use super::table::Table;
use super::{Bundle, PLAN, WEIGHTS, complaint};
use crate::executor::{Executor, ExecutorOptions, resolve};
use crate::registry::Target;
use paretune_base::error::KernelError;
use paretune_base::file;
use paretune_base::memory::mapping::Mapping;
use paretune_base::plan::operator::{Conv, Operator};
use paretune_base::plan::shape::conv_problem;
use paretune_base::plan::{Backend, Plan};
use paretune_cpu::conv::support::packing::{PackedLayer, Packing};

/// Largest size of a file of a bundle that is read into memory, in bytes.
const MAX_BUNDLE_BYTES: u64 = 16 << 30;

/// An opened bundle on disk, whose plan has been read.
pub struct Stored {
    folder: PathBuf,
    /// The bundle without the values of its weights.
    bundle: Bundle,
    weights: Vec<StoredWeights>,
    packed: Option<Packed>,
    numbers: Mutex<CodedNumbers>,
}

/// Packed weights of a bundle.
struct Packed {
    file: File,
    table: Table,
    layers: Arc<[PackedLayer]>,
    /// The mapped file, once it is needed.
    mapping: Mutex<Option<Arc<Mapping>>>,
}

enum CodedNumbers {
    /// Contents of `weights.bin`, which the plan's checksum covers.
    Read(Vec<u8>),
    /// In the file, after the packed weights.
    OnDisk,
    Decoded(Arc<Bundle>),
}

/// An executor loaded by [`Stored::load`], and the origin of its weights.
pub struct Loaded {
    /// Executor that is ready to run.
    pub executor: Executor,
    /// Source of the executor's weights.
    pub weights: WeightSource,
    /// Number of steps whose schedule does not support this instruction set or batch size. They run
    /// with the nearest supported values, or with the default schedule of another algorithm.
    pub refitted: usize,
}

/// Source of the weights of a loaded bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WeightSource {
    /// Decoded from a bundle with coded weights alone.
    Decoded,
    /// Packed weights, used directly from the mapped file.
    Mapped,
    /// Decoded and packed again, because the packed weights do not fit for the given reason.
    Repacked(String),
}

impl std::fmt::Display for WeightSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Decoded => f.write_str("weights decoded and packed"),
            Self::Mapped => f.write_str("weights mapped as they are"),
            Self::Repacked(reason) => write!(f, "weights decoded and packed again: {reason}"),
        }
    }
}

impl Stored {
    /// Reads and checks everything except packed weights and the coded weights after them.
    ///
    /// # Errors
    /// Fails if files are missing, damaged or of another version.
    pub fn open(folder: &Path) -> Result<Self, KernelError> {
        let read = |name: &str| {
            let path = folder.join(name);
            file::read(&path, MAX_BUNDLE_BYTES)
                .map_err(|error| complaint(&path, format!("cannot be read: {error}")))
        };
        let damaged = |problem: String| complaint(folder, problem);
        let plan = read(PLAN)?;
        if format::covers_numbers(&plan).map_err(damaged)? {
            let numbers = read(WEIGHTS)?;
            let contents =
                format::decode(&plan, Some(&numbers), numbers.len() as u64).map_err(damaged)?;
            return Self::new(folder, contents, None, CodedNumbers::Read(numbers));
        }
        let path = folder.join(WEIGHTS);
        let unread = |error: std::io::Error| complaint(&path, format!("cannot be read: {error}"));
        let (file, bytes) = file::open(&path).map_err(unread)?;
        let contents = format::decode(&plan, None, bytes).map_err(damaged)?;
        Self::new(folder, contents, Some(file), CodedNumbers::OnDisk)
    }

    fn new(
        folder: &Path,
        contents: Contents,
        file: Option<File>,
        numbers: CodedNumbers,
    ) -> Result<Self, KernelError> {
        let Contents { bundle, weights, table } = contents;
        bundle.check_structure().map_err(|problem| complaint(folder, problem))?;
        let packed = file.zip(table).map(|(file, table)| Packed {
            file,
            layers: table.layers.clone().into(),
            table,
            mapping: Mutex::new(None),
        });
        Ok(Self {
            folder: folder.to_owned(),
            bundle,
            weights,
            packed,
            numbers: Mutex::new(numbers),
        })
    }

    /// Returns the bundle without the values of its weights. [`Executor::new`] refuses such a plan;
    /// [`Stored::load`] loads it.
    #[must_use]
    pub fn description(&self) -> &Bundle {
        &self.bundle
    }

    /// Returns the name of the instruction set that the packed weights are for, if there are any.
    #[must_use]
    pub fn packed_for(&self) -> Option<&str> {
        self.packed.as_ref().map(|packed| packed.table.isa.as_str())
    }

    /// Returns the bytes of the two files.
    ///
    /// # Errors
    /// Fails if a file no longer exists.
    pub fn bytes(&self) -> Result<u64, KernelError> {
        [PLAN, WEIGHTS].into_iter().try_fold(0, |sum, name| {
            let path = self.folder.join(name);
            let file = path
                .metadata()
                .map_err(|error| complaint(&path, format!("cannot be read: {error}")))?;
            Ok(sum + file.len())
        })
    }

    /// Returns the whole bundle, whose weights are decoded once.
    ///
    /// # Errors
    /// Fails if the coded weights are damaged.
    pub fn bundle(&self) -> Result<Arc<Bundle>, KernelError> {
        let damaged = |problem: String| complaint(&self.folder, problem);
        let mut numbers = locked(&self.numbers);
        let read;
        let coded = match &*numbers {
            CodedNumbers::Decoded(bundle) => return Ok(Arc::clone(bundle)),
            CodedNumbers::Read(coded) => coded,
            CodedNumbers::OnDisk => {
                read = self
                    .packed
                    .as_ref()
                    .map_or(Ok(Vec::new()), Packed::read_coded)
                    .map_err(damaged)?;
                &read
            }
        };
        let weights = format::decode_numbers(&self.weights, coded).map_err(damaged)?;
        let mut bundle = self.bundle.clone();
        bundle.plan.weights = weights;
        bundle.check().map_err(damaged)?;
        let bundle = Arc::new(bundle);
        *numbers = CodedNumbers::Decoded(Arc::clone(&bundle));
        Ok(bundle)
    }

    /// Loads the plan with mapped packed weights if they match, and otherwise decodes the weights
    /// and packs them. Schedules that `options` do not support are replaced.
    ///
    /// # Errors
    /// Fails if a file is damaged, or if the plan does not run on this machine.
    pub fn load(&self, options: &ExecutorOptions) -> Result<Loaded, KernelError> {
        let (plan, refitted) = fitted(&self.bundle.plan, options);
        let decoded = |weights: WeightSource| {
            let plan = Plan { weights: self.bundle()?.plan.weights.clone(), ..plan.clone() };
            Ok(Loaded { executor: Executor::new(&plan, options)?, weights, refitted })
        };
        let Some(packed) = &self.packed else { return decoded(WeightSource::Decoded) };
        if packed.table.isa != options.isa.name() {
            let reason = format!(
                "they were packed for {}, this is {}",
                packed.table.isa,
                options.isa.name()
            );
            return decoded(WeightSource::Repacked(reason));
        }
        let mapping = packed.mapping().map_err(|problem| complaint(&self.folder, problem))?;
        let packing = Packing::found(mapping, Arc::clone(&packed.layers));
        match Executor::packed(&plan, options, &packing) {
            Ok(executor) => Ok(Loaded { executor, weights: WeightSource::Mapped, refitted }),
            Err(KernelError::Packed(reason)) => decoded(WeightSource::Repacked(reason)),
            Err(error) => Err(error),
        }
    }
}

impl Packed {
    /// Maps the packed weights, after a check of their checksum.
    fn mapping(&self) -> Result<Arc<Mapping>, String> {
        let mut mapping = locked(&self.mapping);
        if let Some(mapping) = &*mapping {
            return Ok(Arc::clone(mapping));
        }
        let fresh = Mapping::new(&self.file, self.table.bytes)
            .map_err(|problem| format!("weights.bin {problem}"))?;
        if fresh.digest() != self.table.digest {
            return Err("is damaged: the checksum of its packed weights does not match".into());
        }
        Ok(Arc::clone(mapping.insert(Arc::new(fresh))))
    }

    /// Reads the coded weights that follow the packed ones.
    fn read_coded(&self) -> Result<Vec<u8>, String> {
        let unread = |error: std::io::Error| format!("weights.bin cannot be read: {error}");
        let mut file = &self.file;
        file.seek(SeekFrom::Start(self.table.bytes as u64)).map_err(unread)?;
        // The length of the file was checked before.
        let mut coded = vec![0; self.table.coded_bytes];
        file.read_exact(&mut coded).map_err(unread)?;
        if *blake3::hash(&coded).as_bytes() != self.table.coded_digest {
            return Err("is damaged: the checksum of its coded weights does not match".into());
        }
        Ok(coded)
    }
}

/// Returns `plan` with schedules that `options` support, and the number of replaced schedules.
fn fitted(plan: &Plan, options: &ExecutorOptions) -> (Plan, usize) {
    let (mut fitted, mut others) = (plan.clone(), 0);
    let target = Target::Cpu(options.isa);
    let on_processor = |index: usize| *plan.backend_of(index) == Backend::Cpu;
    for (index, step) in plan.steps.iter().enumerate().filter(|&(index, _)| on_processor(index)) {
        let (Operator::Conv(conv), Some(problem)) =
            (&step.operator, conv_problem(plan, step, options.batch))
        else {
            continue;
        };
        let format = plan.weights[conv.weights].format();
        if resolve(&step.name, conv, problem, format, options.isa).is_ok() {
            continue;
        }
        // If the algorithm does not exist at all, loading reports it.
        let Some(schedule) = target.fitted(&conv.schedule, &problem) else { continue };
        fitted.steps[index].operator = Operator::Conv(Conv { schedule, ..conv.clone() });
        others += 1;
    }
    (fitted, others)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
