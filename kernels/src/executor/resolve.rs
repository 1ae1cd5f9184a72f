//! The schedule of a convolution on the processor.

use paretune_base::error::KernelError;
use paretune_base::plan::operator::{Conv, ConvProblem};
use paretune_base::plan::weights::WeightFormat;
use paretune_base::registry::Registry;
use paretune_cpu::conv::{Algorithm, Processor};
use paretune_simd::Isa;

/// Algorithm and schedule of a convolution on the processor, with every choice made.
pub type Resolved = paretune_base::registry::Resolved<dyn Algorithm>;

/// Decides the algorithm and all tunables of the step called `name`; see [`Registry::resolve`].
///
/// # Errors
/// Fails if the algorithm or a tunable is unknown, if a value is not offered, or if no algorithm
/// supports the problem.
pub fn resolve(
    name: &str,
    conv: &Conv,
    problem: ConvProblem,
    format: WeightFormat,
    isa: Isa,
) -> Result<Resolved, KernelError> {
    Processor(isa).resolve(name, conv, problem, format)
}
