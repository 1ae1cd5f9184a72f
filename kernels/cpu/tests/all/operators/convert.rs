//! Transposition of a value between two layouts.

use paretune_base::plan::layout::Layout;
use paretune_base::threads::ThreadPool;
use paretune_cpu::operators::convert::{TensorFormat, prepare};
use paretune_cpu::operators::{Context, Io};
use paretune_simd::Isa;

#[test]
fn every_number_finds_its_place() {
    for isa in Isa::available() {
        for (rows, columns) in
            [(1, 1), (3, 1024), (64, 49), (17, 5), (16, 3), (40, 33), (7, 20), (196, 100)]
        {
            let times = 2;
            let input: Vec<f32> = (0..times * rows * columns).map(|number| number as f32).collect();
            // One element more than needed, to detect writes past the end.
            let mut output = vec![-1.0_f32; input.len() + 1];
            let nhwc = TensorFormat { layout: Layout::Nhwc, ..TensorFormat::PLAIN };
            let context = Context { batch: times, isa };
            let kernel = prepare(context, rows, columns, TensorFormat::PLAIN, nhwc);
            let (inputs, to) = (input.as_ptr() as usize, output.as_mut_ptr() as usize);
            ThreadPool::new(2)
                .unwrap()
                .run(|worker| {
                    let io = Io { inputs: &[inputs as *const u8], output: to as *mut u8 };
                    // SAFETY: both are as large as the kernel was told, and all workers make
                    // this call.
                    unsafe { kernel.run(&io, worker) };
                })
                .unwrap();
            for (at, &number) in output[..input.len()].iter().enumerate() {
                let (image, column, row) = (at / (rows * columns), at / rows % columns, at % rows);
                let want = image * rows * columns + row * columns + column;
                assert_eq!(number, want as f32, "{isa:?}: {rows} x {columns}, {at}");
            }
            assert_eq!(output[input.len()], -1.0, "{isa:?}: {rows} x {columns}");
        }
    }
}
