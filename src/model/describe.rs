//! Human-readable table of a plan, and its totals.

use std::fmt::Write;

use paretune_kernels::operator::{ConvProblem, Operator};
use paretune_kernels::plan::tensor::TensorOperator;
use paretune_kernels::{Plan, Step};

/// Totals of a network over all its steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Number of weights, biases and constants.
    pub parameters: u64,
    /// Multiply-adds of convolutions and dense layers for one image.
    pub multiply_adds: u64,
    /// Number of convolutions and dense layers.
    pub layers: usize,
}

/// Returns the multiply-adds of one step for one image, which are zero for all but convolutions and
/// dense layers.
#[must_use]
pub fn step_multiply_adds(plan: &Plan, step: &Step) -> u64 {
    let Operator::Conv(conv) = &step.operator else { return 0 };
    let Some(input) = step.inputs.first().and_then(|&id| plan.values.get(id)) else { return 0 };
    let Some(weights) = plan.weights.get(conv.weights) else { return 0 };
    let spatial = match input.dims[..] {
        [_, height, width] => [height, width],
        _ => [1, 1],
    };
    let problem = ConvProblem {
        batch: 1,
        in_channels: weights.dims[1] * conv.groups,
        out_channels: weights.dims[0],
        groups: conv.groups,
        input: spatial,
        window: conv.window,
    };
    problem.multiply_adds()
}

/// Returns the number of parameters that a step owns.
fn step_parameters(plan: &Plan, step: &Step) -> u64 {
    let constant = |index: usize| plan.constants.get(index).map_or(0, |values| values.len() as u64);
    match step.operator {
        Operator::Conv(ref conv) => plan.weights.get(conv.weights).map_or(0, |weights| {
            weights.values.len() as u64 + weights.bias.as_ref().map_or(0, |bias| bias.len() as u64)
        }),
        Operator::ScaleShift { scale, shift, .. } => constant(scale) + constant(shift),
        Operator::Constant { constant: index } => constant(index),
        _ => 0,
    }
}

/// Sums the parameters, multiply-adds and layers of a plan.
#[must_use]
pub fn totals(plan: &Plan) -> Totals {
    plan.steps.iter().fold(Totals::default(), |totals, step| Totals {
        parameters: totals.parameters + step_parameters(plan, step),
        multiply_adds: totals.multiply_adds + step_multiply_adds(plan, step),
        layers: totals.layers + usize::from(matches!(step.operator, Operator::Conv(_))),
    })
}

/// Formats the steps of a plan as an aligned table: name, operator, inputs, output shape,
/// parameters, multiply-adds for one image. The last line holds the totals.
#[must_use]
pub fn describe(plan: &Plan) -> String {
    let source = |id: usize| {
        if id == plan.input {
            return "(input)";
        }
        plan.steps.iter().find(|step| step.output == id).map_or("?", |step| step.name.as_str())
    };
    let mut rows = vec![
        ["step", "operator", "inputs", "output", "parameters", "multiply-adds"].map(String::from),
    ];
    let count = |number: u64| if number == 0 { String::new() } else { grouped(number) };
    for step in &plan.steps {
        let inputs: Vec<_> = step.inputs.iter().map(|&id| source(id)).collect();
        let shape =
            plan.values.get(step.output).map_or_else(String::new, |value| times(&value.dims));
        rows.push([
            step.name.clone(),
            operator(plan, step),
            inputs.join(" "),
            shape,
            count(step_parameters(plan, step)),
            count(step_multiply_adds(plan, step)),
        ]);
    }
    let totals = totals(plan);
    let layers = format!("{} layers", totals.layers);
    rows.push([
        "total".into(),
        layers,
        String::new(),
        String::new(),
        grouped(totals.parameters),
        grouped(totals.multiply_adds),
    ]);
    table(&rows)
}

/// Aligns the cells of a table. The last two columns are numbers and flush right.
fn table(rows: &[[String; 6]]) -> String {
    let mut widths = [0; 6];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
            // Writing to a string cannot fail.
            let _ = if column < 4 {
                write!(line, "{cell:<width$}  ")
            } else {
                write!(line, "{cell:>width$}  ")
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn times(dims: &[usize]) -> String {
    dims.iter().map(ToString::to_string).collect::<Vec<_>>().join("x")
}

/// Formats a number with commas between thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Formats the operator of a step with its main attributes.
fn operator(plan: &Plan, step: &Step) -> String {
    use paretune_kernels::Activation;
    use paretune_kernels::operator::Window;
    let window = |window: &Window| {
        let mut text = times(&window.kernel);
        if window.stride != [1, 1] {
            let _ = write!(text, " /{}", times(&window.stride));
        }
        if window.dilation != [1, 1] {
            let _ = write!(text, " dilation {}", times(&window.dilation));
        }
        text
    };
    let fused = |activation: &Activation| match activation {
        Activation::Identity => String::new(),
        Activation::Relu => " + relu".into(),
        Activation::Clip { low: f32::MIN, high } => format!(" + at most {high}"),
        Activation::Clip { low, high: f32::MAX } => format!(" + at least {low}"),
        Activation::Clip { low, high } => format!(" + clip {low}..{high}"),
        Activation::LeakyRelu { slope } => format!(" + leaky relu {slope}"),
        Activation::Sigmoid => " + sigmoid".into(),
        Activation::HardSigmoid { .. } => " + hard sigmoid".into(),
        Activation::HardSwish => " + hard swish".into(),
    };
    match &step.operator {
        Operator::Conv(conv)
            if plan.values.get(step.output).is_some_and(|value| value.dims.len() == 1) =>
        {
            format!("dense{}", fused(&conv.activation))
        }
        Operator::Conv(conv) => {
            let channels = plan
                .weights
                .get(conv.weights)
                .map_or([0, 0], |weights| [weights.dims[0], weights.dims[1]]);
            let kind = match conv.groups {
                1 => String::new(),
                groups if groups == channels[0] && channels[1] == 1 => " depthwise".into(),
                groups => format!(" {groups} groups"),
            };
            format!("conv {}{kind}{}", window(&conv.window), fused(&conv.activation))
        }
        Operator::MaxPool { window: w, .. } => format!("max pool {}", window(w)),
        Operator::AveragePool { window: w, .. } => format!("average pool {}", window(w)),
        Operator::GlobalAveragePool => "global average pool".into(),
        Operator::ReduceMean { axes } => format!("mean over {axes:?}"),
        Operator::Add(activation) => format!("add{}", fused(activation)),
        Operator::Mul(activation) => format!("mul{}", fused(activation)),
        Operator::Activation(activation) => fused(activation).trim_start_matches(" + ").to_string(),
        Operator::ScaleShift { activation, .. } => format!("scale and shift{}", fused(activation)),
        Operator::Constant { .. } => "constant".into(),
        Operator::Concat { axis } => format!("concat axis {axis}"),
        Operator::Pad { .. } => "pad".into(),
        Operator::Transpose { permutation } => format!("transpose {permutation:?}"),
        Operator::Reshape => "reshape".into(),
        Operator::Softmax { axis } => format!("softmax axis {axis}"),
        Operator::Lrn { size, .. } => format!("local response normalization {size}"),
        Operator::Tensor(operator) => tensor(operator),
    }
}

/// Describes a general operator in a few words.
fn tensor(operator: &TensorOperator) -> String {
    match operator {
        TensorOperator::Unary(function) => {
            let text = format!("{function:?}").to_lowercase();
            text.split_whitespace().next().unwrap_or_default().to_owned()
        }
        TensorOperator::Binary(function) => format!("{function:?}").to_lowercase(),
        TensorOperator::Reduce { kind, axes } => {
            format!("{} over {axes:?}", format!("{kind:?}").to_lowercase())
        }
        TensorOperator::Select { axis, picks } => format!("select {} on axis {axis}", picks.len()),
        TensorOperator::Resample { axis, .. } => format!("resample axis {axis}"),
        TensorOperator::Normalize { axes: [first, last], .. } => {
            format!("normalize axes {first} to {last}")
        }
        TensorOperator::Rank { axis, count, .. } => format!("best {count} on axis {axis}"),
        operator => operator.name().replace('_', " "),
    }
}
