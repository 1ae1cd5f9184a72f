//! Trials of a session: a proposal is measured, or its result is taken from the journal, and the
//! result is told to the search.

use std::time::Instant;

use paretune_evaluate::protocol::Reply;
use paretune_evaluate::stop::StopCriteria;
use paretune_record::archive;
use paretune_record::event::{Event, TrialFinished};
use paretune_record::front::{BASELINE, FrontPoint};
use paretune_record::measurement::{Estimate, Measurement};
use paretune_record::metric::Metric;
use paretune_search::{Outcome, Proposal};
use paretune_spaces::{Configuration, Point};

use super::Session;
use super::events::EventSink;
use crate::error::SessionError;
use crate::trial::{TrialError, TrialOutcome, TrialResult};

/// Factor on the number of images for candidates whose accuracy is close to a limit.
const UNDECIDED: u64 = 8;

impl Session<'_> {
    /// Tells the search the result of an earlier session. Points are judged under the current
    /// limits.
    pub(super) fn replay(
        &mut self,
        point: &Point,
        trial: &TrialFinished,
    ) -> Result<(), SessionError> {
        self.tally.count(trial.cached);
        let outcome = TrialOutcome::of(trial);
        self.search.tell(point, told(&outcome))?;
        let seen = trial.point.as_ref().zip(outcome.measurement()).map(|(point, measurement)| {
            archive::point(&point.config, &trial.origin, measurement, &self.request.limits)
        });
        if let Some(measurement) = outcome.measurement()
            && trial.origin == BASELINE
        {
            self.archive.baseline.clone_from(&seen);
            self.learn_images(measurement);
        }
        if let (TrialOutcome::Measured(measurement), Some(seen)) = (outcome, seen) {
            self.archive.add(seen, measurement, &self.request.objectives);
        }
        Ok(())
    }

    /// Tells the search all results of earlier sessions that it has not proposed again. Other
    /// limits, another budget or a damaged line lead to other proposals, and what was measured
    /// counts all the same. Results outside of the space that is searched now are left out.
    pub(super) fn absorb(&mut self, events: &mut EventSink<'_>) -> Result<(), SessionError> {
        let rest = self.journaled.take_all();
        let mut outside = 0;
        for trial in rest {
            let point = trial.configuration().map(|configuration| {
                let point = self.space.closest(configuration);
                (self.space.decode(&point) == *configuration).then_some(point)
            });
            match point.flatten() {
                Some(point) => self.replay(&point, &trial)?,
                None => {
                    self.tally.count(trial.cached);
                    outside += 1;
                }
            }
        }
        if outside > 0 {
            let text = format!(
                "{outside} earlier trials are outside of the space that is searched now, and do not count"
            );
            events.send(Event::Notice { text })?;
        }
        Ok(())
    }

    /// Measures a proposal and tells the search the result.
    pub(super) fn measure(
        &mut self,
        proposal: &Proposal,
        events: &mut EventSink<'_>,
    ) -> Result<(), SessionError> {
        let begun = Instant::now();
        let configuration = self.space.decode(&proposal.point);
        let id = configuration.id();
        let number = self.tally.next();
        events.send(Event::TrialStarted {
            number,
            id: id.clone(),
            origin: proposal.origin.clone(),
        })?;
        let first = proposal.origin == BASELINE;
        let TrialResult { outcome, cached } = if first {
            self.measure_baseline(&configuration, events)?
        } else {
            self.trial(&configuration, &self.archive.stop_criteria(&self.request), events)?
        };
        self.search.tell(&proposal.point, told(&outcome))?;
        self.tally.count(cached);
        let mut point = None;
        let (mut entered, mut displaced) = (false, Vec::new());
        if let TrialOutcome::Measured(measurement) = &outcome {
            let seen =
                archive::point(&configuration, &proposal.origin, measurement, &self.request.limits);
            (entered, displaced) =
                self.archive.add(seen.clone(), *measurement, &self.request.objectives);
            point = Some(seen);
        }
        if first {
            self.archive.baseline.clone_from(&point);
        }
        self.bundles.update(&id, entered, &displaced);
        let best = self.archive.best(&self.request);
        let point =
            point.map(|point| FrontPoint { best: best.as_ref() == Some(&point.id), ..point });
        if !cached && !first {
            self.tally.trial_seconds += begun.elapsed().as_secs_f64();
        }
        let failure = outcome.failure();
        events.send(Event::TrialFinished(Box::new(TrialFinished {
            number,
            id,
            origin: proposal.origin.clone(),
            config: point.is_none().then_some(configuration),
            point,
            failure_kind: failure.map(|failure| failure.kind),
            failure: failure.map(|failure| failure.message.clone()),
            cached,
            partial: outcome.partial(),
            known: outcome.measurement().copied(),
            seconds: begun.elapsed().as_secs_f64(),
            elapsed: self.tally.elapsed(),
            hypervolume: self.archive.hypervolume(&self.request.objectives),
            entered,
            displaced,
            undisturbed: self.runner.undisturbed,
            baseline: self.archive.baseline.as_ref().map(|point| point.metrics),
        })))
    }

    /// Measures the baseline, in two steps: its latency decides how many images are affordable, and
    /// then its score is completed.
    fn measure_baseline(
        &mut self,
        configuration: &Configuration,
        events: &mut EventSink<'_>,
    ) -> Result<TrialResult, SessionError> {
        let criteria = StopCriteria::default();
        let first = self.trial(configuration, &criteria, events)?;
        if let TrialOutcome::Failed(failure) = first.outcome {
            return Err(SessionError::Baseline(failure.message));
        }
        let Some(measurement) = first.outcome.measurement() else { return Ok(first) };
        self.learn_images(measurement);
        let complete = self.trial(configuration, &criteria, events)?;
        Ok(TrialResult { cached: first.cached && complete.cached, ..complete })
    }

    /// Measures a configuration and reports the stages of the trial as events.
    pub(super) fn trial(
        &mut self,
        configuration: &Configuration,
        criteria: &StopCriteria,
        events: &mut EventSink<'_>,
    ) -> Result<TrialResult, SessionError> {
        let id = configuration.id();
        let control = self.control;
        let (runner, host) = (&mut self.runner, &mut self.host);
        let result = events.during(|send| {
            let mut see = |reply: &Reply| match reply {
                Reply::Preparing { task, fraction } => {
                    send(Event::Preparing { task: task.clone(), fraction: *fraction });
                }
                Reply::Stage { stage } => {
                    send(Event::Stage { id: id.clone(), stage: stage.clone() })
                }
                _ => {}
            };
            runner.trial(host, configuration, criteria, &mut see, &|| control.stopped())
        })?;
        result.map_err(|error| match error {
            TrialError::Store(error) => error.into(),
            TrialError::Host(error) => SessionError::Worker(error),
        })
    }

    /// Sets the number of search images of a complete score from the baseline's recorded latency:
    /// about one hundredth of the budget per candidate, in steps coarse enough to be stable.
    fn learn_images(&mut self, baseline: &Measurement) {
        if self.runner.images > 0 {
            return;
        }
        let budget = &self.request.budget;
        #[expect(clippy::cast_precision_loss, reason = "a number of trials")]
        let seconds = match (budget.seconds, budget.trials) {
            (Some(seconds), _) => (seconds / 100.0).clamp(1.0, 8.0),
            (None, trials) => trials.map_or(3.0, |trials| (trials as f64 / 30.0).clamp(0.3, 3.0)),
        };
        let affordable = seconds / baseline.latency[0].max(1e-7);
        let steps = [4096_u32, 2048, 1024];
        let images = steps.into_iter().find(|step| f64::from(*step) <= affordable).unwrap_or(512);
        self.runner.images = u64::from(images).min(self.search_images);
        self.runner.most_images = (UNDECIDED * u64::from(images)).min(self.search_images);
    }
}

/// Converts the outcome of a trial to that of the search crate.
fn told(outcome: &TrialOutcome) -> Outcome {
    match outcome {
        TrialOutcome::Measured(measurement) | TrialOutcome::Dropped(measurement) => {
            let ends = |end: fn(Estimate) -> f64| -> Vec<f64> {
                Metric::ALL
                    .map(|metric| measurement.estimate(metric).map_or(f64::NAN, end))
                    .to_vec()
            };
            Outcome::Measured {
                values: ends(|estimate| estimate.value),
                low: ends(|estimate| estimate.low),
                high: ends(|estimate| estimate.high),
            }
        }
        TrialOutcome::Rejected(seen) => {
            Outcome::Dropped { values: Metric::ALL.map(|metric| seen.get(metric)).to_vec() }
        }
        TrialOutcome::Failed(failure) => Outcome::Failed { reason: failure.message.clone() },
    }
}
