//! The thread pool that runs a network: one pinned rayon pool per thread count, in which all
//! threads execute the same list of steps and meet at spinning barriers.
//!
//! A job is handed out once per run of a whole network, and mostly without waking a thread. The
//! work itself and its division are up to the kernels; [`Worker::share`] is the usual division.

use std::any::Any;
use std::cell::Cell;
use std::collections::HashMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::error::KernelError;

mod barrier;
mod float_mode;
mod pinning;
mod shared_threads;
mod work_queue;

pub use barrier::Barrier;
use float_mode::FlushDenormals;
use shared_threads::SharedThreads;
pub use work_queue::Part;
use work_queue::WorkQueue;

/// Maximum number of threads: more than any machine has cores, so a larger number is a mistake.
const MAX_WORKERS: usize = 1024;

/// One thread of the pool that runs a step.
pub struct Worker<'a> {
    /// Index of the thread, from 0.
    pub index: usize,
    /// Number of threads of the pool.
    pub count: usize,
    /// Barrier at which all threads meet.
    barrier: &'a Barrier,
    /// Work queue of the run; `None` for a pool of one thread.
    queue: Option<&'a WorkQueue>,
    /// Number of pieces of work that have been divided so far.
    turn: Cell<u16>,
}

impl<'a> Worker<'a> {
    /// Creates the only thread of a pool; `barrier` must be for a single thread.
    #[must_use]
    pub fn alone(barrier: &'a Barrier) -> Self {
        Self { index: 0, count: 1, barrier, queue: None, turn: Cell::new(0) }
    }

    /// Waits until every thread of the pool has arrived. Memory written before is visible
    /// afterwards.
    #[inline]
    pub fn wait(&self) {
        self.barrier.wait(self.index);
    }

    /// Returns this thread's static chunk of `0..total`. Chunks are contiguous and differ in size
    /// by at most one.
    #[must_use]
    #[inline]
    pub fn share(&self, total: usize) -> Range<usize> {
        share(self.index, self.count, total)
    }

    /// Returns the parts of `0..total` that this thread executes: its own chunk, except for units
    /// that others steal, and units stolen from others once its own are done. Every unit is in
    /// exactly one part of one thread. Parts have at least `grain` units, and a multiple of it, if
    /// the chunks have.
    ///
    /// All threads must request the same divisions in the same order, and must consume all parts. A
    /// part may only depend on data that existed at the last [`Worker::wait`], or that its owner
    /// wrote before its own request.
    #[inline]
    pub fn parts(&self, total: usize, grain: usize) -> impl Iterator<Item = Part> {
        let queue = self.queue.filter(|queue| queue.divides(total, grain));
        if queue.is_some() {
            self.turn.set(self.turn.get().wrapping_add(1));
        }
        let (index, turn) = (self.index, self.turn.get());
        let mut first = Some(match queue {
            Some(queue) => queue.open(index, turn, total, grain),
            None => Part { owner: index, units: self.share(total) },
        });
        std::iter::from_fn(move || {
            let part = first.take().or_else(|| queue?.take(index, turn, grain));
            part.filter(|part| !part.units.is_empty())
        })
    }
}

/// Returns the static chunk of thread `index` of `count` for `0..total`; see [`Worker::share`].
#[must_use]
#[inline]
pub fn share(index: usize, count: usize, total: usize) -> Range<usize> {
    total * index / count..total * (index + 1) / count
}

/// A pool of a fixed number of pinned threads that flush denormals, the caller among them. Pools of
/// equal size share their threads.
#[derive(Clone)]
pub struct ThreadPool {
    /// Threads of the pool; `None` for a single thread, which is the caller itself.
    threads: Option<Arc<SharedThreads>>,
    count: usize,
}

impl ThreadPool {
    /// Creates a pool of `count` threads.
    ///
    /// # Errors
    /// Fails if `count` is zero or too large, or if the system refuses the threads.
    pub fn new(count: usize) -> Result<Self, KernelError> {
        if count == 0 || count > MAX_WORKERS {
            return Err(KernelError::System(format!(
                "{count} threads: from 1 to {MAX_WORKERS} are possible"
            )));
        }
        Ok(Self { threads: if count == 1 { None } else { Some(threads(count)?) }, count })
    }

    /// Returns the number of threads.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Executes `work` once on every thread, with denormals flushed, and returns when all are done.
    /// The caller's thread has index 0. This must not be called from inside `work`. Calls from
    /// several threads on pools of one size wait for each other.
    ///
    /// # Errors
    /// Fails if a thread panicked. The others are released from their barriers and unwind too.
    pub fn run(&self, work: impl Fn(&Worker<'_>) + Sync) -> Result<(), KernelError> {
        let _mode = FlushDenormals::on();
        // One barrier per run, so that a poisoned barrier does not outlive its run.
        let barrier = Barrier::new(self.count);
        let failed: OnceLock<KernelError> = OnceLock::new();
        let queue = self.threads.as_ref().map(|threads| threads.queue());
        let job = |index: usize| {
            let worker =
                Worker { index, count: self.count, barrier: &barrier, queue, turn: Cell::new(0) };
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(&worker))) {
                if !panic.is::<barrier::Poisoned>() {
                    // The first failure is the cause; later ones follow from it.
                    let _ = failed.set(failure(&*panic));
                }
                barrier.poison();
            }
        };
        match &self.threads {
            None => job(0),
            Some(threads) => threads.run(&job).map_err(|panic| failure(&*panic))?,
        }
        failed.into_inner().map_or(Ok(()), Err)
    }
}

/// Returns the threads for pools of size `count`. They are started once and live as long as the
/// process, mostly asleep.
fn threads(count: usize) -> Result<Arc<SharedThreads>, KernelError> {
    static STARTED: OnceLock<Mutex<HashMap<usize, Arc<SharedThreads>>>> = OnceLock::new();
    // A panic while the lock was held cannot have left the map inconsistent.
    let mut started =
        STARTED.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(threads) = started.get(&count) {
        return Ok(Arc::clone(threads));
    }
    let threads = Arc::new(SharedThreads::new(count)?);
    started.insert(count, Arc::clone(&threads));
    Ok(threads)
}

/// Converts the message of a panic to an error.
fn failure(panic: &(dyn Any + Send)) -> KernelError {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    KernelError::System(format!("a worker failed: {text}"))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn shares_cover_everything_once() {
        for total in [0, 1, 2, 3, 7, 64, 1000] {
            for count in 1..6 {
                let mut next = 0;
                for index in 0..count {
                    let share = share(index, count, total);
                    assert_eq!(share.start, next);
                    assert!(share.len() <= total.div_ceil(count));
                    next = share.end;
                }
                assert_eq!(next, total);
            }
        }
    }

    #[test]
    fn parts_cover_everything_once() {
        for count in [1, 2, 3, 5] {
            let pool = ThreadPool::new(count).unwrap();
            let units: Vec<AtomicUsize> = (0..1000).map(|_| AtomicUsize::new(0)).collect();
            for round in 0..20 {
                pool.run(|worker| {
                    // One thread is slow in every round, and no thread waits between the last two
                    // totals.
                    for (turn, total) in [1000, 7, 0, 1, 300].into_iter().enumerate() {
                        for unit in worker.parts(total, 1 + round).flat_map(|part| part.units) {
                            units[unit].fetch_add(1, Ordering::Relaxed);
                            if worker.index == round % count && unit % 64 == 0 {
                                std::thread::yield_now();
                            }
                        }
                        if turn < 3 {
                            worker.wait();
                        }
                    }
                })
                .unwrap();
                for (unit, done) in units.iter().enumerate() {
                    let expected =
                        [1000, 7, 0, 1, 300].into_iter().filter(|&total| unit < total).count();
                    assert_eq!(
                        done.swap(0, Ordering::Relaxed),
                        expected,
                        "unit {unit} of {count} workers"
                    );
                }
            }
        }
    }

    #[test]
    fn barriers_separate_rounds_even_when_oversubscribed() {
        for count in [1, 2, 3, 5, 9] {
            let pool = ThreadPool::new(count).unwrap();
            let rounds: Vec<AtomicUsize> = (0..50).map(|_| AtomicUsize::new(0)).collect();
            pool.run(|worker| {
                for round in &rounds {
                    round.fetch_add(1, Ordering::Relaxed);
                    worker.wait();
                    assert_eq!(round.load(Ordering::Relaxed), count);
                }
            })
            .unwrap();
        }
    }

    #[test]
    fn a_panicking_worker_releases_the_others() {
        for count in [1, 2, 4] {
            let pool = ThreadPool::new(count).unwrap();
            for victim in 0..count {
                let error = pool
                    .run(|worker| {
                        worker.wait();
                        if worker.index == victim {
                            // Bypasses the panic hook, which would print into the test's output.
                            std::panic::resume_unwind(Box::new("out of cheese"));
                        }
                        worker.wait();
                    })
                    .unwrap_err();
                assert!(error.to_string().contains("out of cheese"), "{error}");
            }
            // The threads still work.
            pool.run(|worker| worker.wait()).unwrap();
        }
    }

    #[test]
    fn jobs_reach_lingering_and_sleeping_threads() {
        let total = AtomicUsize::new(0);
        for count in [2, 3] {
            let pool = ThreadPool::new(count).unwrap();
            for round in 0..60 {
                pool.run(|worker| {
                    total.fetch_add(1, Ordering::Relaxed);
                    worker.wait();
                })
                .unwrap();
                assert_eq!(total.swap(0, Ordering::Relaxed), count);
                // Deliberately close to the end of the lingering time.
                if round % 3 == 0 {
                    std::thread::sleep(std::time::Duration::from_micros(100 + 5 * round));
                }
            }
        }
    }

    #[test]
    fn concurrent_runs_on_one_pool_do_not_deadlock() {
        let pool = ThreadPool::new(2).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        pool.run(|worker| {
                            for _ in 0..5 {
                                worker.wait();
                            }
                        })
                        .unwrap();
                    }
                });
            }
        });
    }

    #[test]
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    fn every_worker_flushes_denormals() {
        for count in [1, 2, 3] {
            ThreadPool::new(count)
                .unwrap()
                .run(|_| {
                    let half = std::hint::black_box(f32::MIN_POSITIVE) * std::hint::black_box(0.5);
                    assert_eq!(std::hint::black_box(half).to_bits(), 0);
                })
                .unwrap();
        }
    }

    #[test]
    fn absurd_sizes_are_refused() {
        assert!(ThreadPool::new(0).is_err());
        assert!(ThreadPool::new(100_000).is_err());
    }
}
