//! Global means against double precision.

use paretune_base::plan::Quantization;
use paretune_base::plan::layout::{Element, Layout};
use paretune_base::threads::{ThreadPool, Worker};
use paretune_cpu::operators::mean::global;
use paretune_cpu::operators::{Context, Io};
use paretune_simd::Isa;

/// Returns the means of `[image][channel][pixel]` values in `layout`, with elements of type
/// `element`, computed by `threads` threads.
fn means<T: Sync>(
    [batch, channels, pixels]: [usize; 3],
    input: &[T],
    layout: Layout,
    element: Element,
    isa: Isa,
    threads: usize,
) -> Vec<f32> {
    let kernel = global(Context { batch, isa }, channels, pixels, layout, element);
    let mut output = vec![f32::NAN; batch * channels];
    let addresses = [input.as_ptr() as usize, output.as_mut_ptr() as usize];
    let work = |worker: &Worker<'_>| {
        let io = Io { inputs: &[addresses[0] as *const u8], output: addresses[1] as *mut u8 };
        // SAFETY: both have the sizes that the kernel was made for, and every worker makes this
        // call.
        unsafe { kernel.run(&io, worker) };
    };
    ThreadPool::new(threads).unwrap().run(work).unwrap();
    output
}

#[test]
fn global_means_match_double_precision_whatever_their_shape() {
    let mut seed = 5_u64;
    let mut random = |bound: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % bound
    };
    for round in 0..120 {
        let [batch, channels, pixels] = [1 + random(3), 1 + random(70), 1 + random(150)];
        // Some rounds take shapes of real networks.
        let real = [[16, 1024], [24, 256], [8, 49], [4, 33], [2, 81], [1, 100]];
        let [channels, pixels] = real.get(round).copied().unwrap_or([channels, pixels]);
        let bytes: Vec<u8> = (0..batch * channels * pixels).map(|_| random(256) as u8).collect();
        let numbers: Vec<f32> = bytes.iter().map(|&byte| f32::from(byte) / 64.0 - 1.75).collect();
        let grid = Quantization { scale: 1.0 / 64.0, zero_point: 112 };
        let block = [16, 8, 4, 1].into_iter().find(|block| channels % block == 0).unwrap_or(1);
        for layout in [Layout::Nhwc, Layout::Nchw, Layout::Nchwc(block)] {
            let at = |image: usize, channel: usize, pixel: usize| {
                image * channels * pixels + layout.place([channels, pixels], channel, pixel)
            };
            let want: Vec<f64> = (0..batch * channels)
                .map(|i| {
                    let terms = (0..pixels)
                        .map(|pixel| f64::from(numbers[at(i / channels, i % channels, pixel)]));
                    terms.sum::<f64>() / pixels as f64
                })
                .collect();
            for isa in Isa::available() {
                let size = [batch, channels, pixels];
                let threads = 1 + round % 2;
                let single = means(size, &numbers, layout, Element::F32, isa, threads);
                let eight = means(size, &bytes, layout, Element::U8(grid), isa, threads);
                for (i, want) in want.iter().enumerate() {
                    for got in [single[i], eight[i]] {
                        assert!(
                            (f64::from(got) - want).abs() < 1e-5,
                            "{isa:?}, {layout:?}, {size:?}: mean {i} is {got} where {want} is \
                             right"
                        );
                    }
                }
            }
        }
    }
}
