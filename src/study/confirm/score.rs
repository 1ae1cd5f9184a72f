//! Answers of the finalists on report images, as many as there is time for: first a few of everybody's, then those
//! that decide who keeps a limit on accuracy, then as many of everybody's.

use std::path::Path;
use std::time::{Duration, Instant};

use super::{Confirmation, FrontPoint, SessionError};
use crate::evaluate::accuracy::Score;
use crate::evaluate::protocol::{Floors, Reply, Request};
use crate::study::archive;
use crate::study::event::Event;
use crate::study::recipes::UNTOUCHED;

/// Report images come in steps of this many.
const STEP: u64 = 512;

/// Steps at a time that go into deciding a limit.
const DECIDING: u64 = 2;

/// A finalist that is scored.
#[derive(Clone, Copy)]
pub(super) struct Job<'j> {
    pub(super) point: &'j FrontPoint,
    /// Where its bundle lies.
    pub(super) bundle: &'j Path,
    /// Seconds, and its interval.
    pub(super) latency: [f64; 3],
    /// What is known in the end.
    pub(super) score: Option<Score>,
    /// It could not be scored.
    pub(super) failed: bool,
    /// Seconds per image, as soon as they are known.
    each: f64,
    /// Nothing may be added: an earlier session has found it, or there are no more images.
    complete: bool,
}

impl<'j> Job<'j> {
    pub(super) fn new(point: &'j FrontPoint, bundle: &'j Path, latency: [f64; 3]) -> Self {
        Self { point, bundle, latency, score: None, failed: false, each: 0.0, complete: false }
    }

    /// Images seen.
    fn images(&self) -> u64 {
        self.score.map_or(0, |score| score.total)
    }

    fn may_go_on(&self) -> bool {
        !self.failed && !self.complete
    }

    /// Whether its accuracy alone decides whether it keeps the limits, and has not done so yet.
    fn undecided(&self, floors: &Floors, confirmation: &Confirmation<'_, '_>) -> bool {
        let Some(score) = self.score.filter(|_| self.may_go_on()) else { return false };
        let request = confirmation.request;
        let seen = super::finished(self.point, self.latency, Some(score), &request.limits);
        let elsewhere = seen.violation.keys().any(|metric| !metric.starts_with("accuracy"));
        !elsewhere && floors.undecided(&score)
    }
}

impl Confirmation<'_, '_> {
    /// Scores all of `jobs`, the most important ones first; `step` says how far the confirmation is. After an interrupt, those that are not scored stay without
    /// a score.
    ///
    /// # Errors
    /// Where the store or the worker cannot be used at all.
    pub(super) fn score(
        &mut self,
        jobs: &mut [Job<'_>],
        until: Instant,
        see: &mut dyn FnMut(Event),
        step: &mut dyn FnMut() -> Event,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<(), SessionError> {
        let left = || until.saturating_duration_since(Instant::now()).as_secs_f64();
        for job in &mut *jobs {
            let known = self.bench.known_score("report-score", &job.point.config)?;
            if known.total > 0 {
                (job.score, job.complete) = (Some(known), true);
            } else if self.measure {
                self.extend(job, STEP, see, interrupted)?;
            }
            see(step());
        }
        let floors = archive::floors(&self.request.limits);
        for job in &mut *jobs {
            while self.measure && job.undecided(&floors, self) && left() > job.each * real(STEP) {
                self.extend(job, DECIDING * STEP, see, interrupted)?;
            }
        }
        // Accuracies compare where they are of the same images; what the untouched network answers is known by now.
        let most = jobs.iter().map(Job::images).max().unwrap_or(0);
        for job in &mut *jobs {
            let free = job.point.origin == UNTOUCHED;
            let missing = most.saturating_sub(job.images());
            if self.measure && job.may_go_on() && missing > 0 && (free || left() > job.each * real(missing)) {
                self.extend(job, missing, see, interrupted)?;
            }
        }
        let round: f64 = jobs.iter().filter(|job| job.may_go_on()).map(|job| job.each * real(STEP)).sum();
        let affordable = left() / round.max(1e-9);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "clamped to a small count"
        )]
        let rounds = affordable.clamp(0.0, 1e4) as u64;
        for job in &mut *jobs {
            if self.measure && job.may_go_on() && rounds > 0 {
                self.extend(job, rounds * STEP, see, interrupted)?;
            }
        }
        for job in jobs.iter().filter(|job| self.measure && !job.failed) {
            if let Some(score) = job.score {
                self.bench.put_score("report-score", &job.point.config, score)?;
            }
        }
        Ok(())
    }

    /// Scores `count` more images.
    fn extend(
        &mut self,
        job: &mut Job<'_>,
        count: u64,
        see: &mut dyn FnMut(Event),
        interrupted: &dyn Fn() -> bool,
    ) -> Result<(), SessionError> {
        let known = job.score.unwrap_or_default();
        let begun = Instant::now();
        let request =
            Request::Report { bundle: job.bundle.to_owned(), from: known.total, to: known.total + count };
        let deadline = self.bench.deadline.max(Duration::from_secs_f64(4.0 * self.seconds));
        let problem = match self.host.ask(&request, deadline, &mut |_| {}, interrupted) {
            Ok(Reply::Reported { score }) => {
                job.complete = score.total < count;
                job.each = begun.elapsed().as_secs_f64() / real(score.total.max(1));
                job.score = Some(known.plus(score));
                None
            }
            Ok(reply) => Some(format!("{reply:?}")),
            Err(error) => self.failure(error, interrupted)?.map(|error| error.to_string()),
        };
        if let Some(problem) = problem {
            see(Event::Notice { text: format!("point {} could not be scored: {problem}", job.point.id) });
            job.failed = true;
        }
        Ok(())
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of images are far below 2^53")]
fn real(count: u64) -> f64 {
    count as f64
}
