//! The work queue of a run. Each thread has a chunk of the work, and threads that finish early
//! steal from the chunks of others.
//!
//! Cores are seldom equally fast: some are small by design, and some also run threads of other
//! processes. With fixed halves, the work takes as long as the slower core needs. A chunk therefore
//! only has a first owner. The owner takes parts from the front, which keeps neighbors together
//! and, in step after step, in the same cache; others steal from the back. Parts shrink in the
//! course of the work, as in guided self-scheduling (Polychronopoulos and Kuck, IEEE Transactions
//! on Computers, 1987).

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use super::share;

/// Remaining units of one thread's chunk on its own cache line: the turn, the first remaining unit,
/// and the end.
#[repr(align(128))]
struct Remainder(AtomicU64);

/// Bits of a unit's index in a [`Remainder`].
const UNIT_BITS: u32 = 24;

/// Number of units from which on work is not stolen.
const MAX_UNITS: usize = 1 << UNIT_BITS;

/// Divisor of the remaining units for the size of the next part.
const SHRINK: usize = 2;

/// Minimum size of a chunk, in grains, for work stealing. Smaller chunks are done before another
/// thread has seen them.
const MIN_GRAINS: usize = 4;

/// The remaining chunks of all threads of a pool.
pub(super) struct WorkQueue {
    remainders: Box<[Remainder]>,
}

/// Units of work that a thread has taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Index of the thread that owns the chunk.
    pub owner: usize,
    /// Range of units to execute.
    pub units: Range<usize>,
}

impl WorkQueue {
    pub fn new(workers: usize) -> Self {
        Self { remainders: (0..workers).map(|_| Remainder(AtomicU64::new(0))).collect() }
    }

    /// Clears the queue; no thread may be at work. Threads that start afterwards see the cleared
    /// queue.
    pub fn reset(&self) {
        for Remainder(left) in &self.remainders {
            left.store(0, Ordering::Relaxed);
        }
    }

    /// Returns whether work of `total` units is divided by work stealing, in parts of at least
    /// `grain` units.
    pub fn divides(&self, total: usize, grain: usize) -> bool {
        let share = total / self.remainders.len().max(1);
        self.remainders.len() > 1 && total < MAX_UNITS && share >= MIN_GRAINS * grain.max(1)
    }

    /// Opens the chunk of thread `index` for a turn and takes its first part. Turns number the
    /// divided pieces of work in a run, equally for all threads, and wrap around. Data that the
    /// owner has prepared before is visible to threads that steal from it.
    #[inline]
    pub fn open(&self, index: usize, turn: u16, total: usize, grain: usize) -> Part {
        let share = share(index, self.remainders.len(), total);
        let middle = share.start + part_size(share.len(), grain);
        // No other thread writes here: the previous turn's chunk is used up, or the owner would
        // still work on it.
        self.remainders[index].0.store(pack(turn, &(middle..share.end)), Ordering::Release);
        Part { owner: index, units: share.start..middle }
    }

    /// Takes the next part for thread `index`, first from its own chunk, then from others'. Threads
    /// that are at the previous or the next turn have nothing to steal.
    #[inline]
    pub fn take(&self, index: usize, turn: u16, grain: usize) -> Option<Part> {
        let count = self.remainders.len();
        (0..count).map(|step| (index + step) % count).find_map(|owner| {
            let units = self.take_from(owner, owner == index, turn, grain)?;
            Some(Part { owner, units })
        })
    }

    /// Takes a part of the remaining units of `owner`'s chunk.
    #[inline]
    fn take_from(&self, owner: usize, own: bool, turn: u16, grain: usize) -> Option<Range<usize>> {
        let Remainder(place) = &self.remainders[owner];
        let mut seen = place.load(Ordering::Acquire);
        loop {
            let (at, left) = unpack(seen);
            if at != turn || left.is_empty() {
                return None;
            }
            let size = part_size(left.len(), grain);
            let (part, rest) = if own {
                (left.start..left.start + size, left.start + size..left.end)
            } else {
                (left.end - size..left.end, left.start..left.end - size)
            };
            let rest = pack(turn, &rest);
            match place.compare_exchange_weak(seen, rest, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(part),
                Err(now) => seen = now,
            }
        }
    }
}

/// Returns the size of the next part, given the number of remaining units.
#[inline]
fn part_size(left: usize, grain: usize) -> usize {
    let grain = grain.max(1);
    if left <= grain + grain / 2 { left } else { grain.max(left / SHRINK / grain * grain) }
}

#[inline]
fn pack(turn: u16, left: &Range<usize>) -> u64 {
    u64::from(turn) << (2 * UNIT_BITS) | (left.start as u64) << UNIT_BITS | left.end as u64
}

#[inline]
fn unpack(packed: u64) -> (u16, Range<usize>) {
    let unit = |bits: u64| (bits & (MAX_UNITS as u64 - 1)) as usize;
    ((packed >> (2 * UNIT_BITS)) as u16, unit(packed >> UNIT_BITS)..unit(packed))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOTAL: usize = 100;
    const GRAIN: usize = 4;

    /// Returns the units of all parts that thread `index` still gets.
    fn all(queue: &WorkQueue, index: usize, turn: u16) -> Vec<usize> {
        std::iter::from_fn(|| queue.take(index, turn, GRAIN)).flat_map(|part| part.units).collect()
    }

    #[test]
    fn owners_take_from_the_front_and_others_from_the_back() {
        let queue = WorkQueue::new(2);
        let part = |owner, units| Part { owner, units };
        assert_eq!(queue.open(0, 1, TOTAL, GRAIN), part(0, 0..24));
        assert_eq!(queue.take(0, 1, GRAIN), Some(part(0, 24..36)));
        assert_eq!(queue.open(1, 1, TOTAL, GRAIN), part(1, 50..74));
        assert_eq!(all(&queue, 1, 1).len(), 26 + 14);
        assert_eq!(queue.take(0, 1, GRAIN), None);
    }

    #[test]
    fn what_an_owner_prepares_is_opened_by_the_owner() {
        let queue = WorkQueue::new(2);
        let begun = queue.open(0, 1, TOTAL, GRAIN).units.len();
        assert_eq!(begun + all(&queue, 0, 1).len(), 50);
        let begun = queue.open(1, 1, TOTAL, GRAIN);
        assert_eq!(queue.take(0, 1, GRAIN), Some(Part { owner: 1, units: 88..100 }));
        assert_eq!(begun.units.len() + all(&queue, 0, 1).len() + 12, 50);
    }

    #[test]
    fn the_next_turn_waits_for_who_is_behind() {
        let queue = WorkQueue::new(2);
        let first = queue.open(1, 1, TOTAL, GRAIN);
        queue.open(0, 1, TOTAL, GRAIN);
        while queue.take(0, 1, GRAIN).is_some_and(|part| part.owner == 0) {}
        // Thread 0 goes on without checking whether thread 1 has units left, which it has.
        assert_eq!(queue.open(0, 2, TOTAL, GRAIN).units.len() + all(&queue, 0, 2).len(), 50);
        let rest = all(&queue, 1, 1);
        assert!(!rest.is_empty() && first.units.len() + rest.len() < 50);
        assert_eq!(queue.open(1, 2, TOTAL, GRAIN).units.len() + all(&queue, 1, 2).len(), 50);
    }

    #[test]
    fn small_and_huge_work_is_not_divided() {
        assert!(WorkQueue::new(2).divides(32, 4));
        assert!(!WorkQueue::new(2).divides(31, 4));
        assert!(!WorkQueue::new(1).divides(1000, 4));
        assert!(!WorkQueue::new(2).divides(MAX_UNITS, 4));
    }
}
