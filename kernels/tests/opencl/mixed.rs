//! Tests of plans partitioned between processor and device.

use super::*;
use paretune_base::plan::Switch;

/// Builds a network with residuals, a join, a constant and a reshaped value, in which some value
/// crosses every possible cut.
fn network(seed: u64) -> Network {
    let mut network = Network::new(seed, &[4, 9, 9]);
    let conv = |weights, kernel| {
        let (window, schedule) = (window(kernel, 1, kernel / 2), Schedule::default());
        Operator::Conv(Conv { window, groups: 1, weights, activation: Activation::Relu, schedule })
    };
    let first = network.weights([8, 4, 3, 3], true);
    let first = network.step(conv(first, 3), &[0], &[]);
    let second = network.weights([8, 8, 3, 3], true);
    let second = network.step(conv(second, 3), &[first], &[]);
    let third = network.weights([8, 8, 1, 1], false);
    let third = network.step(conv(third, 1), &[second, first], &[]);
    let sum = network.step(Operator::Add(Activation::HardSwish), &[third, first], &[]);
    let joined = network.step(Operator::Concat { axis: 0 }, &[sum, 0], &[]);
    let pooled =
        network.step(Operator::MaxPool { window: window(3, 3, 0), ceil: false }, &[joined], &[]);
    let flat = network.step(Operator::Reshape, &[pooled], &[12 * 9]);
    let constant = network.constant(12 * 9);
    let constant = network.step(Operator::Constant { constant }, &[], &[12 * 9]);
    let scaled = network.step(Operator::Mul(Activation::Identity), &[flat, constant], &[]);
    let dense = network.weights([5, 12 * 9, 1, 1], true);
    let dense = network.step(conv(dense, 1), &[scaled], &[]);
    let gated = network.step(Operator::Activation(Activation::Sigmoid), &[dense], &[]);
    network.step(Operator::Add(Activation::Identity), &[gated, dense], &[]);
    network
}

fn device() -> Backend {
    Backend::OpenCl { device: String::new() }
}

/// Cuts the plan at `steps`, with alternating backends.
fn cut(plan: &mut Plan, first: Backend, steps: &[usize]) {
    plan.run_on(first);
    for &step in steps {
        let backend = match plan.switches.last().map_or(&plan.backend, |switch| &switch.backend) {
            Backend::Cpu => device(),
            Backend::OpenCl { .. } => Backend::Cpu,
        };
        plan.switches.push(Switch { step, backend });
    }
}

#[test]
fn plans_that_change_sides_match_the_reference() {
    if !present() {
        return;
    }
    let mut network = network(21);
    let steps = network.plan.steps.len();
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed());
    for round in 0..40 {
        // First one cut at each step, then two random cuts, then any number.
        let mut cuts: Vec<usize> = match round {
            0..11 => vec![1 + round % (steps - 1)],
            11..26 => vec![rng.random_range(1..steps), rng.random_range(1..steps)],
            _ => (1..steps).filter(|_| rng.random_bool(0.4)).collect(),
        };
        cuts.sort_unstable();
        cuts.dedup();
        let first = if rng.random_bool(0.5) { Backend::Cpu } else { device() };
        cut(&mut network.plan, first, &cuts);
        let batch = 1 + round % 2;
        network.check(batch, false, EXACT);
        crossings_are_few(&network.plan, batch);
    }
}

/// Checks that the plan changes backends as often as it has cut points, and that no value crosses
/// twice in the same direction.
fn crossings_are_few(plan: &Plan, batch: usize) {
    let options = ExecutorOptions { batch, threads: 2, isa: Isa::detect() };
    let executor = Executor::new(plan, &options).unwrap();
    let transfers: Vec<&str> = executor
        .steps()
        .iter()
        .filter(|step| step.algorithm == "transfer")
        .map(|step| &step.name[..])
        .collect();
    let different: std::collections::HashSet<&&str> = transfers.iter().collect();
    assert_eq!(different.len(), transfers.len(), "{transfers:?}");
    // The backend of a step follows from the name of its algorithm.
    let side = |info: &paretune_base::execution::StepInfo| {
        let index = plan.steps.iter().position(|step| step.name == info.name)?;
        let device = *plan.backend_of(index) != Backend::Cpu;
        matches!(plan.steps[index].operator, Operator::Conv(_)).then(|| {
            assert_eq!(info.algorithm.starts_with("opencl"), device, "{}", info.name);
        })
    };
    let convolutions = executor.steps().iter().filter_map(side).count();
    assert_eq!(convolutions, 4);
    if !plan.switches.is_empty() {
        assert!(!transfers.is_empty());
        assert!(executor.device_bytes() > 0);
        let memory = executor.memory();
        // The processor's part may hold only pinned memory.
        assert!(memory.weights + memory.activations + memory.workspace >= executor.device_bytes());
    }
}

#[test]
fn switches_that_make_no_sense_are_refused() {
    let options = ExecutorOptions { batch: 1, threads: 1, isa: Isa::Portable };
    let refused = |switches: &[(usize, Backend)]| {
        let mut plan = network(1).plan;
        plan.backend = Backend::Cpu;
        let switch =
            |(step, backend): &(usize, Backend)| Switch { step: *step, backend: backend.clone() };
        plan.switches = switches.iter().map(switch).collect();
        Executor::new(&plan, &options).map(|_| ()).unwrap_err().to_string()
    };
    assert!(refused(&[(0, device())]).contains("switches at step 0"));
    assert!(refused(&[(12, device())]).contains("has 12"));
    assert!(refused(&[(3, Backend::Cpu)]).contains("from cpu to cpu"));
    assert!(refused(&[(3, device()), (3, Backend::Cpu)]).contains("after step 3"));
    let nowhere = Backend::OpenCl { device: "no such device".to_owned() };
    assert!(refused(&[(3, nowhere)]).contains("OpenCL device"));
}
