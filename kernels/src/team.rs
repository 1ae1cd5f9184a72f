//! Threads that run a network together: one pinned rayon pool per thread count, on which every worker
//! executes the same list of steps and meets the others at spinning barriers.

use std::ops::Range;

/// One member of the team that runs a step.
pub struct Worker<'a> {
    /// 0-based.
    pub index: usize,
    /// Number of workers.
    pub count: usize,
    /// Where all meet.
    pub barrier: &'a Barrier,
}

/// A reusable spinning barrier.
pub struct Barrier {}

impl Worker<'_> {
    /// Waits until every worker of the team is here. Memory written before is visible after.
    pub fn wait(&self) {
        todo!()
    }

    /// This worker's share of `0..total`, contiguous, sizes differing by at most one.
    #[must_use]
    pub fn share(&self, total: usize) -> Range<usize> {
        let start = total * self.index / self.count;
        let end = total * (self.index + 1) / self.count;
        start..end
    }
}
