//! Attributes conversions to convolutions. A convolution whose tensor format differs from its
//! neighbors' makes the executor convert the values between them, which is part of the
//! convolution's cost.

use paretune_kernels::executor::StepInfo;
use paretune_kernels::operator::Operator;
use paretune_kernels::plan::layout::Layout;
use paretune_kernels::{Plan, ValueId};

/// Sums the seconds of the executed `steps` by the steps of `plan`. A conversion counts for the
/// convolution that needs it because its format is not NHWC, whether that convolution reads or
/// wrote the value; else for the step that it precedes. A conversion of the network's output counts
/// for the last convolution. `layouts` returns the formats that a step's convolution reads and
/// writes.
pub(super) fn attribute(
    plan: &Plan,
    steps: &[StepInfo],
    seconds: &[f64],
    layouts: &dyn Fn(usize) -> Option<[Layout; 2]>,
) -> Vec<f64> {
    let mut sums = vec![0.0; plan.steps.len()];
    for (info, seconds) in steps.iter().zip(seconds) {
        if let Some(index) = plan.steps.iter().position(|step| step.name == info.name) {
            sums[index] += seconds;
            continue;
        }
        // Conversions are named `STEP:CONVERSION`, and steps may have colons in their names.
        let Some((name, _)) = info.name.rsplit_once(':') else { continue };
        let Some(reader) = plan.steps.iter().position(|step| step.name == name) else {
            if let Some(last) = source(plan, plan.output) {
                sums[last] += seconds;
            }
            continue;
        };
        let differs = |layout: &Layout| *layout != Layout::Nhwc;
        let reads = |index: &usize| layouts(*index).is_some_and(|both| both.iter().any(differs));
        let wrote = |index: &usize| layouts(*index).is_some_and(|[_, output]| differs(&output));
        let sources = plan.steps[reader].inputs.iter().filter_map(|value| source(plan, *value));
        let owner = Some(reader)
            .filter(reads)
            .or_else(|| sources.into_iter().find(wrote))
            .unwrap_or(reader);
        sums[owner] += seconds;
    }
    sums
}

/// Returns the convolution that determines the format of `value`. Other operators keep the format
/// of their inputs.
fn source(plan: &Plan, mut value: ValueId) -> Option<usize> {
    loop {
        let index = plan.steps.iter().position(|step| step.output == value)?;
        if matches!(plan.steps[index].operator, Operator::Conv(_)) {
            return Some(index);
        }
        value = *plan.steps[index].inputs.first()?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversions_belong_to_the_planar_neighbor() {
        let plan = paretune_study::prepare::load_network(None).expect("the built-in network").plan;
        let convolutions: Vec<usize> = (0..plan.steps.len())
            .filter(|index| matches!(plan.steps[*index].operator, Operator::Conv(_)))
            .collect();
        let (first, second) = (convolutions[0], convolutions[1]);
        let info =
            |name: String| StepInfo { name, algorithm: String::new(), multiply_adds: 0, bytes: 0 };
        let steps = [
            info(plan.steps[first].name.clone()),
            info(format!("{}:layout", plan.steps[second].name)),
            info(plan.steps[second].name.clone()),
        ];
        let seconds = [1.0, 0.25, 2.0];
        let sums = |planar: usize| {
            let layout = |index| if index == planar { Layout::Nchw } else { Layout::Nhwc };
            let sums = attribute(&plan, &steps, &seconds, &|index| Some([layout(index); 2]));
            [sums[first], sums[second]]
        };
        assert_eq!(sums(first), [1.25, 2.0]);
        assert_eq!(sums(second), [1.0, 2.25]);
        assert_eq!(sums(usize::MAX), [1.0, 2.25]);
    }

    #[test]
    fn conversions_of_the_output_belong_to_the_last_convolution() {
        let plan = paretune_study::prepare::load_network(None).expect("the built-in network").plan;
        let last = plan.steps.iter().rposition(|step| matches!(step.operator, Operator::Conv(_)));
        let last = last.expect("a convolution");
        let name = "(output):planar".into();
        let steps = [StepInfo { name, algorithm: String::new(), multiply_adds: 0, bytes: 0 }];
        let sums = attribute(&plan, &steps, &[0.5], &|_| Some([Layout::Nhwc; 2]));
        assert_eq!(sums.iter().sum::<f64>(), 0.5);
        assert_eq!(sums[last], 0.5);
    }
}
