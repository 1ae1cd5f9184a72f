//! The trials of a study as its journal tells them, for the formats of other tools.

use std::path::Path;

use paretune_spaces::Configuration;

use super::ExportError;
use crate::study::event::{Started, TrialFinished};
use crate::study::front::FrontLimit;
use crate::study::journal::Journal;

/// A study's journal, read.
pub struct Record {
    /// The latest session.
    pub started: Started,
    /// Every trial, in its order.
    pub trials: Vec<RecordedTrial>,
}

/// A trial and when it took place.
pub struct RecordedTrial {
    /// What the journal says.
    pub trial: TrialFinished,
    /// Unix seconds of its beginning; `None` where the journal does not tell.
    pub begun: Option<f64>,
}

impl Record {
    /// Reads the journal of the study in `folder`.
    ///
    /// # Errors
    /// Where it cannot be read or has not begun.
    pub fn read(folder: &Path) -> Result<Self, ExportError> {
        let path = folder.join("journal.jsonl");
        let wrong = |problem: String| ExportError::Journal { path: path.display().to_string(), problem };
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
            trials.push(RecordedTrial { trial, begun });
        }
        let started = sessions.last().map(|(_, started)| started).or(session);
        Ok(Self { started: started.ok_or_else(|| wrong("has no beginning".into()))?, trials })
    }

    /// What was asked for.
    #[must_use]
    pub fn limits(&self) -> &[FrontLimit] {
        &self.started.limits
    }
}

impl RecordedTrial {
    /// What was tried, if the journal tells.
    #[must_use]
    pub fn configuration(&self) -> Option<&Configuration> {
        self.trial.point.as_ref().map(|point| &point.config).or(self.trial.config.as_ref())
    }

    /// Unix seconds of its end.
    #[must_use]
    pub fn ended(&self) -> Option<f64> {
        Some(self.begun? + self.trial.seconds)
    }
}

/// Unix seconds as ISO 8601 in UTC, to the microsecond. The calendar is H. Hinnant's `civil_from_days`.
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
