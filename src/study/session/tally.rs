//! Numbers of trials and the time that they took.

use std::time::Instant;

/// Counts of a study over all of its sessions.
pub(super) struct Tally {
    /// Number of trials, measured or answered without a measurement.
    pub(super) trials: u64,
    /// Largest number that a trial of the study has.
    pub(super) latest: u64,
    /// Number of trials without a measurement.
    pub(super) cached: u64,
    /// Instant at which this session began.
    pub(super) begun: Instant,
    /// Seconds of earlier sessions, minus those of pauses.
    pub(super) earlier: f64,
    /// Seconds spent on measured trials of this session.
    pub(super) trial_seconds: f64,
}

impl Tally {
    /// Starts a session that was `begun` after `earlier` seconds.
    pub(super) fn new(begun: Instant, earlier: f64) -> Self {
        Self { trials: 0, latest: 0, cached: 0, begun, earlier, trial_seconds: 0.0 }
    }

    /// Returns the seconds since the study began, over all sessions.
    pub(super) fn elapsed(&self) -> f64 {
        self.earlier + self.begun.elapsed().as_secs_f64()
    }

    /// Returns the number of the next trial, which no other trial of the study has.
    pub(super) fn next(&mut self) -> u64 {
        self.latest = self.latest.max(self.trials) + 1;
        self.latest
    }

    /// Counts a trial that has ended.
    pub(super) fn count(&mut self, cached: bool) {
        self.trials += 1;
        self.cached += u64::from(cached);
    }
}
