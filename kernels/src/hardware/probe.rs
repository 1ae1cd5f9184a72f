//! A fixed piece of arithmetic whose time tells how fast the cores are right now.
//!
//! Virtual processors often share a core with a stranger's thread, which slows them down by a third or
//! more for milliseconds at a time. The probe is a small matrix product out of the first-level cache
//! with integer arithmetic between its multiply-adds, so that no slot of the front end is free: it is as
//! fast as ever on a quiet core, and slower as soon as somebody else executes anything there or the
//! clock is low. (A product alone leaves slots free, and does not notice neighbors that slow 8-bit
//! kernels by a quarter.) What to conclude from it is left to whoever measures.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::Isa;
use crate::error::KernelError;
use crate::simd::{Build, Job, Simd, Usable, build};
use crate::team::Team;

/// Steps of the product's depth: 8 kB of operands on the widest vectors.
const DEPTH: usize = 64;
/// Rows of its register tile; two vectors are its columns.
const ROWS: usize = 6;
/// How often it is computed: some 9 microseconds where two vectors are multiplied in a cycle, which is
/// far above the clock's resolution and far below the time that neighbors stay.
const ROUNDS: usize = 64;

/// Probes all cores that a team of some size runs on.
///
/// ```
/// use paretune_kernels::hardware::{Isa, SpeedProbe};
///
/// let probe = SpeedProbe::new(1, Isa::detect())?;
/// assert!(probe.seconds()? > 0.0);
/// # Ok::<(), paretune_kernels::KernelError>(())
/// ```
#[derive(Clone)]
pub struct SpeedProbe {
    team: Team,
    product: fn(),
}

impl SpeedProbe {
    /// For the cores of a team of `threads`, with the vectors of `isa`.
    ///
    /// # Errors
    /// Where the system refuses the threads or the processor lacks the instruction set.
    pub fn new(threads: usize, isa: Isa) -> Result<Self, KernelError> {
        struct Entry;
        impl Build for Entry {
            type Output = fn();
            fn build<S: Simd>(self) -> fn() {
                // SAFETY: whoever builds has proof of the instruction set; the job owns what it points to.
                || unsafe { S::vectorize(Product) }
            }
        }
        let usable = Usable::check(isa)
            .ok_or_else(|| KernelError::System(format!("this processor does not execute {}", isa.name())))?;
        Ok(Self { team: Team::new(threads)?, product: build(usable, Entry) })
    }

    /// Threads that are probed.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.team.count()
    }

    /// Seconds that the slowest core takes for the arithmetic. Only ratios mean anything.
    ///
    /// # Errors
    /// Where a worker panicked.
    pub fn seconds(&self) -> Result<f64, KernelError> {
        let slowest = AtomicU64::new(0);
        self.team.run(|_| {
            let start = Instant::now();
            (self.product)();
            let nanoseconds = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
            slowest.fetch_max(nanoseconds, Ordering::Relaxed);
        })?;
        Ok(slowest.into_inner() as f64 * 1e-9)
    }
}

/// The matrix product, over and over, and chains of rotations that nothing waits for.
struct Product;

impl Job for Product {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // Room for the widest vectors; what the numbers are does not matter as long as they stay normal.
        let left = black_box([0.5_f32; DEPTH * ROWS]);
        let right = black_box([0.25_f32; DEPTH * 2 * 16]);
        // SAFETY: every offset is below the lengths above, as no vector has more than 16 lanes.
        unsafe {
            let mut sums = [[S::splat(0.0); 2]; ROWS];
            let mut words = black_box([1_u64, 2, 3, 4]);
            for _ in 0..ROUNDS {
                let (left, right) = (black_box(left.as_ptr()), black_box(right.as_ptr()));
                for k in 0..DEPTH {
                    let columns = [0, 1].map(|v| S::load(right.add((2 * k + v) * S::LANES)));
                    for (row, sums) in sums.iter_mut().enumerate() {
                        let x = S::splat(*left.add(k * ROWS + row));
                        for (sum, column) in sums.iter_mut().zip(columns) {
                            *sum = S::fma(x, column, *sum);
                        }
                        let word = &mut words[row % 4];
                        *word = word.rotate_left(7) ^ k as u64;
                    }
                }
            }
            black_box(words);
            let mut all = sums[0][0];
            for sum in sums.as_flattened() {
                all = S::add(all, *sum);
            }
            let mut lanes = [0.0_f32; 16];
            S::store(lanes.as_mut_ptr(), all);
            black_box(lanes);
        }
    }
}
