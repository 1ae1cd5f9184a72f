//! Tests that a run allocates nothing for any network, and that the counting allocator counts.
//! Waking sleeping threads costs rayon an allocation or two per run, never per step.

mod common;

use common::{Options, numbers, plan};
use paretune_kernels::bundle::{Bundle, Loaded, Preprocessing, Stored, WeightSource};
use paretune_kernels::hardware::Isa;
use paretune_kernels::memory::{self, CountingAllocator};
use paretune_kernels::{Executor, ExecutorOptions};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

// A single test, because the counters are global and tests run concurrently.
#[test]
fn counting_and_runs_without_allocation() {
    assert!(memory::is_counting());
    let before = memory::live_bytes();
    memory::reset_peak();
    let block = vec![1_u8; 1 << 22];
    assert!(memory::live_bytes() >= before + (1 << 22));
    drop(block);
    assert!(memory::live_bytes() < before + (1 << 20));
    assert!(memory::peak_bytes() >= before + (1 << 22));

    let mut most_steps = 0;
    for seed in 0..40 {
        for threads in [1, 2, 3] {
            let batch = 1 + seed as usize % 2;
            let isa = Isa::detect();
            let plan = plan(seed, Options { batch, isa, integer: seed % 3 == 0 });
            let mut executor =
                Executor::new(&plan, &ExecutorOptions { batch, threads, isa }).unwrap();
            let (input_len, output_len) = executor.lengths();
            let input = numbers(seed, input_len);
            let mut output = vec![0.0; output_len];
            // The first run may wake threads that initialize themselves.
            executor.run(&input, &mut output).unwrap();
            let count = memory::allocations();
            for _ in 0..5 {
                executor.run(&input, &mut output).unwrap();
            }
            let made = memory::allocations() - count;
            let allowed = if threads == 1 { 0 } else { 5 * 4 };
            assert!(made <= allowed, "{made} allocations: seed {seed}, {threads} threads");
            most_steps = most_steps.max(executor.steps().len());
        }
    }
    assert!(most_steps > 8, "networks too small to tell");
    mapped_weights_are_memory_too();
}

/// Checks that the allocated and the mapped bytes of a network with mapped weights add up to the
/// bytes that it allocates without mapping.
fn mapped_weights_are_memory_too() {
    let isa = Isa::detect();
    let options = ExecutorOptions { batch: 1, threads: 1, isa };
    let home = tempfile::tempdir().unwrap();
    let mut mapped_most = 0;
    for seed in 0..20 {
        let plan = plan(seed, Options { batch: 1, isa, integer: seed % 3 == 0 });
        let (input, mut output) =
            (numbers(seed, plan.values[plan.input].len()), vec![0.0; 1 << 16]);
        let output = &mut output[..plan.values[plan.output].len()];
        let mut needed = |executor: &mut Executor, before: u64| {
            memory::reset_peak();
            executor.run(&input, output).unwrap();
            memory::peak_bytes() - before + executor.mapped_bytes()
        };
        let before = memory::live_bytes();
        let mut executor = Executor::new(&plan, &options).unwrap();
        let made = needed(&mut executor, before);
        let held = executor.memory();
        drop(executor);
        let bundle =
            Bundle { plan, preprocessing: Preprocessing::default(), configuration: String::new() };
        bundle.write_packed(&home.path().join("bundle"), isa).unwrap();
        let stored = Stored::open(&home.path().join("bundle")).unwrap();
        let before = memory::live_bytes();
        let Loaded { mut executor, weights, .. } = stored.load(&options).unwrap();
        assert_eq!((weights, executor.memory()), (WeightSource::Mapped, held));
        let found = needed(&mut executor, before);
        // Bytes that were allocated on the way to the mapping may be counted as well.
        assert!(
            found.abs_diff(made) <= made / 10 + 1024,
            "seed {seed}: {found} bytes where {made} were packed"
        );
        mapped_most = mapped_most.max(executor.mapped_bytes());
    }
    assert!(mapped_most > 10_000, "networks too small to tell: {mapped_most}");
}
