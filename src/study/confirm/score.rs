//! Scores the finalists on report images within the time left: first a few images for every
//! finalist, then those that decide whether it keeps a limit on accuracy, then equally many for
//! all.

use std::path::Path;
use std::time::{Duration, Instant};

use paretune_evaluate::protocol::{Reply, Request};
use paretune_evaluate::stop::AccuracyBounds;
use paretune_joint_space::seeds::BASELINE;
use paretune_record::event::Event;
use paretune_record::metric::Quantity;
use paretune_record::score::Score;

use super::super::bounds;
use super::{Confirmation, FrontPoint, SessionError};

/// Number of report images in one step.
const STEP: u64 = 512;

/// Number of steps at a time that are spent on deciding a limit.
const DECIDING: u64 = 2;

/// A finalist that is being scored.
#[derive(Clone, Copy)]
pub(super) struct Job<'j> {
    pub(super) point: &'j FrontPoint,
    /// Path of the finalist's bundle.
    pub(super) bundle: &'j Path,
    /// Median latency in seconds and the ends of its interval.
    pub(super) latency: [f64; 3],
    /// Score over all images so far.
    pub(super) score: Option<Score>,
    /// Whether scoring it has failed.
    pub(super) failed: bool,
    /// Seconds per image, measured by the last step.
    each: f64,
    /// Whether no images can be added: the score is from an earlier session, or no image is left.
    complete: bool,
}

impl<'j> Job<'j> {
    pub(super) fn new(point: &'j FrontPoint, bundle: &'j Path, latency: [f64; 3]) -> Self {
        Self { point, bundle, latency, score: None, failed: false, each: 0.0, complete: false }
    }

    /// Returns the number of images scored so far.
    fn images(&self) -> u64 {
        self.score.map_or(0, |score| score.total)
    }

    fn may_go_on(&self) -> bool {
        !self.failed && !self.complete
    }

    /// Returns whether the point's accuracy alone decides whether it keeps the limits, and has not
    /// decided it yet.
    fn undecided(&self, limits: &AccuracyBounds, confirmation: &Confirmation<'_, '_>) -> bool {
        let Some(score) = self.score.filter(|_| self.may_go_on()) else { return false };
        let request = confirmation.request;
        let seen = super::finished(self.point, self.latency, Some(score), &request.limits);
        let elsewhere = seen.violation.keys().any(|metric| metric.quantity() != Quantity::Fraction);
        !elsewhere && limits.undecided(&score)
    }
}

impl Confirmation<'_, '_> {
    /// Scores all `jobs`, the most important ones first. `step` builds the event that reports the
    /// progress. After an interrupt, the remaining jobs keep no score.
    ///
    /// # Errors
    /// Fails if the store or the worker cannot be used at all.
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
            let known = self.runner.known_score("report-score", &job.point.config)?;
            if known.total > 0 {
                (job.score, job.complete) = (Some(known), true);
            } else if self.measure {
                self.extend(job, STEP, see, interrupted)?;
            }
            see(step());
        }
        let limits = bounds::accuracy_bounds(&self.request.limits);
        for job in &mut *jobs {
            while self.measure && job.undecided(&limits, self) && left() > job.each * real(STEP) {
                self.extend(job, DECIDING * STEP, see, interrupted)?;
            }
        }
        // Accuracies compare only on the same images. The baseline is scored on all of them at no
        // cost, because its predictions are known already.
        let most = jobs.iter().map(Job::images).max().unwrap_or(0);
        for job in &mut *jobs {
            let free = job.point.origin == BASELINE;
            let missing = most.saturating_sub(job.images());
            if self.measure
                && job.may_go_on()
                && missing > 0
                && (free || left() > job.each * real(missing))
            {
                self.extend(job, missing, see, interrupted)?;
            }
        }
        let round: f64 =
            jobs.iter().filter(|job| job.may_go_on()).map(|job| job.each * real(STEP)).sum();
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
                self.runner.put_score("report-score", &job.point.config, score)?;
            }
        }
        Ok(())
    }

    /// Scores `count` more images of a job.
    fn extend(
        &mut self,
        job: &mut Job<'_>,
        count: u64,
        see: &mut dyn FnMut(Event),
        interrupted: &dyn Fn() -> bool,
    ) -> Result<(), SessionError> {
        let known = job.score.unwrap_or_default();
        let begun = Instant::now();
        let request = Request::Report {
            bundle: job.bundle.to_owned(),
            from: known.total,
            to: known.total + count,
        };
        let deadline = self.runner.deadline.max(Duration::from_secs_f64(4.0 * self.seconds));
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
            see(Event::Notice {
                text: format!("point {} could not be scored: {problem}", job.point.id),
            });
            job.failed = true;
        }
        Ok(())
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of images are far below 2^53")]
fn real(count: u64) -> f64 {
    count as f64
}
