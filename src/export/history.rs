//! The trials of a study from its journal, for the formats of other tools.

use std::path::Path;

use paretune_record::event::{Started, TrialFinished};
use paretune_record::journal::Journal;
use paretune_record::limit::Limit;
use paretune_spaces::Configuration;

use super::ExportError;

/// Contents of a study's journal.
pub struct History {
    /// Description of the latest session.
    pub started: Started,
    /// All trials in their order.
    pub trials: Vec<HistoryTrial>,
}

/// A trial with the time when it ran.
pub struct HistoryTrial {
    /// The trial's entry in the journal.
    pub trial: TrialFinished,
    /// Start of the trial in Unix seconds; `None` if the journal does not record it.
    pub begun: Option<f64>,
}

impl History {
    /// Reads the journal of the study in `folder`.
    ///
    /// # Errors
    /// Fails if the journal cannot be read or records no session.
    pub fn read(folder: &Path) -> Result<Self, ExportError> {
        let path = folder.join("journal.jsonl");
        let wrong =
            |problem: String| ExportError::Journal { path: path.display().to_string(), problem };
        let past = Journal::read(folder).map_err(|error| wrong(error.to_string()))?;
        let mut sessions = past.sessions.into_iter().peekable();
        let mut session: Option<Started> = None;
        let mut trials = Vec::with_capacity(past.trials.len());
        for (index, trial) in past.trials.into_iter().enumerate() {
            while let Some((_, started)) = sessions.next_if(|(first, _)| *first <= index) {
                session = Some(started);
            }
            let begun = session.as_ref().and_then(|session| {
                Some(session.begun? + trial.elapsed - trial.seconds - session.resumed_seconds)
            });
            trials.push(HistoryTrial { trial, begun });
        }
        let started = sessions.last().map(|(_, started)| started).or(session);
        Ok(Self { started: started.ok_or_else(|| wrong("has no beginning".into()))?, trials })
    }

    /// Returns the limits of the latest session.
    #[must_use]
    pub fn limits(&self) -> &[Limit] {
        &self.started.limits
    }
}

impl HistoryTrial {
    /// Returns the configuration of the trial, if the journal records it.
    #[must_use]
    pub fn configuration(&self) -> Option<&Configuration> {
        self.trial.configuration()
    }

    /// Returns the end of the trial in Unix seconds.
    #[must_use]
    pub fn ended(&self) -> Option<f64> {
        Some(self.begun? + self.trial.seconds)
    }
}

/// Formats Unix seconds as ISO 8601 in UTC with microseconds. The calendar is H. Hinnant's
/// `civil_from_days`.
#[must_use]
pub fn timestamp(unix: f64) -> String {
    #[expect(clippy::cast_possible_truncation, reason = "times of day fit by far")]
    let micros = (unix.clamp(0.0, 2.5e11) * 1e6).round() as i64;
    let (seconds, micros) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000));
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}+00:00")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_follow_the_calendar() {
        assert_eq!(timestamp(0.0), "1970-01-01T00:00:00.000000+00:00");
        assert_eq!(timestamp(951_827_696.25), "2000-02-29T12:34:56.250000+00:00");
        assert_eq!(timestamp(1_767_225_599.0), "2025-12-31T23:59:59.000000+00:00");
    }
}
