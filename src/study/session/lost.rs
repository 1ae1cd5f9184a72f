//! What becomes of a session whose device is lost: it goes on with the backends that are left, and what was measured on the
//! device stays in journal and store alone.

use std::sync::Arc;

use paretune_spaces::{Configuration, Value};

use super::super::archive;
use super::super::event::Event;
use super::{HostError, Session, SessionError, Teller, space_of, start_search};
use crate::evaluate::candidate::{BACKEND, Sides};

/// Why a session ended whose last backend was lost.
pub(super) const ENDED: &str = "device lost";

impl Session<'_> {
    /// What an error means for the session: `None` where it can go on, else why it ends.
    pub(super) fn carry_on(
        &mut self,
        error: SessionError,
        teller: &mut Teller<'_>,
    ) -> Result<Option<&'static str>, SessionError> {
        match error {
            SessionError::Worker(HostError::Interrupted) => Ok(Some("interrupted")),
            SessionError::Worker(HostError::DeviceLost { backend, reason }) => {
                self.lose(&backend, &reason, teller)
            }
            error => Err(error),
        }
    }

    /// Starts the search anew without `backend`, knowing all that was measured elsewhere.
    fn lose(
        &mut self,
        backend: &str,
        reason: &str,
        teller: &mut Teller<'_>,
    ) -> Result<Option<&'static str>, SessionError> {
        self.backends.retain(|other| other != backend);
        self.bench.devices.retain(|other| other != backend);
        if self.backends.is_empty() {
            teller.tell(Event::Notice {
                text: format!("{backend} is lost, and nothing else may be used: {reason}"),
            })?;
            return Ok(Some(ENDED));
        }
        let left = self.backends.join(", ");
        let file = self.request.space.as_ref();
        let space = space_of(self.network, &self.request.threads, &self.backends, file);
        let space = match space.map_err(SessionError::from).and_then(|space| Ok(space.compile()?)) {
            Ok(space) => Arc::new(space),
            // As where the space was narrowed to what is lost.
            Err(error) => {
                let text =
                    format!("{backend} is lost, and nothing can be done without it: {error} ({reason})");
                teller.tell(Event::Notice { text })?;
                return Ok(Some(ENDED));
            }
        };
        let text = format!("{backend} is lost; the search goes on with {left} alone: {reason}");
        teller.tell(Event::Notice { text })?;
        if let Ok(mut shared) = self.shared.lock() {
            // Times of layers are those of one backend.
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
        self.whole.retain(|(configuration, ..)| elsewhere(configuration));
        self.untouched = self.untouched.take().filter(|point| elsewhere(&point.config));
        self.memory.retain(|_, trial| {
            let configuration = trial.point.as_ref().map(|point| &point.config).or(trial.config.as_ref());
            configuration.is_none_or(elsewhere)
        });
        self.front.clear();
        let limits = &self.request.limits;
        let points: Vec<_> = self
            .whole
            .iter()
            .map(|(configuration, origin, known)| archive::point(configuration, origin, known, limits))
            .collect();
        for point in points {
            self.enter(Some(point));
        }
        Ok(None)
    }
}

fn runs_on(configuration: &Configuration, backend: &str) -> bool {
    configuration.get(BACKEND).and_then(Value::as_str).is_some_and(|value| names(value, backend))
}

/// Whether `value`, of the parameter that names backends, has a part for `backend`.
fn names(value: &str, backend: &str) -> bool {
    match Sides::read(value) {
        Some(sides) => sides.first == backend || sides.second == backend,
        None => value == backend,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_sides_needs_both() {
        assert!(names("cpu then opencl at 3", "opencl") && names("opencl then cpu at 3 to 7", "opencl"));
        assert!(names("opencl:A/B then cpu at 1", "opencl:A/B") && names("opencl", "opencl"));
        assert!(!names("cpu", "opencl") && !names("cpu then opencl:A/B at 1", "opencl"));
    }
}
