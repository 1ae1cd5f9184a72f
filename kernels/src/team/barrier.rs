//! A reusable barrier that spins, yields when it has spun for long, and can be poisoned.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// How often a waiting worker polls before it starts to give its time slice away. At some 20 ns per
/// poll that is a few tens of microseconds: longer than the imbalance of a step on an idle machine,
/// shorter than a time slice on a loaded one.
const POLLS_BEFORE_YIELD: u32 = 2_000;

/// A reusable spinning barrier.
///
/// A generation counter plays the part of the "sense" (Mellor-Crummey and Scott, "Algorithms for
/// scalable synchronization", 1991): whoever arrives last resets the count and opens the generation.
#[repr(align(128))]
pub struct Barrier {
    count: usize,
    arrived: AtomicUsize,
    // On a line of its own: waiting workers poll it while others still count themselves in.
    generation: Line<AtomicUsize>,
    poisoned: AtomicBool,
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
        }
    }

    /// Returns when `count` workers have called it. Memory that any of them wrote before is visible to
    /// all of them after.
    ///
    /// # Panics
    /// Unwinds, silently, when the barrier is poisoned: a worker that failed will never come.
    #[inline]
    pub fn wait(&self) {
        if self.count == 1 {
            return;
        }
        let generation = self.generation.0.load(Ordering::Acquire);
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 == self.count {
            self.arrived.store(0, Ordering::Relaxed);
            self.generation.0.store(generation.wrapping_add(1), Ordering::Release);
            return;
        }
        let mut polls = 0;
        while self.generation.0.load(Ordering::Acquire) == generation {
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
