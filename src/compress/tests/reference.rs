//! Oracle of the tests: a slow interpreter of plans, one image at a time, independent of executor
//! and kernels.

use paretune_kernels::Plan;
use paretune_kernels::reference::step_f64;

use crate::Calibration;
use crate::calibration::unfuse;

/// Computes all values of the plan for one image. Values with a grid are rounded to it.
pub fn run(plan: &Plan, image: &[f32]) -> Vec<Vec<f64>> {
    let mut values = vec![Vec::new(); plan.values.len()];
    values[plan.input] = image.iter().map(|&x| f64::from(x)).collect();
    round_to_grid(plan, plan.input, &mut values[plan.input]);
    for step in &plan.steps {
        let inputs: Vec<&[f64]> =
            step.inputs.iter().map(|&value| values[value].as_slice()).collect();
        let mut output = step_f64(plan, step, 1, &inputs);
        round_to_grid(plan, step.output, &mut output);
        values[step.output] = output;
    }
    values
}

/// Computes the network's output for one image.
pub fn output(plan: &Plan, image: &[f32]) -> Vec<f64> {
    run(plan, image).swap_remove(plan.output)
}

/// Computes the result of [`Calibration::collect`] with the slow interpreter.
pub fn calibrate(plan: &Plan, images: &[Vec<f32>]) -> Calibration {
    let (unfused, conv_results) = unfuse(plan);
    let mut calibration = Calibration::empty(plan);
    for image in images {
        for (value, data) in run(&unfused, image).iter().enumerate() {
            let data: Vec<f32> = data.iter().map(|&x| x as f32).collect();
            calibration.observe(&unfused, &conv_results, 1, value, &data);
        }
        calibration.images += 1;
    }
    calibration
}

fn round_to_grid(plan: &Plan, value: usize, data: &mut [f64]) {
    if let Some(grid) = plan.values[value].quantization {
        let (scale, zero) = (f64::from(grid.scale), f64::from(grid.zero_point));
        data.iter_mut()
            .for_each(|x| *x = (((*x / scale).round() + zero).clamp(0.0, 255.0) - zero) * scale);
    }
}
