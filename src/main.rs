//! The command-line program `paretune`, a thin wrapper around the library.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use paretune_kernels::memory::CountingAllocator;

/// Allocator that counts the bytes of candidates, so that the `memory` metric is measured.
#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

fn main() -> ExitCode {
    paretune::cli::main()
}
