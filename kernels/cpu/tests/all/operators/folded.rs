//! Sums and products of quantized values against real numbers.

use paretune_base::plan::Quantization;
use paretune_base::plan::activation::Activation;
use paretune_base::plan::layout::{Element, Layout};
use paretune_base::threads::{ThreadPool, Worker};
use paretune_cpu::operators::binary::Arithmetic;
use paretune_cpu::operators::pointwise_pair::{equal, per_channel};
use paretune_cpu::operators::{Context, Io, OperatorKernel};
use paretune_simd::Isa;

fn run(kernel: &dyn OperatorKernel, inputs: &[*const u8], len: usize, threads: usize) -> Vec<u8> {
    let mut output = vec![0xA5_u8; len];
    let addresses: Vec<usize> = inputs.iter().map(|&input| input as usize).collect();
    let to = output.as_mut_ptr() as usize;
    let work = |worker: &Worker<'_>| {
        let inputs: Vec<*const u8> =
            addresses.iter().map(|&address| address as *const u8).collect();
        // SAFETY: inputs and output have the sizes that the kernel was made for, and every
        // worker makes this call.
        unsafe { kernel.run(&Io { inputs: &inputs, output: to as *mut u8 }, worker) };
    };
    ThreadPool::new(threads).unwrap().run(work).unwrap();
    output
}

/// Asserts that `got` is `exact` quantized by `grid` and rounded to nearest, up to the error of
/// single precision.
fn check(got: u8, exact: f64, grid: Quantization) {
    let place = (exact / f64::from(grid.scale) + f64::from(grid.zero_point)).clamp(0.0, 255.0);
    assert!((f64::from(got) - place).abs() < 0.501, "{got} for {place}");
}

fn real(byte: u8, grid: Quantization) -> f64 {
    (f64::from(byte) - f64::from(grid.zero_point)) * f64::from(grid.scale)
}

fn active(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Relu => x.max(0.0),
        Activation::Clip { low, high } => x.clamp(f64::from(low), f64::from(high)),
        _ => x,
    }
}

const GRIDS: [Quantization; 3] = [
    Quantization { scale: 0.031, zero_point: 117 },
    Quantization { scale: 0.007, zero_point: 0 },
    Quantization { scale: 0.02, zero_point: 64 },
];
const ACTIVATIONS: [Activation; 3] =
    [Activation::Identity, Activation::Relu, Activation::Clip { low: -0.4, high: 1.1 }];

/// Returns pseudo-random bytes.
fn bytes(count: usize, seed: usize) -> Vec<u8> {
    (0..count).map(|i| ((i + seed).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as u8).collect()
}

#[test]
fn sums_are_those_of_the_real_numbers() {
    for (round, len) in [1, 15, 64, 100, 1024, 2049, 5000].into_iter().enumerate() {
        let (a, b) = (bytes(len, 1), bytes(len, 7));
        let activation = ACTIVATIONS[round % 3];
        for isa in Isa::available() {
            let context = Context { batch: 1, isa };
            let elements = GRIDS.map(Element::U8);
            let kernel = equal(context, Arithmetic::Add, len, elements, activation);
            let got = run(&*kernel, &[a.as_ptr(), b.as_ptr()], len, 1 + round % 2);
            for i in 0..len {
                let exact = active(activation, real(a[i], GRIDS[0]) + real(b[i], GRIDS[1]));
                check(got[i], exact, GRIDS[2]);
            }
        }
    }
}

#[test]
fn gates_are_those_of_the_real_numbers_in_every_layout() {
    let sizes =
        [[2, 16, 49], [1, 24, 100], [3, 5, 7], [1, 96, 130], [2, 65, 3], [1, 1, 300], [1, 64, 256]];
    for (round, [batch, channels, pixels]) in sizes.into_iter().enumerate() {
        let len = batch * channels * pixels;
        let a = bytes(len, round);
        let b: Vec<f32> =
            bytes(batch * channels, 3).iter().map(|&x| f32::from(x) / 200.0 - 0.2).collect();
        let activation = ACTIVATIONS[round % 3];
        let block = [16, 8, 4, 1].into_iter().find(|block| channels % block == 0).unwrap_or(1);
        for layout in [Layout::Nhwc, Layout::Nchw, Layout::Nchwc(block)] {
            for isa in Isa::available() {
                for arithmetic in [Arithmetic::Mul, Arithmetic::Add] {
                    let (context, size) = (Context { batch, isa }, [channels, pixels]);
                    let elements = [GRIDS[0], GRIDS[2]].map(Element::U8);
                    let kernel =
                        per_channel(context, arithmetic, size, layout, elements, activation);
                    let inputs = [a.as_ptr(), b.as_ptr().cast()];
                    let got = run(&*kernel, &inputs, len, 1 + round % 3);
                    for image in 0..batch {
                        for channel in 0..channels {
                            for pixel in 0..pixels {
                                let at =
                                    image * channels * pixels + layout.place(size, channel, pixel);
                                let (x, y) = (
                                    real(a[at], GRIDS[0]),
                                    f64::from(b[image * channels + channel]),
                                );
                                let exact =
                                    if arithmetic == Arithmetic::Mul { x * y } else { x + y };
                                check(got[at], active(activation, exact), GRIDS[2]);
                            }
                        }
                    }
                }
            }
        }
    }
}
