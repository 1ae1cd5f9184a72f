//! How a plan is loaded.

use paretune_simd::Isa;

/// Options for loading a plan.
#[derive(Clone, Copy, Debug)]
pub struct ExecutorOptions {
    /// Number of images per run.
    pub batch: usize,
    /// Number of threads; more than the machine has cores are of no use.
    pub threads: usize,
    /// Widest instruction set to use.
    pub isa: Isa,
}
