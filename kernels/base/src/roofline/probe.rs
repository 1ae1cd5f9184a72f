//! The speed probe, a fixed piece of arithmetic that measures the present speed of the cores.
//!
//! Virtual processors often share a physical core with a thread of another tenant, which slows them
//! down by a third or more for milliseconds at a time. The probe is a small GEMM from the L1 cache
//! with integer arithmetic between its multiply-adds, so that no slot of the front end is free. Its
//! time is constant on an undisturbed core, and longer during any interference or at a lower clock.
//! (A GEMM alone leaves slots free, and misses neighbors that slow 8-bit kernels by a quarter.)
//! Conclusions are up to the callers.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::error::KernelError;
use crate::threads::ThreadPool;
use paretune_simd::Isa;
use paretune_simd::{Dispatch, IsaToken, Simd, SimdFn};

/// Inner dimension of the GEMM: 8 kB of operands on the widest vectors.
const DEPTH: usize = 64;
/// Rows of its register tile, which is two vectors wide.
const ROWS: usize = 6;
/// Repetitions of the GEMM: some 9 microseconds at two vector multiplications per cycle. This is
/// far above the clock's resolution, and far below the duration of typical interference.
const ROUNDS: usize = 64;

/// Speed probe for all cores that a thread pool of a given size uses.
///
/// ```
/// use paretune_base::roofline::SpeedProbe;
/// use paretune_simd::Isa;
///
/// let probe = SpeedProbe::new(1, Isa::detect())?;
/// assert!(probe.seconds()? > 0.0);
/// # Ok::<(), paretune_base::error::KernelError>(())
/// ```
#[derive(Clone)]
pub struct SpeedProbe {
    pool: ThreadPool,
    product: unsafe fn(()),
}

impl SpeedProbe {
    /// Creates a probe for the cores of a pool of `threads` threads, with the vectors of `isa`.
    ///
    /// # Errors
    /// Fails if the system refuses the threads or if the processor lacks the instruction set.
    pub fn new(threads: usize, isa: Isa) -> Result<Self, KernelError> {
        let token = IsaToken::new(isa).ok_or_else(|| {
            KernelError::System(format!("this processor does not execute {}", isa.name()))
        })?;
        Ok(Self { pool: ThreadPool::new(threads)?, product: token.pointer::<Product>() })
    }

    /// Returns the number of probed threads.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.pool.count()
    }

    /// Returns the seconds that the slowest core takes for the arithmetic. Only ratios of them are
    /// meaningful.
    ///
    /// # Errors
    /// Fails if a thread panicked.
    pub fn seconds(&self) -> Result<f64, KernelError> {
        let slowest = AtomicU64::new(0);
        self.pool.run(|_| {
            let start = Instant::now();
            // SAFETY: the function has no requirements.
            unsafe { (self.product)(()) };
            let nanoseconds = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
            slowest.fetch_max(nanoseconds, Ordering::Relaxed);
        })?;
        Ok(slowest.into_inner() as f64 * 1e-9)
    }
}

/// The repeated GEMM, interleaved with chains of rotations whose results are never waited for.
struct Product;

impl SimdFn for Product {
    type Args<'a> = ();

    #[inline(always)]
    unsafe fn call<S: Simd>(simd: S, (): ()) {
        // Sized for the widest vectors. The values are irrelevant as long as they stay normal.
        let left = black_box([0.5_f32; DEPTH * ROWS]);
        let right = black_box([0.25_f32; DEPTH * 2 * 16]);
        // SAFETY: every offset is below the lengths above, as no vector has more than 16 lanes.
        unsafe {
            let mut sums = [[simd.splat(0.0); 2]; ROWS];
            let mut words = black_box([1_u64, 2, 3, 4]);
            for _ in 0..ROUNDS {
                let (left, right) = (black_box(left.as_ptr()), black_box(right.as_ptr()));
                for k in 0..DEPTH {
                    let columns = [0, 1].map(|v| simd.load(right.add((2 * k + v) * S::LANES)));
                    for (row, sums) in sums.iter_mut().enumerate() {
                        let x = simd.splat(*left.add(k * ROWS + row));
                        for (sum, column) in sums.iter_mut().zip(columns) {
                            *sum = simd.fma(x, column, *sum);
                        }
                        let word = &mut words[row % 4];
                        *word = word.rotate_left(7) ^ k as u64;
                    }
                }
            }
            black_box(words);
            let mut all = sums[0][0];
            for sum in sums.as_flattened() {
                all = simd.add(all, *sum);
            }
            let mut lanes = [0.0_f32; 16];
            simd.store(lanes.as_mut_ptr(), all);
            black_box(lanes);
        }
    }
}
