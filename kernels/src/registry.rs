//! One registry of the algorithms of all backends.

use paretune_base::error::KernelError;
use paretune_base::plan::Backend;
use paretune_base::plan::operator::ConvProblem;
use paretune_base::plan::schedule::{Schedule, Tunable};
use paretune_base::registry::Registry;
pub use paretune_base::registry::{AlgorithmInfo, BackendKind, Numerics, present_name};
use paretune_cpu::conv::{self, Processor};
#[cfg(feature = "opencl")]
use paretune_opencl as opencl;
use paretune_simd::Isa;

/// A backend with its properties on this machine.
#[derive(Clone, Debug)]
pub enum Target {
    /// The processor with this instruction set.
    Cpu(Isa),
    /// An OpenCL device with these limits.
    #[cfg(feature = "opencl")]
    OpenCl(opencl::Limits),
}

/// An algorithm that supports a problem on a target.
#[derive(Clone)]
pub struct Offer {
    /// Facts that hold for every problem.
    pub info: &'static dyn AlgorithmInfo,
    /// Tunables that the algorithm has for this problem.
    pub tunables: Vec<Tunable>,
    /// Constraints between tunables, as expressions over their names.
    pub constraints: Vec<String>,
}

impl Target {
    /// Returns the target of `backend`; `isa` is the widest instruction set to use.
    ///
    /// # Errors
    /// Fails if the backend does not exist on this machine.
    pub fn of(backend: &Backend, isa: Isa) -> Result<Self, KernelError> {
        match backend {
            Backend::Cpu => Ok(Self::Cpu(isa)),
            #[cfg(feature = "opencl")]
            Backend::OpenCl { device } => Ok(Self::OpenCl(opencl::open(device)?.limits.clone())),
            #[cfg(not(feature = "opencl"))]
            Backend::OpenCl { .. } => {
                Err(KernelError::System("this program was built without OpenCL".to_owned()))
            }
        }
    }

    /// Returns the algorithms that support `problem`, best default first.
    #[must_use]
    pub fn offers(&self, problem: &ConvProblem) -> Vec<Offer> {
        match self {
            Self::Cpu(isa) => offers(&Processor(*isa), problem, |algorithm| algorithm),
            #[cfg(feature = "opencl")]
            Self::OpenCl(limits) => offers(limits, problem, |algorithm| algorithm),
        }
    }

    /// Adapts `schedule` to `problem`; see [`Registry::fitted`].
    #[must_use]
    pub fn fitted(&self, schedule: &Schedule, problem: &ConvProblem) -> Option<Schedule> {
        match self {
            Self::Cpu(isa) => Processor(*isa).fitted(schedule, problem),
            #[cfg(feature = "opencl")]
            Self::OpenCl(limits) => limits.fitted(schedule, problem),
        }
    }
}

fn offers<R: Registry>(
    registry: &R,
    problem: &ConvProblem,
    info: impl Fn(&'static R::Algorithm) -> &'static dyn AlgorithmInfo,
) -> Vec<Offer> {
    let offer = |algorithm: &'static R::Algorithm| Offer {
        info: info(algorithm),
        tunables: registry.tunables(algorithm, problem),
        constraints: registry.constraints(algorithm, problem),
    };
    registry.supporting(problem).into_iter().map(offer).collect()
}

/// Returns the hash of the sources of all kernels. It belongs into the keys of recorded times:
/// other sources are other kernels.
#[must_use]
pub fn source_hash() -> &'static str {
    #[cfg(feature = "opencl")]
    const HASH: [&str; 2] = [paretune_cpu::SOURCE_HASH, opencl::SOURCE_HASH];
    #[cfg(not(feature = "opencl"))]
    const HASH: [&str; 2] = [paretune_cpu::SOURCE_HASH, ""];
    static JOINED: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| HASH.concat());
    &JOINED
}

/// Returns all algorithms of all backends, those of the processor first.
pub fn algorithms() -> impl Iterator<Item = &'static dyn AlgorithmInfo> {
    let cpu = conv::algorithms().iter().map(|&algorithm| algorithm as &dyn AlgorithmInfo);
    #[cfg(feature = "opencl")]
    let device =
        opencl::conv::algorithms().iter().map(|&algorithm| algorithm as &dyn AlgorithmInfo);
    #[cfg(not(feature = "opencl"))]
    let device = std::iter::empty();
    cpu.chain(device)
}

/// Returns the facts about the algorithm called `name`, which may be a former name or that of a
/// baseline.
#[must_use]
pub fn info(name: &str) -> Option<&'static dyn AlgorithmInfo> {
    let name = present_name(name);
    let baselines = conv::baselines().iter().map(|&algorithm| algorithm as &dyn AlgorithmInfo);
    algorithms().chain(baselines).find(|algorithm| algorithm.name() == name)
}

/// Returns how the results of the algorithm called `name` differ from those of a direct sum. An
/// empty or unknown name counts as exact.
#[must_use]
pub fn numerics(name: &str) -> Numerics {
    info(name).map_or(Numerics::Exact, AlgorithmInfo::numerics)
}

#[cfg(test)]
mod tests {
    use super::*;
    use paretune_base::plan::operator::Window;

    #[test]
    fn what_channels_are_left_decides_what_a_schedule_becomes() {
        let problem = |channels| ConvProblem {
            batch: 1,
            in_channels: channels,
            out_channels: 16,
            groups: 1,
            input: [32, 32],
            window: Window { kernel: [3, 3], padding: [1; 4], ..Window::POINT },
        };
        let target = Target::Cpu(Isa::Portable);
        let wanted = Schedule::of("winograd_i8");
        let fitted = target.fitted(&wanted, &problem(32)).expect("there is such an algorithm");
        assert_eq!(fitted.algorithm, "winograd_i8");
        assert_eq!(target.fitted(&wanted, &problem(4)), Some(Schedule::default()));
        assert_eq!(target.fitted(&Schedule::of("unheard"), &problem(32)), None);
    }
}
