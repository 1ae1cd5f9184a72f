//! The end of a session: finalists are chosen, fine-tuned if requested, and measured again.

use std::time::Duration;

use paretune_evaluate::host::HostError;
use paretune_evaluate::stop::StopCriteria;
use paretune_joint_space::decode::numerics;
use paretune_kernels::hardware::Hardware;
use paretune_names::FINETUNE;
use paretune_record::archive;
use paretune_record::event::Event;
use paretune_record::front::{Front, FrontPoint};
use paretune_spaces::Value;

use super::super::confirm::{self, accuracy_of};
use super::super::prepare::Material;
use super::super::trial::{TrialOutcome, TrialResult};
use super::Session;
use super::events::EventSink;
use crate::error::SessionError;

/// Largest number of points that are measured again at the end.
const FINALISTS: usize = 12;

impl Session<'_> {
    /// Returns how many points can be measured again in the time left. Each takes about as long as
    /// a trial.
    fn finalists(&self) -> usize {
        let Some(seconds) = self.request.budget.seconds else { return FINALISTS };
        let left = (seconds - self.tally.elapsed()).max(0.0);
        #[expect(clippy::cast_precision_loss, reason = "a number of trials")]
        let each = (self.tally.trial_seconds
            / (self.tally.trials - self.tally.cached).max(1) as f64)
            .max(1e-3);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
        let affordable = (left / each).clamp(0.0, 1e3) as usize;
        affordable.clamp(4, FINALISTS)
    }

    /// Fine-tunes `point` and measures it like any trial. Returns `None` if its network is not
    /// compressed or if training made it worse on the search images.
    fn finetuned(
        &mut self,
        point: &FrontPoint,
        events: &mut EventSink<'_>,
    ) -> Result<Option<FrontPoint>, SessionError> {
        let baseline = self.archive.baseline.as_ref().map(|baseline| numerics(&baseline.config));
        if self.control.stopped()
            || baseline.is_some_and(|baseline| baseline == numerics(&point.config))
        {
            return Ok(None);
        }
        let seconds = self.request.finetune;
        let mut configuration = point.config.clone();
        configuration
            .insert(FINETUNE.to_owned(), Value::Int(i64::try_from(seconds).unwrap_or(i64::MAX)));
        let patient = self.runner.deadline;
        // Starting and validating the training need time as well.
        self.runner.deadline = patient + Duration::from_secs(2 * seconds);
        let answered = self.trial(&configuration, &StopCriteria::default(), events);
        self.runner.deadline = patient;
        match answered {
            Ok(TrialResult { outcome: TrialOutcome::Measured(known), .. }) => {
                let origin = format!("{}, fine-tuned", point.origin);
                let tuned = archive::point(&configuration, &origin, &known, &self.request.limits);
                Ok((accuracy_of(&tuned) >= accuracy_of(point)).then_some(tuned))
            }
            Ok(TrialResult { outcome: TrialOutcome::Failed(reason), .. }) => {
                let text = format!("point {} could not be fine-tuned: {reason}", point.id);
                events.send(Event::Notice { text })?;
                Ok(None)
            }
            Ok(_) | Err(SessionError::Worker(HostError::Interrupted)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Measures the finalists, or only collects known figures if `measure` is false, and builds the
    /// front of the study. Returns it with the points that are measured and not on it.
    pub(super) fn finalize(
        &mut self,
        events: &mut EventSink<'_>,
        material: &Material,
        hardware: &Hardware,
        measure: bool,
    ) -> Result<(Front, Vec<FrontPoint>), SessionError> {
        self.carry_out(events)?;
        let request = &self.request.clone();
        let additivity = self.shared.lock().ok().and_then(|shared| shared.additivity());
        if let Some(text) = additivity {
            events.send(Event::Notice { text })?;
        }
        let chosen = archive::representatives(
            &self.archive.front,
            self.finalists(),
            request.prefer,
            &request.objectives,
        );
        let mut finalists: Vec<FrontPoint> =
            chosen.into_iter().map(|index| self.archive.front[index].clone()).collect();
        // Points that the user has marked are finalists while they are on the front.
        for point in self.archive.front.iter().filter(|point| self.keep.contains(&point.id)) {
            if finalists.iter().all(|other| other.id != point.id) {
                finalists.insert(finalists.len().min(1), point.clone());
            }
        }
        // The baseline is measured together with the finalists, so that they compare.
        if let Some(baseline) = &self.archive.baseline
            && finalists.iter().all(|point| point.id != baseline.id)
        {
            finalists.insert(0, baseline.clone());
        }
        let seconds = match request.budget.seconds {
            Some(seconds) => confirm::reserve(seconds).min(seconds - self.tally.elapsed()).max(2.0),
            None => confirm::without_clock(request.budget.trials),
        };
        if request.finetune > 0 && measure {
            for point in &mut finalists {
                if let Some(tuned) = self.finetuned(point, events)? {
                    *point = tuned;
                }
            }
        }
        let mut confirmation = confirm::Confirmation {
            runner: &self.runner,
            host: &mut self.host,
            request,
            seconds,
            measure,
        };
        let control = self.control;
        let mut points = events
            .during(|send| confirmation.confirm(&finalists, send, &|| control.stopped()))??;
        // The user may have changed limits or preference meanwhile.
        if self.carry_out(events)? {
            for candidate in &mut points {
                candidate.point = archive::judge(&candidate.point, &self.request.limits);
            }
        }
        let baseline =
            self.archive.baseline.as_ref().map(|point| point.metrics).unwrap_or_default();
        Ok(confirm::front_of(
            &points,
            &confirm::Frame {
                network: &material.network,
                hardware,
                request: &self.request,
                baseline,
                trials: self.tally.trials,
                cached: self.tally.cached,
                seconds: self.tally.elapsed(),
            },
        ))
    }
}
