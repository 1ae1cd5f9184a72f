//! Control of a running session by the user: pause, stop, change the request, inspect a point. The
//! session checks for requests between two trials and never waits for anyone.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use paretune_evaluate::host::HostError;
use paretune_evaluate::protocol::{Reply, Request};
use paretune_record::change::Change;
use paretune_record::event::{Changed, Event, Inspected};

use super::events::EventSink;
use super::{Session, start_search};
use crate::error::SessionError;

/// Requests of the user to a running session.
#[derive(Debug, Default)]
pub struct Control {
    /// Ends the session and keeps its results.
    pub stop: AtomicBool,
    /// Starts no further trial; the budget's clock stops meanwhile.
    pub pause: AtomicBool,
    changes: Mutex<Vec<Change>>,
}

impl Control {
    /// Requests a change. It takes effect after the current trial.
    pub fn change(&self, change: Change) {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner).push(change);
    }

    pub(super) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn take(&self) -> Vec<Change> {
        std::mem::take(&mut *self.changes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Seconds for which the steps of a point are timed.
const INSPECTION: f64 = 0.4;

impl Session<'_> {
    /// Applies the requested changes, and waits while the session is paused.
    pub(super) fn obey(&mut self, events: &mut EventSink<'_>) -> Result<(), SessionError> {
        loop {
            self.carry_out(events)?;
            if !self.control.pause.load(Ordering::Relaxed) || self.control.stopped() {
                return Ok(());
            }
            let since = Instant::now();
            std::thread::sleep(Duration::from_millis(50));
            self.tally.earlier -= since.elapsed().as_secs_f64();
        }
    }

    /// Applies the requested changes. Returns whether limits, preference or budget have changed.
    pub(super) fn carry_out(&mut self, events: &mut EventSink<'_>) -> Result<bool, SessionError> {
        let mut changed = false;
        for change in self.control.take() {
            changed |= !matches!(change, Change::Keep(_) | Change::Inspect(_));
            match change {
                Change::Limits(limits) => {
                    self.request.limits = limits;
                    self.judge_again()?;
                }
                Change::Prefer(prefer) => {
                    if let Ok(mut shared) = self.shared.lock() {
                        shared.prefer = prefer;
                    }
                    self.request.prefer = prefer;
                }
                Change::Budget(budget) => self.request.budget = budget,
                Change::Keep(ids) => self.keep = ids,
                Change::Inspect(id) => self.inspect(&id, events)?,
            }
        }
        if changed {
            self.file.request.clone_from(&self.request);
            self.file.write(&self.options.folder).map_err(crate::prepare::PrepareError::from)?;
            self.tell_settings(events)?;
        }
        Ok(changed)
    }

    /// Reports limits, preference and budget with the front under them.
    pub(super) fn tell_settings(&self, events: &mut EventSink<'_>) -> Result<(), SessionError> {
        events.send(Event::Changed(Box::new(Changed {
            limits: self.request.limits.clone(),
            prefer: self.request.prefer,
            budget: self.request.budget.to_string(),
            budget_seconds: self.request.budget.seconds,
            budget_trials: self.request.budget.trials,
            hypervolume: self.archive.hypervolume(&self.request.objectives),
            front: self.archive.front.clone(),
        })))
    }

    /// Starts the search anew under the current limits, from all measured results.
    fn judge_again(&mut self) -> Result<(), SessionError> {
        let mut search = start_search(&self.space, &self.request, &self.shared)?;
        for trial in self.search.history().trials() {
            search.tell(&trial.point, trial.outcome.clone())?;
        }
        self.search = search;
        self.archive.judge_again(&self.request.limits, &self.request.objectives);
        Ok(())
    }

    /// Times every step of the point called `id`, if the session knows it.
    pub(super) fn inspect(
        &mut self,
        id: &str,
        events: &mut EventSink<'_>,
    ) -> Result<(), SessionError> {
        let Some(configuration) = self.archive.configuration(id) else { return Ok(()) };
        let request =
            Request::Inspect { configuration: configuration.clone(), seconds: INSPECTION };
        let control = self.control;
        let deadline = self.options.trial_deadline;
        let devices = &self.runner.devices;
        let interrupted = || control.stopped();
        let answer = self.host.ask_twice(&request, deadline, devices, &mut |_| {}, &interrupted);
        let event = match answer {
            Ok(Reply::Inspected { threads, steps }) => {
                Event::Inspected(Box::new(Inspected { id: id.to_owned(), threads, steps }))
            }
            Ok(other) => Event::Notice { text: format!("unexpected reply: {other:?}") },
            Err(HostError::Interrupted) => return Ok(()),
            Err(error @ HostError::Start(_)) => return Err(SessionError::Worker(error)),
            Err(error) => Event::Notice { text: format!("{id} could not be looked into: {error}") },
        };
        events.send(event)
    }
}
