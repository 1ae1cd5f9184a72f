//! Bundles of candidates on the front, kept for the final measurements.

use std::collections::VecDeque;
use std::path::PathBuf;

use paretune_record::artefact;

/// Largest number of bundles that are kept.
const KEPT: usize = 16;

/// Bundles that trials have left behind.
pub(super) struct CandidateBundles {
    /// Folder that holds one folder for each bundle, named by the id of its configuration.
    folder: PathBuf,
    /// Ids of the kept bundles, latest last.
    kept: VecDeque<String>,
}

impl CandidateBundles {
    /// Starts without bundles in `folder`.
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder, kept: VecDeque::new() }
    }

    /// Keeps the bundle of the latest trial, called `id`, if it has `entered` the front. Discards
    /// the bundles of `displaced` points and the oldest beyond the limit; a discarded bundle is
    /// built again when it is needed.
    pub(super) fn update(&mut self, id: &str, entered: bool, displaced: &[String]) {
        self.kept.push_back(id.to_owned());
        let surplus = self.kept.len().saturating_sub(KEPT);
        let mut unwanted: Vec<String> = self.kept.drain(..surplus).collect();
        unwanted.extend(displaced.iter().cloned());
        if !entered {
            unwanted.extend(self.kept.pop_back());
        }
        self.kept.retain(|known| !unwanted.contains(known));
        for known in unwanted {
            artefact::discard(&self.folder.join(known));
        }
    }
}
