//! Checks that the steps of a plan fit together. Removing channels touches every list of a plan; this
//! is the net under it.

use paretune_kernels::operator::Operator;
use paretune_kernels::{Plan, Step, ValueSpec};

use super::error::CompressError;
use super::layers::problem;

/// Checks order and shapes of all steps, and the lengths of all constants and weights.
///
/// # Errors
/// For the first step that does not fit.
pub fn check(plan: &Plan) -> Result<(), CompressError> {
    let mut known = vec![false; plan.values.len()];
    match known.get_mut(plan.input) {
        Some(input) => *input = true,
        None => return Err(CompressError::plan("input", "is no value of the plan")),
    }
    for step in &plan.steps {
        let wrong = |problem: String| CompressError::plan(&step.name, problem);
        for &value in &step.inputs {
            if !known.get(value).copied().unwrap_or(false) {
                return Err(wrong(format!("reads value {value} before it is written")));
            }
        }
        let expected = output_dims(plan, step)?;
        let Some(output) = plan.values.get(step.output) else {
            return Err(wrong(format!("writes value {}, which does not exist", step.output)));
        };
        let flat = matches!(step.operator, Operator::Conv(_)) && output.dims.len() == 1;
        let fits = match expected {
            Some(dims) if flat => dims == [output.dims[0], 1, 1],
            Some(dims) => dims == output.dims,
            None => plan.values[step.inputs[0]].len() == output.len(),
        };
        if !fits {
            return Err(wrong(format!("its output does not have the shape {:?}", output.dims)));
        }
        if std::mem::replace(&mut known[step.output], true) {
            return Err(wrong(format!("writes value {} again", step.output)));
        }
    }
    if known.get(plan.output).copied().unwrap_or(false) {
        Ok(())
    } else {
        Err(CompressError::plan("output", "is never written"))
    }
}

/// Shape of what a step writes; `None` for a reshape, which only keeps the number of elements.
fn output_dims(plan: &Plan, step: &Step) -> Result<Option<Vec<usize>>, CompressError> {
    let wrong = |problem: &str| CompressError::plan(&step.name, problem);
    let inputs: Vec<&[usize]> = step.inputs.iter().map(|&value| plan.values[value].dims.as_slice()).collect();
    let count =
        |wanted: usize| if inputs.len() == wanted { Ok(()) } else { Err(wrong("wrong number of inputs")) };
    let constant = |index: usize, len: usize| match plan.constants.get(index) {
        Some(constant) if constant.len() == len => Ok(()),
        _ => Err(wrong("a constant is missing or has the wrong length")),
    };
    let dims = match &step.operator {
        Operator::Conv(conv) => {
            let problem = problem(plan, step, conv)?;
            let [height, width] = problem.output()?;
            let residual = inputs.get(1).is_none_or(|&dims| dims == plan.values[step.output].dims);
            if inputs.len() > 2 || !residual {
                return Err(wrong("the residual does not have the shape of the output"));
            }
            vec![problem.out_channels, height, width]
        }
        Operator::MaxPool { window, ceil } | Operator::AveragePool { window, ceil, .. } => {
            count(1)?;
            let &[channels, height, width] = inputs[0] else {
                return Err(wrong("pools three dimensions only"));
            };
            let [height, width] =
                window.output([height, width], *ceil).ok_or_else(|| wrong("the window does not fit"))?;
            vec![channels, height, width]
        }
        Operator::GlobalAveragePool => {
            count(1)?;
            let &[channels, _, _] = inputs[0] else { return Err(wrong("pools three dimensions only")) };
            vec![channels, 1, 1]
        }
        Operator::ReduceMean { axes } => {
            count(1)?;
            let mut dims = inputs[0].to_vec();
            for &axis in axes {
                *dims.get_mut(axis).ok_or_else(|| wrong("an axis does not exist"))? = 1;
            }
            dims
        }
        Operator::Add(_) | Operator::Mul(_) => {
            count(2)?;
            broadcast(inputs[0], inputs[1]).ok_or_else(|| wrong("the inputs cannot be broadcast"))?
        }
        Operator::ScaleShift { scale, shift, .. } => {
            count(1)?;
            let channels = inputs[0].first().copied().unwrap_or(0);
            constant(*scale, channels)?;
            constant(*shift, channels)?;
            inputs[0].to_vec()
        }
        Operator::Activation(_) | Operator::Lrn { .. } => {
            count(1)?;
            inputs[0].to_vec()
        }
        Operator::Softmax { axis } => {
            count(1)?;
            if *axis >= inputs[0].len() {
                return Err(wrong("the axis does not exist"));
            }
            inputs[0].to_vec()
        }
        Operator::Constant { constant: index } => {
            count(0)?;
            constant(*index, plan.values.get(step.output).map_or(0, ValueSpec::len))?;
            plan.values[step.output].dims.clone()
        }
        Operator::Concat { axis } => {
            let mut dims = inputs.first().ok_or_else(|| wrong("joins nothing"))?.to_vec();
            let mut total = 0;
            for input in &inputs {
                let alike = input.len() == dims.len()
                    && (0..dims.len()).all(|other| other == *axis || dims[other] == input[other]);
                if *axis >= dims.len() || !alike {
                    return Err(wrong("the joined shapes differ"));
                }
                total += input[*axis];
            }
            dims[*axis] = total;
            dims
        }
        Operator::Pad { padding, .. } => {
            count(1)?;
            if padding.len() != inputs[0].len() {
                return Err(wrong("there is not one padding per axis"));
            }
            inputs[0].iter().zip(padding).map(|(dim, pad)| dim + pad[0] + pad[1]).collect()
        }
        Operator::Transpose { permutation } => {
            count(1)?;
            let mut seen = permutation.clone();
            seen.sort_unstable();
            if !seen.into_iter().eq(0..inputs[0].len()) {
                return Err(wrong("is no permutation of the axes"));
            }
            permutation.iter().map(|&axis| inputs[0][axis]).collect()
        }
        Operator::Reshape => {
            count(1)?;
            return Ok(None);
        }
    };
    Ok(Some(dims))
}

/// NumPy's broadcasting of two shapes.
pub(super) fn broadcast(left: &[usize], right: &[usize]) -> Option<Vec<usize>> {
    let rank = left.len().max(right.len());
    let dim = |dims: &[usize], axis: usize| (axis + dims.len()).checked_sub(rank).map_or(1, |at| dims[at]);
    (0..rank)
        .map(|axis| match (dim(left, axis), dim(right, axis)) {
            (a, b) if a == b || b == 1 => Some(a),
            (1, b) => Some(b),
            _ => None,
        })
        .collect()
}
