//! Trials of earlier sessions that the search has not heard of yet.

use std::collections::HashMap;

use paretune_record::event::TrialFinished;

/// Trials of earlier sessions, by the content hash of their configurations.
#[derive(Default)]
pub(super) struct Journaled {
    /// Trials with their places in the journal.
    trials: HashMap<String, (usize, TrialFinished)>,
}

impl Journaled {
    /// Gathers the trials of a journal. Of several trials of one configuration, the latest counts,
    /// and one with a measurement before one without.
    pub(super) fn new(trials: Vec<TrialFinished>) -> Self {
        let mut journaled = Self::default();
        for (place, trial) in trials.into_iter().enumerate() {
            let measured = |trial: &TrialFinished| trial.known.is_some() && trial.point.is_some();
            let before = journaled.trials.get(&trial.id);
            if before.is_none_or(|(_, before)| measured(&trial) || !measured(before)) {
                journaled.trials.insert(trial.id.clone(), (place, trial));
            }
        }
        journaled
    }

    /// Returns whether no trial is left.
    pub(super) fn is_empty(&self) -> bool {
        self.trials.is_empty()
    }

    /// Takes the trial of the configuration called `id`.
    pub(super) fn take(&mut self, id: &str) -> Option<TrialFinished> {
        self.trials.remove(id).map(|(_, trial)| trial)
    }

    /// Takes all trials, in the order of the journal.
    pub(super) fn take_all(&mut self) -> Vec<TrialFinished> {
        let mut rest: Vec<(usize, TrialFinished)> =
            self.trials.drain().map(|(_, placed)| placed).collect();
        rest.sort_by_key(|(place, _)| *place);
        rest.into_iter().map(|(_, trial)| trial).collect()
    }

    /// Forgets all trials that `keep` does not accept.
    pub(super) fn retain(&mut self, keep: impl Fn(&TrialFinished) -> bool) {
        self.trials.retain(|_, (_, trial)| keep(trial));
    }
}
