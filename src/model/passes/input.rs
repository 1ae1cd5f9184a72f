//! Gives networks that take images with channels last the input of all others.

use paretune_kernels::Plan;
use paretune_kernels::operator::Operator;

/// Removes the transpositions at the beginning of a network whose input is
/// `[height, width, channels]`, if nothing else reads the input. Returns whether it did; the plan
/// then takes `[channels, height, width]`.
pub fn turn_input(plan: &mut Plan) -> bool {
    let input = plan.input;
    let turns = |operator: &Operator| match operator {
        Operator::Transpose { permutation } => permutation[..] == [2, 0, 1],
        _ => false,
    };
    let mut readers = plan.steps.iter().filter(|step| step.inputs.contains(&input)).peekable();
    if readers.peek().is_none()
        || plan.output == input
        || !readers.all(|step| turns(&step.operator))
    {
        return false;
    }
    let outputs: Vec<usize> = plan
        .steps
        .iter()
        .filter(|step| step.inputs.contains(&input))
        .map(|step| step.output)
        .collect();
    let first = outputs[0];
    plan.steps.retain(|step| !step.inputs.contains(&input));
    for value in plan.steps.iter_mut().flat_map(|step| &mut step.inputs) {
        if outputs.contains(value) {
            *value = first;
        }
    }
    if outputs.contains(&plan.output) {
        plan.output = first;
    }
    plan.input = first;
    true
}

#[cfg(test)]
mod tests {
    use paretune_kernels::{Activation, Step, ValueSpec};

    use super::*;

    fn plan(permutation: Vec<usize>) -> Plan {
        let value = |dims: &[usize]| ValueSpec { dims: dims.to_vec(), quantization: None };
        let step = |operator, input, output| Step {
            name: format!("step{output}"),
            operator,
            inputs: vec![input],
            output,
        };
        let turned: Vec<usize> = permutation.iter().map(|&axis| [2, 3, 4][axis]).collect();
        Plan {
            values: vec![value(&[2, 3, 4]), value(&turned), value(&turned)],
            input: 0,
            output: 2,
            steps: vec![
                step(Operator::Transpose { permutation }, 0, 1),
                step(Operator::Activation(Activation::Relu), 1, 2),
            ],
            threads: 1,
            ..Plan::default()
        }
    }

    #[test]
    fn leading_transpositions_to_channels_first_are_the_input() {
        let mut turned = plan(vec![2, 0, 1]);
        assert!(turn_input(&mut turned));
        assert_eq!((turned.input, turned.steps.len()), (1, 1));
        assert_eq!(turned.values[turned.input].dims, [4, 2, 3]);
        let mut other = plan(vec![1, 0, 2]);
        assert!(!turn_input(&mut other));
        assert_eq!(other, plan(vec![1, 0, 2]));
    }
}
