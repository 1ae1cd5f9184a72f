//! The registry of convolution algorithms of both backends, in one common form.

use paretune_base::error::KernelError;
use paretune_base::plan::Backend;
use paretune_base::plan::operator::ConvProblem;
use paretune_base::plan::schedule::{Schedule, Tunable};
use paretune_base::plan::weights::WeightFormat;
use paretune_cpu::conv;
#[cfg(feature = "opencl")]
use paretune_opencl as opencl;
use paretune_simd::Isa;

/// A backend as available on this machine.
#[derive(Clone, Debug)]
pub enum Target {
    /// The processor with this instruction set.
    Cpu(Isa),
    /// An OpenCL device with these limits.
    #[cfg(feature = "opencl")]
    OpenCl(opencl::Limits),
}

/// An algorithm that supports a given problem.
#[derive(Clone)]
pub struct Offer {
    /// Name of the algorithm, unique among all backends.
    pub name: &'static str,
    /// One-line description of the algorithm for people.
    pub about: &'static str,
    /// Whether the algorithm computes on integer weights and 8-bit activations, instead of single
    /// precision.
    pub integer: bool,
    /// Largest absolute value of a weight that the algorithm supports.
    pub largest_weight: f32,
    /// Tunables of the algorithm for the problem.
    pub tunables: Vec<Tunable>,
    /// Constraints between tunables, as expressions over their names.
    pub constraints: Vec<String>,
    algorithm: Algorithm,
}

/// An algorithm of either backend.
#[derive(Clone, Copy)]
enum Algorithm {
    Cpu(&'static dyn conv::Algorithm),
    #[cfg(feature = "opencl")]
    OpenCl(&'static dyn opencl::conv::Algorithm),
}

impl Offer {
    /// Whether the algorithm executes weights of `format`.
    #[must_use]
    pub fn executes(&self, format: WeightFormat) -> bool {
        match self.algorithm {
            Algorithm::Cpu(algorithm) => algorithm.executes(format),
            #[cfg(feature = "opencl")]
            Algorithm::OpenCl(algorithm) => algorithm.executes(format),
        }
    }
}

impl Target {
    /// Finds `backend` on this machine; `isa` is the widest instruction set to use.
    ///
    /// # Errors
    /// Fails if the backend is not available.
    pub fn of(backend: &Backend, isa: Isa) -> Result<Self, KernelError> {
        Ok(match backend {
            Backend::Cpu => Self::Cpu(isa),
            #[cfg(not(feature = "opencl"))]
            Backend::OpenCl { .. } => {
                return Err(KernelError::System("this program was built without OpenCL".to_owned()));
            }
            #[cfg(feature = "opencl")]
            Backend::OpenCl { device } => Self::OpenCl(opencl::open(device)?.limits.clone()),
        })
    }

    /// Returns the algorithms that support `problem`, the best default first.
    #[must_use]
    pub fn offers(&self, problem: &ConvProblem) -> Vec<Offer> {
        match self {
            Self::Cpu(isa) => conv::supporting(problem, *isa)
                .into_iter()
                .map(|algorithm| Offer {
                    name: algorithm.name(),
                    about: algorithm.about(),
                    integer: algorithm.integer(),
                    largest_weight: f32::INFINITY,
                    tunables: algorithm.tunables(problem, *isa),
                    constraints: algorithm.constraints().iter().map(|&text| text.to_owned()).collect(),
                    algorithm: Algorithm::Cpu(algorithm),
                })
                .collect(),
            #[cfg(feature = "opencl")]
            Self::OpenCl(limits) => opencl::conv::algorithms()
                .iter()
                .filter(|algorithm| algorithm.supports(problem, limits))
                .map(|&algorithm| Offer {
                    name: algorithm.name(),
                    about: algorithm.about(),
                    integer: algorithm.integer(),
                    largest_weight: algorithm.largest_weight(),
                    tunables: algorithm.tunables(problem, limits),
                    constraints: algorithm.constraints(problem, limits),
                    algorithm: Algorithm::OpenCl(algorithm),
                })
                .collect(),
        }
    }

    /// Adapts `schedule` to `problem`: every tunable moves to the nearest value that the algorithm
    /// offers. Returns the default schedule if the algorithm does not support the problem, for
    /// example because it has too few channels, and `None` if no algorithm of this backend has that
    /// name.
    #[must_use]
    pub fn fitted(&self, schedule: &Schedule, problem: &ConvProblem) -> Option<Schedule> {
        let tunables = match self {
            Self::Cpu(isa) => {
                let algorithm = conv::algorithm(&schedule.algorithm)?;
                algorithm.supports(problem, *isa).then(|| algorithm.tunables(problem, *isa))
            }
            #[cfg(feature = "opencl")]
            Self::OpenCl(limits) => {
                let algorithm = opencl::conv::algorithm(&schedule.algorithm)?;
                algorithm.supports(problem, limits).then(|| algorithm.tunables(problem, limits))
            }
        };
        let Some(tunables) = tunables else { return Some(Schedule::default()) };
        let mut fitted = Schedule::of(schedule.algorithm.clone());
        for tunable in tunables {
            let wanted = schedule.tunables.get(tunable.name).copied().unwrap_or(tunable.default);
            let nearest = tunable.values.iter().copied().min_by_key(|value| value.abs_diff(wanted));
            fitted.tunables.insert(tunable.name.to_owned(), nearest.unwrap_or(tunable.default));
        }
        Some(fitted)
    }
}

/// Returns the names of all algorithms of both backends.
pub fn names() -> impl Iterator<Item = &'static str> {
    let cpu = conv::algorithms().iter().map(|algorithm| algorithm.name());
    cpu.chain(device::names())
}

/// Whether the algorithm called `name` computes on integers; `None` if no algorithm has that name.
#[must_use]
pub fn is_integer(name: &str) -> Option<bool> {
    let cpu = conv::algorithm(name).map(conv::Algorithm::integer);
    cpu.or_else(|| device::is_integer(name))
}

/// Whether the algorithm called `name` computes with fewer bits than its inputs have.
#[must_use]
pub fn is_reduced(name: &str) -> bool {
    device::is_reduced(name)
}

/// Whether the algorithm called `name` runs on OpenCL devices.
#[must_use]
pub fn is_for_device(name: &str) -> bool {
    device::is_integer(name).is_some()
}

/// Whether an algorithm called `name` exists that executes weights of `format`.
#[must_use]
pub fn executes(name: &str, format: WeightFormat) -> bool {
    conv::algorithm(name).is_some_and(|algorithm| algorithm.executes(format))
        || device::executes(name, format)
}

/// Algorithms for OpenCL devices.
#[cfg(feature = "opencl")]
mod device {
    use paretune_base::plan::weights::WeightFormat;
    use paretune_opencl::conv::{Algorithm, algorithm, algorithms};

    pub fn names() -> impl Iterator<Item = &'static str> {
        algorithms().iter().map(|algorithm| algorithm.name())
    }

    pub fn is_integer(name: &str) -> Option<bool> {
        algorithm(name).map(Algorithm::integer)
    }

    pub fn is_reduced(name: &str) -> bool {
        algorithm(name).is_some_and(Algorithm::reduced)
    }

    pub fn executes(name: &str, format: WeightFormat) -> bool {
        algorithm(name).is_some_and(|algorithm| algorithm.executes(format))
    }
}

/// There are none without the backend.
#[cfg(not(feature = "opencl"))]
mod device {
    use paretune_base::plan::weights::WeightFormat;

    pub fn names() -> impl Iterator<Item = &'static str> {
        std::iter::empty()
    }

    pub fn is_integer(_name: &str) -> Option<bool> {
        None
    }

    pub fn is_reduced(_name: &str) -> bool {
        false
    }

    pub fn executes(_name: &str, _format: WeightFormat) -> bool {
        false
    }
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
        let wanted = Schedule::of("winograd_int8");
        let fitted = target.fitted(&wanted, &problem(32)).expect("there is such an algorithm");
        assert_eq!(fitted.algorithm, "winograd_int8");
        assert_eq!(target.fitted(&wanted, &problem(4)), Some(Schedule::default()));
        assert_eq!(target.fitted(&Schedule::of("unheard"), &problem(32)), None);
    }
}
