//! Validates plans before anything is built from them. A plan may come from a damaged or hostile
//! file: nothing is trusted, every index and every size is checked, and every error names the step
//! that it concerns.

use paretune_base::error::KernelError;
use paretune_base::plan::operator::Operator;
use paretune_base::plan::shape;
use paretune_base::plan::weights::{WeightValues, Weights};
use paretune_base::plan::{Plan, Quantization, Step};

/// Name in errors about the plan as a whole, in place of a step's name.
const WHOLE: &str = "(plan)";

/// Checks everything that running `plan` on `batch` images relies on.
///
/// # Errors
/// Names the problem and the step that has it.
pub fn validate(plan: &Plan, batch: usize) -> Result<(), KernelError> {
    for (index, weights) in plan.weights.iter().enumerate() {
        check_weights(weights)
            .map_err(|problem| KernelError::plan(WHOLE, format!("weights {index}: {problem}")))?;
    }
    validate_structure(plan, batch)
}

/// Checks a plan like [`validate`], except for the values of its weights, which may be missing.
///
/// # Errors
/// Names the problem and the step that has it.
pub(crate) fn validate_structure(plan: &Plan, batch: usize) -> Result<(), KernelError> {
    if batch == 0 {
        return Err(KernelError::plan(WHOLE, "a batch of no images"));
    }
    let known = |step: &str, id: usize| {
        plan.values.get(id).ok_or_else(|| {
            KernelError::plan(
                step,
                format!("refers to value {id}, but the plan has {}", plan.values.len()),
            )
        })
    };
    for (id, value) in plan.values.iter().enumerate() {
        shape::checked_len(&value.dims, batch)
            .and_then(|_| value.quantization.map_or(Ok(()), check_grid))
            .map_err(|problem| KernelError::plan(WHOLE, format!("value {id}: {problem}")))?;
    }
    known(WHOLE, plan.input)?;
    known(WHOLE, plan.output)?;
    check_switches(plan).map_err(|problem| KernelError::plan(WHOLE, problem))?;
    for (index, weights) in plan.weights.iter().enumerate() {
        shape::checked_len(&weights.dims, 1)
            .map_err(|problem| KernelError::plan(WHOLE, format!("weights {index}: {problem}")))?;
    }
    let mut written = vec![false; plan.values.len()];
    written[plan.input] = true;
    for step in &plan.steps {
        for &id in &step.inputs {
            known(&step.name, id)?;
            if !written[id] {
                return Err(KernelError::plan(
                    &step.name,
                    format!("reads value {id} before it is written"),
                ));
            }
        }
        known(&step.name, step.output)?;
        if std::mem::replace(&mut written[step.output], true) {
            return Err(KernelError::plan(
                &step.name,
                format!("writes value {} again", step.output),
            ));
        }
        check_step(plan, step).map_err(|problem| KernelError::plan(&step.name, problem))?;
    }
    if !written[plan.output] {
        return Err(KernelError::plan(
            WHOLE,
            format!("the output, value {}, is never written", plan.output),
        ));
    }
    Ok(())
}

/// Checks one step whose values are known to exist.
fn check_step(plan: &Plan, step: &Step) -> Result<(), String> {
    let inputs: Vec<&[usize]> = step.inputs.iter().map(|&id| &plan.values[id].dims[..]).collect();
    let declared = &plan.values[step.output].dims;
    let dims = shape::output(&step.operator, &inputs, declared, &plan.weights, &plan.constants)?;
    if dims != *declared {
        return Err(format!("makes {dims:?}, but value {} is stated as {declared:?}", step.output));
    }
    if let Operator::Conv(conv) = &step.operator
        && matches!(plan.weights[conv.weights].values, WeightValues::Integer(_))
        && plan.values[step.inputs[0]].quantization.is_none()
    {
        return Err(format!("has integer weights, but value {} has no 8-bit grid", step.inputs[0]));
    }
    Ok(())
}

/// Checks that every cut point is at an existing step and changes the backend.
fn check_switches(plan: &Plan) -> Result<(), String> {
    let (mut step, mut backend) = (0, &plan.backend);
    for switch in &plan.switches {
        if switch.step >= plan.steps.len() {
            return Err(format!("switches at step {}, but has {}", switch.step, plan.steps.len()));
        }
        if switch.step <= step {
            return Err(format!("switches at step {} after step {step}", switch.step));
        }
        if switch.backend == *backend {
            return Err(format!("switches at step {} from {backend} to {backend}", switch.step));
        }
        (step, backend) = (switch.step, &switch.backend);
    }
    Ok(())
}

fn check_grid(grid: Quantization) -> Result<(), String> {
    // A subnormal scale has no finite reciprocal.
    if grid.scale.is_normal() && grid.scale > 0.0 {
        Ok(())
    } else {
        Err(format!("its grid has a scale of {}", grid.scale))
    }
}

fn check_weights(weights: &Weights) -> Result<(), String> {
    let expected = shape::checked_len(&weights.dims, 1)?;
    let len = weights.values.len();
    if len != expected {
        return Err(format!("{len} numbers for a shape of {:?}", weights.dims));
    }
    let out = weights.dims[0];
    if let Some(bias) = &weights.bias
        && bias.len() != out
    {
        return Err(format!("{} biases for {out} outputs", bias.len()));
    }
    let numbers = weights.format().numbers;
    if let (Some(half), Some(values)) = (numbers.half(), weights.values.reals())
        && let Some(value) = values.iter().find(|value| !numbers.holds(**value))
    {
        return Err(format!("a weight of {value}, which is no {half}"));
    }
    if let WeightValues::Integer(dense) = &weights.values {
        if dense.scales.len() != out {
            return Err(format!("{} scales for {out} outputs", dense.scales.len()));
        }
        if let Some(scale) = dense.scales.iter().find(|scale| !scale.is_normal()) {
            return Err(format!("a scale of {scale}"));
        }
        let (low, high) = dense.grid.levels();
        if let Some(value) = dense.values.iter().find(|value| !(low..=high).contains(value)) {
            return Err(format!("a weight of {value} on a grid from {low} to {high}"));
        }
    }
    Ok(())
}
