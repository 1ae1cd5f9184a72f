//! Scores the finalists on report images within the time left. Accuracies compare only on the same
//! images, so all finalists climb the same steps, and all are shown with the score of the highest
//! step that every one of them has reached.

use std::path::Path;
use std::time::{Duration, Instant};

use paretune_evaluate::protocol::{Reply, Request};
use paretune_record::event::Event;
use paretune_record::score::Score;

use super::{Confirmation, FrontPoint, SessionError};

/// Numbers of report images at which all finalists are compared.
const STEPS: [u64; 8] = [512, 1024, 1536, 2048, 3072, 4096, 6144, 8192];

/// A finalist that is being scored.
#[derive(Clone)]
pub(super) struct Job<'j> {
    pub(super) point: &'j FrontPoint,
    /// Path of the finalist's bundle.
    bundle: &'j Path,
    /// Median latency in seconds and the ends of its interval.
    pub(super) latency: [f64; 3],
    /// Score on the images that all finalists are compared on; `None` if it could not be scored.
    pub(super) score: Option<Score>,
    /// Scores at the steps that it has reached, smallest first.
    reached: Vec<Score>,
    /// Time to score one image, in seconds.
    each: f64,
}

impl<'j> Job<'j> {
    pub(super) fn new(point: &'j FrontPoint, bundle: &'j Path, latency: [f64; 3]) -> Self {
        Self { point, bundle, latency, score: None, reached: Vec::new(), each: latency[0] }
    }

    /// Returns the number of images scored so far.
    fn images(&self) -> u64 {
        self.reached.last().map_or(0, |score| score.total)
    }

    /// Returns whether every report image is scored.
    fn is_complete(&self) -> bool {
        is_complete(&self.reached)
    }

    /// Returns the score at a step, which the last one covers if no image is left.
    fn at(&self, step: usize) -> Option<Score> {
        let last = self.reached.last().filter(|_| self.is_complete());
        self.reached.get(step).or(last).copied()
    }

    /// Returns the number of images that it lacks at a step.
    fn lacks(&self, step: usize) -> u64 {
        if self.at(step).is_some() { 0 } else { STEPS[step].saturating_sub(self.images()) }
    }
}

/// Returns whether scores at successive steps cover every report image.
fn is_complete(reached: &[Score]) -> bool {
    match reached.last() {
        Some(last) => reached.len() == STEPS.len() || last.total < STEPS[reached.len() - 1],
        None => false,
    }
}

/// Returns the highest step that all `jobs` with a score have reached, given that one of them has a
/// score.
fn common_step(jobs: &[Job<'_>]) -> Option<usize> {
    let scored = || jobs.iter().filter(|job| !job.reached.is_empty());
    scored().next()?;
    (0..STEPS.len()).rev().find(|&step| scored().all(|job| job.at(step).is_some()))
}

/// Name of the records of scores at a step.
fn kind(step: usize) -> String {
    format!("report-score-{}", STEPS[step])
}

impl Confirmation<'_, '_> {
    /// Returns the scores of the steps that the store has.
    fn known_scores(&self, point: &FrontPoint) -> Result<Vec<Score>, SessionError> {
        let mut known: Vec<Score> = Vec::new();
        while known.len() < STEPS.len() && !is_complete(&known) {
            let score = self.runner.known_score(&kind(known.len()), &point.config)?;
            if score.total == 0 {
                break;
            }
            known.push(score);
        }
        Ok(known)
    }

    /// Scores all `jobs`: at the first step each of them, the most important ones first, and at
    /// every later step all of them if there is time for all. If the store has a score of each,
    /// nothing is scored. `step` builds the event that reports the progress. A job that fails at
    /// the first step has no score.
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
        let mut news = false;
        for job in &mut *jobs {
            job.reached = self.known_scores(job.point)?;
            if job.reached.is_empty() {
                news |= self.extend(job, see, interrupted)?;
            }
            see(step());
        }
        'steps: for next in 1..STEPS.len() {
            if !news {
                break;
            }
            let scored = || jobs.iter().filter(|job| !job.reached.is_empty());
            // Some may know a higher step already, because an earlier session had more time. A
            // step costs what the others lack.
            let needed: f64 = scored().map(|job| job.each * real(job.lacks(next))).sum();
            if scored().all(Job::is_complete) || (needed > 0.0 && needed > left()) {
                break;
            }
            for job in jobs.iter_mut().filter(|job| !job.reached.is_empty()) {
                while job.at(next).is_none() {
                    if !self.extend(job, see, interrupted)? {
                        break 'steps;
                    }
                }
            }
        }
        if let Some(common) = common_step(jobs) {
            for job in jobs {
                job.score = job.at(common);
            }
        }
        Ok(())
    }

    /// Scores the images of a job's next step. Returns whether it has reached it.
    fn extend(
        &mut self,
        job: &mut Job<'_>,
        see: &mut dyn FnMut(Event),
        interrupted: &dyn Fn() -> bool,
    ) -> Result<bool, SessionError> {
        if !self.measure {
            return Ok(false);
        }
        if !job.bundle.exists()
            && let Err(error) = self.build(job.point, job.bundle, interrupted)
        {
            return self.unscored(job, error, see, interrupted);
        }
        let known = job.reached.last().copied().unwrap_or_default();
        let begun = Instant::now();
        let step = job.reached.len();
        let request =
            Request::Report { bundle: job.bundle.to_owned(), from: known.total, to: STEPS[step] };
        let deadline = self.runner.deadline.max(Duration::from_secs_f64(4.0 * self.seconds));
        let devices = &self.runner.devices;
        match self.host.ask_twice(&request, deadline, devices, &mut |_| {}, interrupted) {
            Ok(Reply::Reported { score }) => {
                job.each = begun.elapsed().as_secs_f64() / real(score.total.max(1));
                let score = known.plus(score);
                job.reached.push(score);
                self.runner.put_score(&kind(step), &job.point.config, score)?;
                Ok(true)
            }
            Ok(reply) => {
                let error = super::HostError::Nonsense(format!("{reply:?}"));
                self.unscored(job, error, see, interrupted)
            }
            Err(error) => self.unscored(job, error, see, interrupted),
        }
    }

    /// Reports that a job could not be scored, unless that was interrupted.
    fn unscored(
        &mut self,
        job: &Job<'_>,
        error: super::HostError,
        see: &mut dyn FnMut(Event),
        interrupted: &dyn Fn() -> bool,
    ) -> Result<bool, SessionError> {
        if let Some(error) = self.failure(error, interrupted)? {
            let text = format!("point {} could not be scored: {error}", job.point.id);
            see(Event::Notice { text });
        }
        Ok(false)
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of images are far below 2^53")]
fn real(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use paretune_record::archive;
    use paretune_record::measurement::Measurement;
    use paretune_spaces::Configuration;

    fn score(total: u64) -> Score {
        Score { total, correct: total / 2, lost: 0, gained: 0 }
    }

    #[test]
    fn all_are_compared_on_the_same_images() {
        let known = Measurement { score: score(8), latency: [1.0; 3], size: 1.0, memory: 1.0 };
        let point = archive::point(&Configuration::default(), "x", &known, &[]);
        let job = |totals: &[u64]| {
            let mut job = Job::new(&point, Path::new("unused"), [1.0; 3]);
            job.reached = totals.iter().map(|&total| score(total)).collect();
            job
        };
        // One had more time than the others, and one could not be scored at all.
        let jobs = [job(&[512, 1024, 1536]), job(&[512, 1024]), job(&[])];
        let common = common_step(&jobs).unwrap();
        let totals = jobs.iter().filter_map(|job| job.at(common)).map(|score| score.total);
        assert_eq!(totals.collect::<Vec<_>>(), [1024, 1024]);
        assert_eq!([jobs[0].lacks(3), jobs[1].lacks(3)], [512, 1024]);
        // There are only 700 images: the second step is the last.
        let jobs = [job(&[512, 700]), job(&[512, 700])];
        assert!(jobs.iter().all(|job| job.is_complete() && job.lacks(7) == 0));
        assert_eq!(common_step(&jobs), Some(STEPS.len() - 1));
        let jobs = [job(&[512, 700]), job(&[512])];
        assert_eq!(jobs[0].at(common_step(&jobs).unwrap()).unwrap().total, 512);
        assert_eq!(common_step(&[job(&[])]), None);
    }
}
