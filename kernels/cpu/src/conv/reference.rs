//! Reference implementation: textbook convolution in double precision.
//!
//! It is slow and simple. Every algorithm is tested against it.

use paretune_base::plan::operator::ConvProblem;

/// Returns the convolution `[batch, out_channels, height, width]`, before residual and activation.
///
/// `input` is `[batch, in_channels, height, width]`, `weights` are `[out_channels, in_channels /
/// groups, kernel_height, kernel_width]`, and `bias` has one element per output channel. Sums of
/// 8-bit integers are exact.
///
/// # Panics
/// Panics if a length does not fit the problem, or if the problem has no output.
#[must_use]
pub fn conv_f64(problem: &ConvProblem, input: &[f64], weights: &[f64], bias: &[f64]) -> Vec<f64> {
    let [height, width] = problem.input;
    let [out_height, out_width] =
        problem.window.output(problem.input, false).expect("the window fits into the input");
    let [kernel_height, kernel_width] = problem.window.kernel;
    let (group_in, group_out) = (problem.group_in(), problem.group_out());
    assert_eq!(
        input.len(),
        problem.batch * problem.in_channels * height * width,
        "length of the input"
    );
    assert_eq!(
        weights.len(),
        problem.out_channels * group_in * kernel_height * kernel_width,
        "weights"
    );
    assert_eq!(bias.len(), problem.out_channels, "biases");

    // Returns the input position under a tap, or `None` for padding.
    let position = |axis: usize, output: usize, tap: usize| {
        (output * problem.window.stride[axis] + tap * problem.window.dilation[axis])
            .checked_sub(problem.window.padding[axis])
            .filter(|&position| position < problem.input[axis])
    };
    let mut output =
        Vec::with_capacity(problem.batch * problem.out_channels * out_height * out_width);
    for image in 0..problem.batch {
        for channel in 0..problem.out_channels {
            let first_in = channel / group_out * group_in;
            for y in 0..out_height {
                for x in 0..out_width {
                    let mut sum = bias[channel];
                    for c in 0..group_in {
                        let plane = (image * problem.in_channels + first_in + c) * height;
                        for ky in 0..kernel_height {
                            let Some(row) = position(0, y, ky) else { continue };
                            for kx in 0..kernel_width {
                                let Some(column) = position(1, x, kx) else { continue };
                                let weight = ((channel * group_in + c) * kernel_height + ky)
                                    * kernel_width
                                    + kx;
                                sum += weights[weight] * input[(plane + row) * width + column];
                            }
                        }
                    }
                    output.push(sum);
                }
            }
        }
    }
    output
}
