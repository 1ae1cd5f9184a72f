//! The event sink: writes events to the journal and passes them on.

use std::path::Path;

use paretune_record::event::Event;
use paretune_record::journal::Journal;

use crate::error::SessionError;

/// Receives the events of a session.
pub(super) struct EventSink<'t> {
    pub(super) journal: Journal,
    /// Receives every event after it is in the journal.
    pub(super) see: &'t mut dyn FnMut(&Event),
    /// Folder of the study, for messages.
    pub(super) folder: &'t Path,
}

impl EventSink<'_> {
    /// Writes an event to the journal and passes it on.
    ///
    /// # Errors
    /// Fails if the journal cannot be written.
    pub(super) fn send(&mut self, event: Event) -> Result<(), SessionError> {
        // A later session does not need the progress within a step, so these events are not stored.
        if !matches!(
            event,
            Event::Preparing { .. } | Event::Stage { .. } | Event::Confirming { .. }
        ) {
            self.journal.write(&event).map_err(|error| SessionError::Folder {
                path: self.folder.display().to_string(),
                problem: format!("the journal cannot be written: {error}"),
            })?;
        }
        (self.see)(&event);
        Ok(())
    }

    /// Runs `work` with a function that passes on events. The first error of the journal is
    /// returned after the work.
    ///
    /// # Errors
    /// Fails if an event cannot be written.
    pub(super) fn during<T>(
        &mut self,
        work: impl FnOnce(&mut dyn FnMut(Event)) -> T,
    ) -> Result<T, SessionError> {
        let mut problem = None;
        let result = work(&mut |event| {
            if let Err(error) = self.send(event) {
                problem = Some(error);
            }
        });
        problem.map_or(Ok(result), Err)
    }
}
