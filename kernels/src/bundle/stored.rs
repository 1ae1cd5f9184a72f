//! A bundle as it lies on disk: known but for its numbers, which are read as, and if, they are needed.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::format::{self, Contents, StoredWeights};
use super::table::Table;
use super::{Bundle, PLAN, WEIGHTS, complaint};
use crate::conv::{PackedLayer, Packing};
use crate::error::KernelError;
use crate::executor::{Executor, ExecutorOptions, conv_problem, resolve};
use crate::mapping::Mapping;
use crate::offer::Target;
use crate::operator::{Conv, Operator};
use crate::plan::{Backend, Plan};

/// A bundle on disk.
pub struct Stored {
    folder: PathBuf,
    /// Without numbers.
    bundle: Bundle,
    weights: Vec<StoredWeights>,
    packed: Option<Packed>,
    numbers: Mutex<CodedNumbers>,
}

/// What was packed ahead.
struct Packed {
    file: File,
    table: Table,
    layers: Arc<[PackedLayer]>,
    /// As soon as somebody has needed it.
    mapping: Mutex<Option<Arc<Mapping>>>,
}

enum CodedNumbers {
    /// All of `weights.bin`, which the plan's checksum covers.
    Read(Vec<u8>),
    /// Behind what was packed.
    OnDisk,
    Decoded(Arc<Bundle>),
}

/// What [`Stored::load`] has made.
pub struct Loaded {
    /// Ready to run.
    pub executor: Executor,
    /// How it has got its weights.
    pub weights: WeightSource,
    /// Steps whose schedule is not possible with these instructions or so many images, and that have the nearest one
    /// which is, or the default one of another algorithm.
    pub refitted: usize,
}

/// How a loaded bundle has got its weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WeightSource {
    /// The bundle has coded numbers alone.
    Decoded,
    /// They were packed ahead, and are used where they lie.
    Mapped,
    /// Others were packed ahead, for the reason given.
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
    /// Reads and checks everything but packed numbers and those behind them.
    ///
    /// # Errors
    /// Where files are missing, damaged or of another version.
    pub fn open(folder: &Path) -> Result<Self, KernelError> {
        let read = |name: &str| {
            let path = folder.join(name);
            std::fs::read(&path).map_err(|error| complaint(&path, format!("cannot be read: {error}")))
        };
        let damaged = |problem: String| complaint(folder, problem);
        let plan = read(PLAN)?;
        if format::covers_numbers(&plan).map_err(damaged)? {
            let numbers = read(WEIGHTS)?;
            let contents = format::decode(&plan, Some(&numbers), numbers.len() as u64).map_err(damaged)?;
            return Self::new(folder, contents, None, CodedNumbers::Read(numbers));
        }
        let path = folder.join(WEIGHTS);
        let unread = |error: std::io::Error| complaint(&path, format!("cannot be read: {error}"));
        let file = File::open(&path).map_err(unread)?;
        let bytes = file.metadata().map_err(unread)?.len();
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
        Ok(Self { folder: folder.to_owned(), bundle, weights, packed, numbers: Mutex::new(numbers) })
    }

    /// Everything but the numbers of weights: [`Executor::new`] refuses such a plan, [`Stored::load`] loads it.
    #[must_use]
    pub fn description(&self) -> &Bundle {
        &self.bundle
    }

    /// The instruction set that weights were packed for ahead, by name.
    #[must_use]
    pub fn packed_for(&self) -> Option<&str> {
        self.packed.as_ref().map(|packed| packed.table.isa.as_str())
    }

    /// Bytes of the two files.
    ///
    /// # Errors
    /// Where they are not there any more.
    pub fn bytes(&self) -> Result<u64, KernelError> {
        [PLAN, WEIGHTS].into_iter().try_fold(0, |sum, name| {
            let path = self.folder.join(name);
            let file =
                path.metadata().map_err(|error| complaint(&path, format!("cannot be read: {error}")))?;
            Ok(sum + file.len())
        })
    }

    /// The whole bundle. Numbers are decoded once.
    ///
    /// # Errors
    /// Where they are damaged.
    pub fn bundle(&self) -> Result<Arc<Bundle>, KernelError> {
        let damaged = |problem: String| complaint(&self.folder, problem);
        let mut numbers = locked(&self.numbers);
        let read;
        let coded = match &*numbers {
            CodedNumbers::Decoded(bundle) => return Ok(Arc::clone(bundle)),
            CodedNumbers::Read(coded) => coded,
            CodedNumbers::OnDisk => {
                read = self.packed.as_ref().map_or(Ok(Vec::new()), Packed::read_coded).map_err(damaged)?;
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

    /// Loads the plan: maps what was packed for it, or else decodes numbers and packs them. Schedules that are not possible
    /// with `options` give way to others.
    ///
    /// # Errors
    /// Where something is damaged, or the plan does not run here.
    pub fn load(&self, options: &ExecutorOptions) -> Result<Loaded, KernelError> {
        let (plan, refitted) = fitted(&self.bundle.plan, options);
        let decoded = |weights: WeightSource| {
            let plan = Plan { weights: self.bundle()?.plan.weights.clone(), ..plan.clone() };
            Ok(Loaded { executor: Executor::new(&plan, options)?, weights, refitted })
        };
        let Some(packed) = &self.packed else { return decoded(WeightSource::Decoded) };
        if packed.table.isa != options.isa.name() {
            let reason = format!("they were packed for {}, this is {}", packed.table.isa, options.isa.name());
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
    /// What was packed, seen to be what was written.
    fn mapping(&self) -> Result<Arc<Mapping>, String> {
        let mut mapping = locked(&self.mapping);
        if let Some(mapping) = &*mapping {
            return Ok(Arc::clone(mapping));
        }
        let fresh =
            Mapping::new(&self.file, self.table.bytes).map_err(|problem| format!("weights.bin {problem}"))?;
        if fresh.digest() != self.table.digest {
            return Err("is damaged: the checksum of its packed weights does not match".into());
        }
        Ok(Arc::clone(mapping.insert(Arc::new(fresh))))
    }

    /// The coded numbers behind what was packed.
    fn read_coded(&self) -> Result<Vec<u8>, String> {
        let unread = |error: std::io::Error| format!("weights.bin cannot be read: {error}");
        let mut file = &self.file;
        file.seek(SeekFrom::Start(self.table.bytes as u64)).map_err(unread)?;
        // The file was seen to have that many bytes.
        let mut coded = vec![0; self.table.coded_bytes];
        file.read_exact(&mut coded).map_err(unread)?;
        if *blake3::hash(&coded).as_bytes() != self.table.coded_digest {
            return Err("is damaged: the checksum of its coded weights does not match".into());
        }
        Ok(coded)
    }
}

/// `plan` with schedules that are possible with `options`, and how many of them are others than it has.
fn fitted(plan: &Plan, options: &ExecutorOptions) -> (Plan, usize) {
    let (mut fitted, mut others) = (plan.clone(), 0);
    let target = Target::Cpu(options.isa);
    let on_processor = |index: usize| *plan.backend_of(index) == Backend::Cpu;
    for (index, step) in plan.steps.iter().enumerate().filter(|&(index, _)| on_processor(index)) {
        let (Operator::Conv(conv), Some(problem)) = (&step.operator, conv_problem(plan, step, options.batch))
        else {
            continue;
        };
        let format = plan.weights[conv.weights].format();
        if resolve(&step.name, conv, problem, format, options.isa).is_ok() {
            continue;
        }
        // Where there is no such algorithm at all, loading says so.
        let Some(schedule) = target.fitted(&conv.schedule, &problem) else { continue };
        fitted.steps[index].operator = Operator::Conv(Conv { schedule, ..conv.clone() });
        others += 1;
    }
    (fitted, others)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
