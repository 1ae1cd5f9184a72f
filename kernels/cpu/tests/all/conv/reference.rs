//! The double-precision reference against an example computed by hand.

use paretune_base::plan::operator::{ConvProblem, Window};
use paretune_cpu::conv::reference::conv_f64;

#[test]
fn a_hand_computed_example() {
    // One 2x2 image, a 2x2 window that starts outside at the top left.
    let window = Window { kernel: [2, 2], stride: [1, 1], dilation: [1, 1], padding: [1, 1, 0, 0] };
    let problem =
        ConvProblem { batch: 1, in_channels: 1, out_channels: 1, groups: 1, input: [2, 2], window };
    let output = conv_f64(&problem, &[1.0, 2.0, 3.0, 4.0], &[1.0, 10.0, 100.0, 1000.0], &[0.5]);
    assert_eq!(output, [1000.5, 2100.5, 3010.5, 4321.5]);
}
