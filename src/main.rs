//! The `paretune` program.

use std::process::ExitCode;

use paretune_kernels::memory::CountingAllocator;

/// Counts what candidates allocate: the `memory` metric is measured here, not guessed.
#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

fn main() -> ExitCode {
    paretune::cli::main()
}
