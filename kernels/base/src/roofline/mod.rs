//! Measured ceilings of the processor: multiply-adds from registers, and bytes from each level of
//! memory. A kernel's fraction of these ceilings shows how good it is.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::error::KernelError;
use crate::hardware::caches;
use crate::threads::{ThreadPool, Worker};
use paretune_simd::Isa;

mod peak;
mod probe;

pub use probe::SpeedProbe;

/// The measured ceilings of a machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ceilings {
    /// Instruction set of the measurement.
    pub isa: Isa,
    /// Ceilings for each requested number of threads.
    pub threads: Vec<ThreadCeilings>,
}

/// Ceilings of a number of threads together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ThreadCeilings {
    /// Number of threads of the measurement.
    pub threads: usize,
    /// Single-precision multiply-adds per second; a multiply-add is two floating-point operations.
    pub multiply_adds_f32: f64,
    /// 8-bit multiply-adds per second, if the processor has instructions for them.
    pub multiply_adds_i8: Option<f64>,
    /// Bandwidth of each memory level, from the nearest to the farthest.
    pub memory: Vec<LevelCeilings>,
}

/// Bandwidth of one memory level.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LevelCeilings {
    /// Name of the level: `L1`, `L2`, `L3` or `DRAM`.
    pub level: String,
    /// Bytes of the working set of each thread.
    pub bytes: usize,
    /// Bytes read per second, all threads together.
    pub read: f64,
    /// Bytes copied per second, all threads together; each byte is read once and written once.
    pub copy: f64,
}

impl ThreadCeilings {
    /// Returns a lower bound for the seconds of a step (roofline model): the longer of computing,
    /// and of reading its bytes from `level`.
    #[must_use]
    pub fn least_seconds(
        &self,
        multiply_adds: u64,
        integer: bool,
        bytes: u64,
        level: usize,
    ) -> f64 {
        let rate = if integer {
            self.multiply_adds_i8.unwrap_or(self.multiply_adds_f32)
        } else {
            self.multiply_adds_f32
        };
        let moving = self.memory.get(level).map_or(0.0, |level| bytes as f64 / level.read);
        (multiply_adds as f64 / rate).max(moving)
    }
}

/// Measures the ceilings for each number of `threads`, which takes a few tenths of a second for
/// each.
///
/// # Errors
/// Fails if a thread pool cannot be started.
pub fn ceilings(threads: &[usize]) -> Result<Ceilings, KernelError> {
    let isa = Isa::detect();
    let threads = threads.iter().map(|&count| measure(isa, count)).collect::<Result<_, _>>()?;
    Ok(Ceilings { isa, threads })
}

fn measure(isa: Isa, count: usize) -> Result<ThreadCeilings, KernelError> {
    let pool = ThreadPool::new(count)?;
    let rounds = 200_000;
    let f32_rate = fastest(&pool, |_| peak::multiply_adds_f32(isa, rounds) as f64)?;
    let i8_rate = if peak::has_i8(isa) {
        Some(fastest(&pool, |_| peak::multiply_adds_i8(isa, rounds) as f64)?)
    } else {
        None
    };
    let memory = caches::working_sets(count)
        .into_iter()
        .map(|(level, bytes)| {
            // Each thread first writes its own buffer, so that the pages are allocated near its
            // core.
            let buffers: Vec<std::sync::Mutex<Vec<u64>>> =
                (0..count).map(|_| Default::default()).collect();
            let numbers = bytes / size_of::<u64>();
            pool.run(|worker| {
                if let Ok(mut buffer) = buffers[worker.index].lock() {
                    *buffer = vec![1; numbers];
                }
            })?;
            // Long enough to be timed, short enough for a quick measurement.
            let times = (16_usize << 20).div_ceil(bytes).max(1);
            let each = |worker: &Worker<'_>, work: &dyn Fn(&mut [u64])| {
                let Ok(mut buffer) = buffers[worker.index].lock() else { return 0 };
                for _ in 0..times {
                    work(black_box(&mut buffer[..]));
                }
                buffer.len() * size_of::<u64>() * times
            };
            let read = fastest(&pool, |worker| {
                each(worker, &|buffer| {
                    black_box(peak::sum(isa, buffer));
                }) as f64
            })?;
            let copy = fastest(&pool, |worker| {
                let copied = each(worker, &|buffer| {
                    let (from, to) = buffer.split_at_mut(buffer.len() / 2);
                    to[..from.len()].copy_from_slice(from);
                });
                copied as f64 / 2.0
            })?;
            Ok(LevelCeilings { level: level.into(), bytes, read, copy })
        })
        .collect::<Result<_, KernelError>>()?;
    Ok(ThreadCeilings {
        threads: count,
        multiply_adds_f32: f32_rate,
        multiply_adds_i8: i8_rate,
        memory,
    })
}

/// Minimum number of attempts at every ceiling, and minimum time in total. Other processes on the
/// machine come and go, and a few short attempts may all be disturbed.
const ATTEMPTS: usize = 4;
const MEASURING_TIME: Duration = Duration::from_millis(25);

/// Returns the best rate of several attempts. `work` returns the amount that one thread did; all
/// threads are timed together.
fn fastest(
    pool: &ThreadPool,
    work: impl Fn(&Worker<'_>) -> f64 + Sync,
) -> Result<f64, KernelError> {
    let seconds = AtomicU64::new(0);
    let done: Vec<AtomicU64> = (0..pool.count()).map(|_| AtomicU64::new(0)).collect();
    let mut best = 0.0_f64;
    let begun = Instant::now();
    let mut attempts = 0;
    while attempts < ATTEMPTS || begun.elapsed() < MEASURING_TIME {
        attempts += 1;
        pool.run(|worker| {
            worker.wait();
            let start = Instant::now();
            let amount = work(worker);
            done[worker.index].store(amount.to_bits(), Ordering::Relaxed);
            worker.wait();
            if worker.index == 0 {
                seconds.store(start.elapsed().as_secs_f64().to_bits(), Ordering::Relaxed);
            }
        })?;
        let total: f64 =
            done.iter().map(|amount| f64::from_bits(amount.load(Ordering::Relaxed))).sum();
        best = best.max(total / f64::from_bits(seconds.load(Ordering::Relaxed)));
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ceilings_are_plausible_numbers() {
        let ceilings = ceilings(&[1, 2]).unwrap();
        assert_eq!(ceilings.threads.len(), 2);
        for threads in &ceilings.threads {
            assert!(threads.multiply_adds_f32 > 1e7 && threads.multiply_adds_f32.is_finite());
            assert_eq!(threads.multiply_adds_i8.is_some(), peak::has_i8(ceilings.isa));
            assert!(threads.memory.iter().any(|level| level.level == "DRAM"));
            assert!(threads.memory.iter().all(|level| level.read > 1e6 && level.copy > 1e6));
            assert!(threads.least_seconds(1_000_000, false, 0, 0) > 0.0);
        }
        let text = serde_json::to_string(&ceilings).unwrap();
        assert_eq!(serde_json::from_str::<Ceilings>(&text).unwrap().isa, ceilings.isa);
    }
}
