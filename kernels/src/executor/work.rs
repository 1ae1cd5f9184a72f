//! The kernels that a step of a program may have.

use paretune_cpu::conv::algorithm::Kernel;
use paretune_cpu::operators::OperatorKernel;

/// The kernel of a step.
pub(super) enum Work {
    Conv(Box<dyn Kernel>),
    Operator(Box<dyn OperatorKernel>),
}
