//! Reasons for the end of a session.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Reason for the end of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StopReason {
    /// The budget of time or trials is spent.
    #[serde(rename = "budget")]
    Budget,
    /// The user stopped the search.
    #[serde(rename = "interrupted")]
    Interrupted,
    /// Every configuration of the space was tried.
    #[serde(rename = "exhausted")]
    Exhausted,
    /// No backend of the study is left.
    #[serde(rename = "device lost")]
    DeviceLost,
}

impl fmt::Display for StopReason {
    /// Says the reason as a clause: `the search ended: every configuration was tried`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Budget => "budget",
            Self::Interrupted => "interrupted",
            Self::Exhausted => "exhausted",
            Self::DeviceLost => "device lost",
        })
    }
}
