//! Tests of tensor-core kernels that read pixels from patches in local memory.

use super::*;

/// Tests tiles within a row, of whole rows, of whole images and of other sizes; strides, dilation,
/// one-sided padding, remainders of channels and outputs; and all operand formats.
#[test]
fn patches_match_the_reference() {
    if !present() {
        return;
    }
    let device = open("").unwrap();
    let wide = Window { kernel: [3, 2], stride: [2, 1], dilation: [1, 2], padding: [1, 0, 0, 2] };
    // Input, outputs, window, batch.
    let shapes = [
        ([9, 8, 16], 20, window(3, 1, 1), 1),
        ([8, 4, 4], 16, window(3, 1, 1), 3),
        ([13, 7, 7], 17, window(3, 1, 1), 2),
        ([5, 9, 6], 33, wide, 2),
        ([19, 8, 8], 16, window(3, 2, 1), 1),
        ([24, 5, 8], 40, Window::POINT, 2),
    ];
    let names = ["opencl_tensor_core_fp32", "opencl_tensor_core_fp16", "opencl_tensor_core_tf32"];
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed());
    for (round, (dims, outputs, window, batch)) in shapes.into_iter().enumerate() {
        for patches in [1, 2] {
            let algorithm = conv::algorithm(names[(round + patches) % 3]).unwrap();
            let problem = ConvProblem {
                batch,
                in_channels: dims[0],
                out_channels: outputs,
                groups: 1,
                input: [dims[1], dims[2]],
                window,
            };
            let mut network = Network::new(round as u64, &dims);
            let weights =
                network.weights([outputs, dims[0], window.kernel[0], window.kernel[1]], true);
            let activation = Activation::Relu;
            let stored = network.plan.weights[weights].clone();
            let request = request(problem, &stored, activation, &device.limits);
            let schedule = loop {
                let mut schedule = random_schedule(algorithm, &request, &mut rng);
                schedule.tunables.insert("patch".to_owned(), TunableValue::Size(patches as u64));
                if algorithm.prepare(&conv::Request { schedule: &schedule, ..request }).is_ok() {
                    break schedule;
                }
            };
            let conv = Conv { window, groups: 1, weights, activation, schedule };
            network.step(Operator::Conv(conv), &[0], &[]);
            network.check(
                batch,
                false,
                if algorithm.numerics() == Numerics::Reduced { REDUCED } else { EXACT },
            );
        }
    }
}
