//! Handles the loss of a device: the session continues with the other backends. Measurements on the
//! lost device stay in the journal and the store only.

use std::sync::Arc;

use paretune_evaluate::host::HostError;
use paretune_names::{BACKEND, Partition};
use paretune_record::event::Event;
use paretune_record::stop::StopReason;
use paretune_spaces::{Configuration, Value};

use super::events::EventSink;
use super::{Session, space_of, start_search};
use crate::error::SessionError;

impl Session<'_> {
    /// Decides the consequence of an error: `None` if the session can continue, else the reason of
    /// its end.
    pub(super) fn carry_on(
        &mut self,
        error: SessionError,
        events: &mut EventSink<'_>,
    ) -> Result<Option<StopReason>, SessionError> {
        match error {
            SessionError::Worker(HostError::Interrupted) => Ok(Some(StopReason::Interrupted)),
            SessionError::Worker(HostError::DeviceLost { backend, reason }) => {
                self.lose(&backend, &reason, events)
            }
            error => Err(error),
        }
    }

    /// Starts the search anew without `backend`, from all results on the other backends.
    fn lose(
        &mut self,
        backend: &str,
        reason: &str,
        events: &mut EventSink<'_>,
    ) -> Result<Option<StopReason>, SessionError> {
        self.backends.retain(|other| other != backend);
        self.runner.devices.retain(|other| other != backend);
        if self.backends.is_empty() {
            events.send(Event::Notice {
                text: format!("{backend} is lost, and nothing else may be used: {reason}"),
            })?;
            return Ok(Some(StopReason::DeviceLost));
        }
        let left = self.backends.join(", ");
        let file = self.request.space.as_ref();
        let space = space_of(self.network, &self.request.threads, &self.backends, file);
        let space = match space.map_err(SessionError::from).and_then(|space| Ok(space.compile()?)) {
            Ok(space) => Arc::new(space),
            // The space is empty, for example if the user narrowed it to the lost backend.
            Err(error) => {
                let text = format!(
                    "{backend} is lost, and nothing can be done without it: {error} ({reason})"
                );
                events.send(Event::Notice { text })?;
                return Ok(Some(StopReason::DeviceLost));
            }
        };
        let text = format!("{backend} is lost; the search goes on with {left} alone: {reason}");
        events.send(Event::Notice { text })?;
        if let Ok(mut shared) = self.shared.lock() {
            // The layer times of a survey are those of one backend.
            match shared.survey.as_mut().filter(|survey| !names(&survey.backend, backend)) {
                Some(survey) => survey.mixed.retain(|mixed| !names(&mixed.backend, backend)),
                None => shared.survey = None,
            }
        }
        let mut search = start_search(&space, &self.request, &self.shared)?;
        for trial in self.search.history().trials() {
            let configuration = self.space.decode(&trial.point);
            let point = space.closest(&configuration);
            if space.decode(&point) == configuration {
                search.tell(&point, trial.outcome.clone())?;
            }
        }
        (self.search, self.space) = (search, space);
        let elsewhere = |configuration: &Configuration| !runs_on(configuration, backend);
        self.archive.retain(elsewhere);
        self.journaled.retain(|trial| trial.configuration().is_none_or(elsewhere));
        self.archive.judge_again(&self.request.limits, &self.request.objectives);
        Ok(None)
    }
}

fn runs_on(configuration: &Configuration, backend: &str) -> bool {
    configuration.get(BACKEND).and_then(Value::as_str).is_some_and(|value| names(value, backend))
}

/// Returns whether `value` of the parameter [`BACKEND`] runs layers on `backend`.
fn names(value: &str, backend: &str) -> bool {
    match Partition::read(value) {
        Some(partition) => partition.first == backend || partition.second == backend,
        None => value == backend,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_sides_needs_both() {
        assert!(
            names("cpu then opencl at 3", "opencl") && names("opencl then cpu at 3 to 7", "opencl")
        );
        assert!(names("opencl:A/B then cpu at 1", "opencl:A/B") && names("opencl", "opencl"));
        assert!(!names("cpu", "opencl") && !names("cpu then opencl:A/B at 1", "opencl"));
    }
}
