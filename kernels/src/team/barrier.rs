//! A reusable barrier that spins, yields when it has spun for long, and can be poisoned.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// How often a waiting worker polls before it starts to give its time slice away. At some 20 ns per
/// poll that is a few tens of microseconds: longer than the imbalance of a step on an idle machine,
/// shorter than a time slice on a loaded one.
const POLLS_BEFORE_YIELD: u32 = 2_000;

/// Workers up to which everybody looks at everybody.
const FEW: usize = 8;

/// A reusable spinning barrier.
///
/// Few workers tell each other that they have arrived, each by a counter on a cache line of its own: whoever comes
/// last has to fetch those lines once, where a shared counter would travel to it, and the release back. Among many
/// a generation counter plays the part of the "sense" (Mellor-Crummey and Scott, "Algorithms for scalable
/// synchronization", 1991): whoever arrives last resets the count and opens the generation.
#[repr(align(128))]
pub struct Barrier {
    count: usize,
    arrived: AtomicUsize,
    // On a line of its own: waiting workers poll it while others still count themselves in.
    generation: Line<AtomicUsize>,
    poisoned: AtomicBool,
    /// How often each of few workers has arrived.
    arrivals: [Line<AtomicUsize>; FEW],
}

#[repr(align(128))]
struct Line<T>(T);

/// What a worker unwinds with when another one of its team has failed; [`super::Team::run`] catches it.
pub(super) struct Poisoned;

impl Barrier {
    /// A barrier for `count` workers, at least one.
    #[must_use]
    pub fn new(count: usize) -> Self {
        Self {
            count: count.max(1),
            arrived: AtomicUsize::new(0),
            generation: Line(AtomicUsize::new(0)),
            poisoned: AtomicBool::new(false),
            arrivals: [const { Line(AtomicUsize::new(0)) }; FEW],
        }
    }

    /// Returns when `count` workers have called it, each with its own index below `count`. Memory that any of them
    /// wrote before is visible to all of them after.
    ///
    /// # Panics
    /// Unwinds, silently, when the barrier is poisoned: a worker that failed will never come.
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
                // Who is fast may be a round ahead already.
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

    /// Spins until `done`.
    #[inline]
    fn poll(&self, done: impl Fn() -> bool) {
        let mut polls = 0;
        while !done() {
            if polls < POLLS_BEFORE_YIELD {
                polls += 1;
                spin_loop();
            } else {
                if self.poisoned.load(Ordering::Acquire) {
                    // Without the panic hook: the failure that matters has been reported already.
                    std::panic::resume_unwind(Box::new(Poisoned));
                }
                std::thread::yield_now();
            }
        }
    }

    /// Makes everyone unwind who waits or will wait in vain.
    pub(super) fn poison(&self) {
        self.poisoned.store(true, Ordering::Release);
    }
}
