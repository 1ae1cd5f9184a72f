//! Failures of trials, by kind and with a message.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Kind of the failure of a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The candidate could not be compressed, built or loaded.
    Build,
    /// The worker process ended, or sent something that is no reply.
    Crash,
    /// The worker process did not reply in time.
    Timeout,
    /// The candidate computes something else than the reference.
    WrongResult,
}

impl FailureKind {
    const ALL: [Self; 4] = [Self::Build, Self::Crash, Self::Timeout, Self::WrongResult];

    /// Returns the name of the kind, as files have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Build => "build",
            Self::Crash => "crash",
            Self::Timeout => "timeout",
            Self::WrongResult => "wrong_result",
        }
    }

    /// Guesses the kind from a message, for journals and stores that have no kinds.
    #[must_use]
    pub fn of_message(message: &str) -> Self {
        if message.starts_with("no answer within") {
            Self::Timeout
        } else if message.starts_with("the worker process") {
            Self::Crash
        } else if message.contains("not a number") || message.contains("not finite") {
            Self::WrongResult
        } else {
            Self::Build
        }
    }
}

/// Failure of a trial: its kind and a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Kind of the failure, by which people and files count it.
    pub kind: FailureKind,
    /// Message for people: what failed, and where.
    pub message: String,
}

impl Failure {
    /// Creates a failure of this kind.
    #[must_use]
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// Writes kind and message as one text, for the result store.
    #[must_use]
    pub fn to_text(&self) -> String {
        format!("{}: {}", self.kind.name(), self.message)
    }

    /// Reads a text of [`Failure::to_text`], or a message of an older store.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        let split = text.split_once(": ").and_then(|(name, message)| {
            let kind = FailureKind::ALL.into_iter().find(|kind| kind.name() == name)?;
            Some(Self::new(kind, message))
        });
        split.unwrap_or_else(|| Self::new(FailureKind::of_message(text), text))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_stored_with_their_kind_and_old_ones_are_classified() {
        let failure = Failure::new(FailureKind::WrongResult, "step `a`: off by 3");
        assert_eq!(Failure::from_text(&failure.to_text()), failure);
        let old = Failure::from_text("no answer within 120 s; the worker process was killed");
        assert_eq!(old.kind, FailureKind::Timeout);
        assert!(old.message.starts_with("no answer"));
        assert_eq!(Failure::from_text("the worker process ended: 9").kind, FailureKind::Crash);
        assert_eq!(Failure::from_text("step `a`: too large").kind, FailureKind::Build);
    }
}
