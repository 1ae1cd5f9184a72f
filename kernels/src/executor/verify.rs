//! Compares convolutions on a device with the processor, layer by layer: a time only counts if the
//! results are correct.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use crate::executor::{Executor, ExecutorOptions};
use crate::registry::{self, Numerics};
use paretune_base::error::KernelError;
use paretune_base::plan::activation::Activation;
use paretune_base::plan::operator::{Conv, Operator};
use paretune_base::plan::schedule::Schedule;
use paretune_base::plan::shape::conv_problem;
use paretune_base::plan::{Backend, Plan, Step, ValueSpec};
use paretune_simd::Isa;

/// Tolerances as fractions of the largest absolute value of the result. Winograd's transforms round
/// more, and integer kernels may round an input that lies between two levels either way. Operands
/// with 10 bits of mantissa (tf32) have errors of up to 5e-4 each, and sums of their products of
/// about that size.
const TOLERANCE: f32 = 2e-4;
const TOLERANCE_REDUCED: f32 = 3e-3;
const TOLERANCE_ROUGH: f32 = 2e-2;

/// Hashes of layers that this process has verified.
static RIGHT: Mutex<Option<HashSet<blake3::Hash>>> = Mutex::new(None);

/// A layer as run by the processor, the number of images, and the result.
type Answer = (Plan, usize, Arc<[f32]>);

/// Results of the processor for recently compared layers, because a search compares many schedules
/// of a few layers.
static LATELY: Mutex<VecDeque<Answer>> = Mutex::new(VecDeque::new());

/// Maximum number of elements in the remembered results.
const REMEMBERED: usize = 1 << 24;

/// Compares every convolution that a plan runs on an OpenCL device with the processor, on
/// pseudorandom inputs for `batch` images. Comparisons that this process has made before (equal
/// problem, schedule and device) are skipped, and so are steps of the processor.
///
/// # Errors
/// Fails if a kernel cannot be built or run, or computes wrong results; the message names the step.
pub fn verify(plan: &Plan, batch: usize) -> Result<(), KernelError> {
    for (index, step) in plan.steps.iter().enumerate() {
        let Backend::OpenCl { device } = plan.backend_of(index) else { continue };
        let Operator::Conv(conv) = &step.operator else { continue };
        let Some(problem) = conv_problem(plan, step, batch) else { continue };
        let format = plan.weights[conv.weights].format();
        let grid = plan.values[step.inputs[0]].quantization;
        let (activation, residual, schedule) = (conv.activation, step.inputs.len(), &conv.schedule);
        let text = format!(
            "{device}\n{problem:?}\n{format:?}\n{grid:?}\n{activation:?}\n{residual}\n{schedule:?}"
        );
        let key = blake3::hash(text.as_bytes());
        let known = |right: &Option<HashSet<blake3::Hash>>| {
            right.as_ref().is_some_and(|set| set.contains(&key))
        };
        if known(&RIGHT.lock().unwrap_or_else(PoisonError::into_inner)) {
            continue;
        }
        let Some(mut single) = alone(plan, step) else { continue };
        // Saturating activations would hide errors.
        if let Some(Operator::Conv(conv)) = single.steps.last_mut().map(|step| &mut step.operator)
            && !matches!(conv.activation, Activation::Relu | Activation::LeakyRelu { .. })
        {
            conv.activation = Activation::Identity;
        }
        let input = numbers(single.values[single.input].len() * batch, 1);
        let run = |single: &Plan| -> Result<Vec<f32>, KernelError> {
            let isa = Isa::detect();
            let mut executor = Executor::new(single, &ExecutorOptions { batch, threads: 1, isa })?;
            let mut output = vec![0.0; single.values[single.output].len() * batch];
            executor.run(&input, &mut output)?;
            Ok(output)
        };
        let mut host = single.clone();
        host.backend = Backend::Cpu;
        if let Some(Operator::Conv(conv)) = host.steps.last_mut().map(|step| &mut step.operator) {
            conv.schedule = Schedule::default();
        }
        let expected = match lately(&host, batch) {
            Some(expected) => expected,
            None => {
                let expected: Arc<[f32]> = run(&host)?.into();
                remember(host, batch, Arc::clone(&expected));
                expected
            }
        };
        let found = run(&single)?;
        let tolerance = match registry::numerics(&conv.schedule.algorithm) {
            _ if format.numbers.is_integer() => TOLERANCE_ROUGH,
            Numerics::RoundsDifferently => TOLERANCE_ROUGH,
            Numerics::Reduced => TOLERANCE_REDUCED,
            Numerics::Exact => TOLERANCE,
        };
        let worst = difference(&expected, &found);
        if worst.is_nan() || worst > tolerance {
            let Schedule { algorithm, tunables } = &conv.schedule;
            return Err(KernelError::plan(
                &step.name,
                format!(
                    "wrong numbers from `{algorithm}` {tunables:?}: off by {worst:.1e} of the \
                     largest"
                ),
            ));
        }
        RIGHT.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default().insert(key);
    }
    Ok(())
}

fn lately(plan: &Plan, batch: usize) -> Option<Arc<[f32]>> {
    let lately = LATELY.lock().unwrap_or_else(PoisonError::into_inner);
    let found = lately.iter().find(|(known, size, _)| *size == batch && known == plan);
    found.map(|(.., expected)| Arc::clone(expected))
}

fn remember(plan: Plan, batch: usize, expected: Arc<[f32]>) {
    let mut lately = LATELY.lock().unwrap_or_else(PoisonError::into_inner);
    lately.push_back((plan, batch, expected));
    while lately.len() > 1
        && lately.iter().map(|(.., numbers)| numbers.len()).sum::<usize>() > REMEMBERED
    {
        lately.pop_front();
    }
}

/// Extracts convolution `step` of `plan` as a plan of its own, on the backend of the step; a
/// residual becomes pseudorandom constants. Returns `None` for other steps.
#[must_use]
pub fn alone(plan: &Plan, step: &Step) -> Option<Plan> {
    let Operator::Conv(conv) = &step.operator else { return None };
    let index = plan.steps.iter().position(|other| other.output == step.output)?;
    let value = |id: usize| plan.values[id].clone();
    let mut single = Plan {
        name: step.name.clone(),
        backend: plan.backend_of(index).clone(),
        values: vec![
            value(*step.inputs.first()?),
            ValueSpec { quantization: None, ..value(step.output) },
        ],
        input: 0,
        output: 1,
        weights: vec![plan.weights[conv.weights].clone()],
        threads: 1,
        ..Plan::default()
    };
    let mut inputs = vec![0];
    if let Some(&residual) = step.inputs.get(1) {
        single.constants.push(numbers(plan.values[residual].len(), 2).into());
        single.values.push(ValueSpec { quantization: None, ..value(residual) });
        single.steps.push(Step {
            name: "residual".to_owned(),
            operator: Operator::Constant { constant: 0 },
            inputs: Vec::new(),
            output: 2,
        });
        inputs.push(2);
    }
    single.steps.push(Step {
        name: step.name.clone(),
        operator: Operator::Conv(Conv { weights: 0, ..conv.clone() }),
        inputs,
        output: 1,
    });
    Some(single)
}

/// Returns pseudorandom numbers from -1 to 1 (linear congruential generator with Knuth's MMIX
/// constants).
fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        #[expect(clippy::cast_precision_loss, reason = "24 bits fit")]
        let unit = (state >> 40) as f32 / (1_u64 << 24) as f32;
        2.0 * unit - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// Returns the largest difference as a fraction of the largest expected absolute value, or NaN if a
/// difference is NaN.
fn difference(expected: &[f32], found: &[f32]) -> f32 {
    let largest = expected.iter().fold(f32::MIN_POSITIVE, |most, x| most.max(x.abs()));
    expected.iter().zip(found).fold(0.0, |worst, (expected, found)| {
        let difference = (expected - found).abs() / largest;
        if difference.is_nan() || difference > worst { difference } else { worst }
    })
}
