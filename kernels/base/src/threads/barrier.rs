//! A reusable spinning barrier that yields after a while and can be poisoned.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Number of polls before a waiting thread starts to yield. At some 20 ns per poll that is a few
/// tens of microseconds: longer than the imbalance of a step on an idle machine, shorter than a
/// time slice on a loaded one.
const POLLS_BEFORE_YIELD: u32 = 2_000;

/// Largest number of threads that watch each other's arrival directly.
const SPINNING_THREADS: usize = 8;

/// A reusable spinning barrier.
///
/// A few threads announce their arrival to each other, each by a counter on its own cache line. The
/// last thread then fetches those lines once, whereas a shared counter would have to travel to it,
/// and the release back. For many threads a generation counter serves as the "sense"
/// (Mellor-Crummey and Scott, "Algorithms for scalable synchronization", 1991): the last thread to
/// arrive resets the count and advances the generation.
#[repr(align(128))]
pub struct Barrier {
    count: usize,
    arrived: AtomicUsize,
    // On its own cache line: waiting threads poll it while others still increment the count.
    generation: Line<AtomicUsize>,
    poisoned: AtomicBool,
    /// Number of arrivals of each thread, for few threads.
    arrivals: [Line<AtomicUsize>; SPINNING_THREADS],
}

#[repr(align(128))]
struct Line<T>(T);

/// Panic payload of a thread that unwinds because another thread of its pool has failed;
/// [`super::ThreadPool::run`] catches it.
pub(super) struct Poisoned;

impl Barrier {
    /// Creates a barrier for `count` threads, at least one.
    #[must_use]
    pub fn new(count: usize) -> Self {
        Self {
            count: count.max(1),
            arrived: AtomicUsize::new(0),
            generation: Line(AtomicUsize::new(0)),
            poisoned: AtomicBool::new(false),
            arrivals: [const { Line(AtomicUsize::new(0)) }; SPINNING_THREADS],
        }
    }

    /// Waits until `count` threads have called this, each with its own index below `count`. Memory
    /// that any of them wrote before is visible to all of them afterwards.
    ///
    /// # Panics
    /// Unwinds silently if the barrier is poisoned, because a failed thread will never arrive.
    #[inline]
    pub fn wait(&self, index: usize) {
        if self.count == 1 {
            return;
        }
        if let Some(arrivals) = self.arrivals.get(..self.count)
            && let Some(Line(own)) = arrivals.get(index)
        {
            let round = own.load(Ordering::Relaxed) + 1;
            own.store(round, Ordering::Release);
            for Line(other) in arrivals {
                // A fast thread may be one round ahead already.
                self.poll(|| other.load(Ordering::Acquire) >= round);
            }
            return;
        }
        let generation = self.generation.0.load(Ordering::Acquire);
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 == self.count {
            self.arrived.store(0, Ordering::Relaxed);
            self.generation.0.store(generation.wrapping_add(1), Ordering::Release);
            return;
        }
        self.poll(|| self.generation.0.load(Ordering::Acquire) != generation);
    }

    /// Spins until `done` returns true.
    #[inline]
    fn poll(&self, done: impl Fn() -> bool) {
        let mut polls = 0;
        while !done() {
            if polls < POLLS_BEFORE_YIELD {
                polls += 1;
                spin_loop();
            } else {
                if self.poisoned.load(Ordering::Acquire) {
                    // Bypasses the panic hook: the original failure has been reported already.
                    std::panic::resume_unwind(Box::new(Poisoned));
                }
                std::thread::yield_now();
            }
        }
    }

    /// Makes all present and future waiters unwind.
    pub(super) fn poison(&self) {
        self.poisoned.store(true, Ordering::Release);
    }
}
