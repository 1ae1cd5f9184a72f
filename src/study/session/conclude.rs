//! The end of a session: finalists are chosen, fine-tuned if requested, and measured again.

use std::time::Duration;

use paretune_joint_space::decode::numerics;
use paretune_kernels::hardware::Hardware;
use paretune_names::FINETUNE;
use paretune_record::archive;
use paretune_record::event::Event;
use paretune_record::front::{Front, FrontPoint, Metrics};
use paretune_spaces::Value;

use super::super::confirm;
use super::super::prepare::Material;
use super::super::trial::{Answer, Answered, Hopeless};
use super::{HostError, Session, SessionError, Teller};

/// Largest number of points that are measured again at the end.
const FINALISTS: usize = 12;

impl Session<'_> {
    /// Returns how many points can be measured again in the time left. Each takes about as long as
    /// a trial.
    fn finalists(&self) -> usize {
        let Some(seconds) = self.request.budget.seconds else { return FINALISTS };
        let left = (seconds - self.clock.elapsed()).max(0.0);
        #[expect(clippy::cast_precision_loss, reason = "a number of trials")]
        let each = (self.trial_seconds / (self.trials - self.cached).max(1) as f64).max(1e-3);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
        let affordable = (left / each).clamp(0.0, 1e3) as usize;
        affordable.clamp(4, FINALISTS)
    }

    /// Fine-tunes `point` and measures it like any trial. Returns `None` if its network is not
    /// compressed or if training made it worse on the search images.
    fn finetuned(
        &mut self,
        point: &FrontPoint,
        teller: &mut Teller<'_>,
    ) -> Result<Option<FrontPoint>, SessionError> {
        let untouched = self.untouched.as_ref().map(|untouched| numerics(&untouched.config));
        if self.control.stopped() || untouched.is_some_and(|untouched| untouched == numerics(&point.config)) {
            return Ok(None);
        }
        let seconds = self.request.finetune;
        let mut configuration = point.config.clone();
        configuration.insert(FINETUNE.to_owned(), Value::Int(i64::try_from(seconds).unwrap_or(i64::MAX)));
        let patient = self.bench.deadline;
        // Starting and validating the training need time as well.
        self.bench.deadline = patient + Duration::from_secs(2 * seconds);
        let answered = self.answer(&configuration, &Hopeless::default(), teller);
        self.bench.deadline = patient;
        match answered {
            Ok(Answered { answer: Answer::Whole(known), .. }) => {
                let origin = format!("{}, fine-tuned", point.origin);
                let tuned = archive::point(&configuration, &origin, &known, &self.request.limits);
                Ok((tuned.metrics.accuracy >= point.metrics.accuracy).then_some(tuned))
            }
            Ok(Answered { answer: Answer::Failed(reason), .. }) => {
                let text = format!("point {} could not be fine-tuned: {reason}", point.id);
                teller.tell(Event::Notice { text })?;
                Ok(None)
            }
            Ok(_) | Err(SessionError::Worker(HostError::Interrupted)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Measures the finalists, or only collects known figures if `measure` is false, and builds the
    /// front of the study.
    pub(super) fn conclude(
        &mut self,
        teller: &mut Teller<'_>,
        material: &Material,
        hardware: &Hardware,
        measure: bool,
    ) -> Result<Front, SessionError> {
        let request = &self.request.clone();
        let additivity = self.shared.lock().ok().and_then(|shared| shared.additivity());
        if let Some(text) = additivity {
            teller.tell(Event::Notice { text })?;
        }
        let chosen =
            archive::representatives(&self.front, self.finalists(), &request.prefer, &request.objectives);
        let mut finalists: Vec<FrontPoint> =
            chosen.into_iter().map(|index| self.front[index].clone()).collect();
        // Points that the user has marked are finalists while they are on the front.
        for point in self.front.iter().filter(|point| self.keep.contains(&point.id)) {
            if finalists.iter().all(|other| other.id != point.id) {
                finalists.insert(finalists.len().min(1), point.clone());
            }
        }
        // The baseline is measured together with the finalists, so that they compare.
        if let Some(untouched) = &self.untouched
            && finalists.iter().all(|point| point.id != untouched.id)
        {
            finalists.insert(0, untouched.clone());
        }
        let seconds = match request.budget.seconds {
            Some(seconds) => confirm::reserve(seconds).min(seconds - self.clock.elapsed()).max(2.0),
            None => confirm::without_clock(request.budget.trials),
        };
        if request.finetune > 0 && measure {
            for point in &mut finalists {
                if let Some(tuned) = self.finetuned(point, teller)? {
                    *point = tuned;
                }
            }
        }
        let mut confirmation =
            confirm::Confirmation { bench: &self.bench, host: &mut self.host, request, seconds, measure };
        let mut problem = None;
        let control = self.control;
        let points = confirmation.confirm(
            &finalists,
            &mut |event| {
                if let Err(error) = teller.tell(event) {
                    problem = Some(error);
                }
            },
            &|| control.stopped(),
        )?;
        if let Some(problem) = problem {
            return Err(problem);
        }
        let nothing = Metrics { accuracy: 0.0, latency: 0.0, size: 0.0, memory: 0.0 };
        let baseline = self.untouched.as_ref().map_or(nothing, |point| point.metrics);
        Ok(confirm::front_of(
            &points,
            &confirm::Frame {
                network: &material.network,
                hardware,
                request,
                baseline,
                trials: self.trials,
                cached: self.cached,
                seconds: self.clock.elapsed(),
            },
        ))
    }
}
