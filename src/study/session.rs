//! One session of a study: from a request to a front.
//!
//! A study is resumed by replaying it: the search starts again from its seed, and results known to
//! the journal or the store are told to it without a measurement. A killed study so continues
//! exactly where it stopped, and its outcome does not depend on the number of interruptions. If the
//! request has changed, the search proposes something else at some point. It is then told the rest
//! of the journal as it is, so that nothing that was measured is lost.

mod archive;
mod bundles;
mod control;
mod device_loss;
mod events;
mod finalize;
mod journaled;
mod tally;
mod trial;

use std::collections::BTreeSet;
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use paretune_db::Store;
use paretune_evaluate::host::{Host, HostOptions};
use paretune_joint_space::seeds::seeds;
use paretune_kernels::hardware;
use paretune_model::Network;
use paretune_record::again::LOCK;
use paretune_record::artefact;
use paretune_record::budget::Budget;
use paretune_record::event::{Event, Started};
use paretune_record::front::{BASELINE, FRONT, Front};
use paretune_record::journal::{JOURNAL, Journal, Past, Settings};
use paretune_record::metric::Metric;
use paretune_record::preference::Preference;
use paretune_record::request::{STUDY, StudyFile, StudyRequest};
use paretune_record::stop::StopReason;
use paretune_search::{Problem, Search};
use paretune_spaces::CompiledSpace;

use super::additive::{Additive, Shared};
use super::bounds;
use super::confirm;
use super::error::SessionError;
use super::prepare::{Material, PrepareError, space_of};
use super::survey::{Pace, Surveyor};
use super::trial::TrialRunner;
use archive::Archive;
use bundles::CandidateBundles;
use events::EventSink;
use journaled::Journaled;
use tally::Tally;

pub use control::Control;

/// Request, folders and worker settings of a session.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// The request that the study answers.
    pub request: StudyRequest,
    /// Folder that holds the study's files.
    pub folder: PathBuf,
    /// Folder of the result store.
    pub store: PathBuf,
    /// Settings for starting worker processes.
    pub host: HostOptions,
    /// Time limit of one trial.
    pub trial_deadline: Duration,
}

/// The end of a session.
#[derive(Clone, Debug)]
pub struct Conclusion {
    /// The front that `front.json` holds.
    pub front: Front,
    /// Criterion of the best point, which may have been changed on the screen.
    pub prefer: Preference,
    /// Whether the session was interrupted from outside.
    pub interrupted: bool,
}

/// Runs a session to its end and passes every event to `see`.
///
/// # Errors
/// Fails if the session cannot continue. Failures of single candidates are recorded instead.
pub fn run(
    options: &SessionOptions,
    material: &Material,
    control: &Control,
    see: &mut dyn FnMut(&Event),
) -> Result<Conclusion, SessionError> {
    let begun = Instant::now();
    let wrong = |problem: String| SessionError::Folder {
        path: options.folder.display().to_string(),
        problem,
    };
    std::fs::create_dir_all(&options.folder).map_err(|error| wrong(error.to_string()))?;
    unclaimed(&options.folder).map_err(wrong)?;
    let _lock = lock(&options.folder).map_err(wrong)?;
    let (journal, past) =
        Journal::open(&options.folder).map_err(|error| wrong(error.to_string()))?;
    let mut file = material.store(&options.folder, &options.request)?;
    file.share_layers(&options.folder, &options.store).map_err(PrepareError::from)?;
    let asked = file.clone();
    let held = changed_before(&options.request, &past);
    if let Some(held) = &held {
        held.apply(&mut file.request);
        file.write(&options.folder).map_err(PrepareError::from)?;
    }
    let request = &file.request.clone();
    let workload = file.workload(&options.folder);
    let hardware = hardware::detect();
    let space = Arc::new(
        space_of(&material.network, &request.threads, &request.backends, request.space.as_ref())?
            .compile()?,
    );
    for folder in [&options.folder, &workload.artefacts, &workload.layers] {
        artefact::sweep(folder);
    }
    let store = Store::open(&options.store)?;
    let mut events = EventSink { journal, see, folder: &options.folder };

    let started = Started {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        model: material.network.name.clone(),
        model_sha256: material.network.sha256.clone(),
        hardware: hardware.id.clone(),
        cpu: hardware.cpu.clone(),
        objectives: request.objectives.clone(),
        prefer: request.prefer,
        limits: request.limits.clone(),
        budget: request.budget.to_string(),
        budget_seconds: request.budget.seconds,
        budget_trials: request.budget.trials,
        strategy: request.strategy.clone(),
        seed: request.seed,
        parameters: space.parameters().len() as u64,
        log10_configurations: space.log10_len(),
        resumed_trials: past.trials.len() as u64,
        resumed_seconds: past.seconds,
        begun: std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .ok()
            .map(|since| since.as_secs_f64()),
        devices: hardware.devices.clone(),
        study: Some(Box::new(asked)),
    };
    events.send(Event::Started(Box::new(started)))?;
    for notice in store.notices() {
        events.send(Event::Notice { text: notice })?;
    }
    if held.is_some() {
        let text = "limits, preference and budget that were set on the screen still hold; other \
                    options of the command replace them";
        events.send(Event::Notice { text: text.to_owned() })?;
    }
    if past.damaged_lines > 0 {
        let text =
            format!("{} damaged line(s) of the journal were passed over", past.damaged_lines);
        events.send(Event::Notice { text })?;
    }

    let shared = Arc::new(Mutex::new(Shared {
        survey: past.survey,
        prefer: request.prefer,
        ..Shared::default()
    }));
    let search = start_search(&space, request, &shared)?;
    let baseline = seeds(&space).into_iter().find(|seed| seed.origin == BASELINE);

    let mut runner = TrialRunner::new(&store, workload.clone(), hardware.id.clone())?;
    runner.deadline = options.trial_deadline;
    runner.devices = request.backends.iter().filter(|backend| *backend != "cpu").cloned().collect();
    let candidates = runner.workload.artefacts.join(CANDIDATES);
    runner.candidates = Some(candidates.clone());
    runner.baseline = baseline.map(|seed| space.decode(&seed.point).id());
    let mut tally = Tally::new(begun, past.seconds);
    tally.latest = past.trials.iter().map(|trial| trial.number).max().unwrap_or(0);
    let resumed = !past.trials.is_empty();
    let mut session = Session {
        options,
        request: request.clone(),
        file,
        control,
        network: &material.network,
        search_images: material.dataset.search.len() as u64,
        backends: request.backends.clone(),
        space,
        search,
        shared,
        runner,
        host: Host::new(options.host.clone(), workload),
        journaled: Journaled::new(past.trials),
        resumed,
        archive: Archive::default(),
        bundles: CandidateBundles::new(candidates),
        keep: BTreeSet::new(),
        tally,
    };
    let (reason, measure, (front, dominated)) = loop {
        let reason = session.search_all(&mut events)?;
        session.absorb(&mut events)?;
        let measure = !matches!(reason, StopReason::Interrupted | StopReason::DeviceLost);
        let error = match session.finalize(&mut events, material, &hardware, measure) {
            Ok(finished) => break (reason, measure, finished),
            Err(error) => error,
        };
        // If a device is lost during the final measurements, the search continues on the other
        // backends for the rest of the budget and confirms its front again.
        if let Some(reason) = session.carry_on(error, &mut events)? {
            break (reason, false, session.finalize(&mut events, material, &hardware, false)?);
        }
    };
    let interrupted = reason == StopReason::Interrupted;
    // The best point is always timed step by step, because later views have only the journal to
    // read from.
    if let Some(best) = front.points.iter().find(|point| point.best && measure) {
        session.inspect(&best.id, &mut events)?;
    }
    write_front(&options.folder, &front).map_err(|error| wrong(error.to_string()))?;
    events.send(Event::Finished { reason, front: Box::new(front.clone()), dominated })?;
    Ok(Conclusion { front, prefer: session.request.prefer, interrupted })
}

/// Returns the limits, preference and budget that an earlier session was given on the screen, if
/// the study is asked for again as it was before them.
fn changed_before(request: &StudyRequest, past: &Past) -> Option<Settings> {
    let (_, session) = past.sessions.last()?;
    let asked = Settings::of(&session.study.as_ref()?.request);
    let held = past.settings.clone()?;
    (asked == Settings::of(request) && held != asked).then_some(held)
}

/// Creates a search without any results.
fn start_search(
    space: &Arc<CompiledSpace>,
    request: &StudyRequest,
    shared: &Arc<Mutex<Shared>>,
) -> Result<Search, SessionError> {
    let problem = Problem::new(
        Arc::clone(space),
        Metric::ALL.map(|metric| metric.name().to_owned()).to_vec(),
        bounds::search_objectives(&request.objectives),
        bounds::search_limits(&request.limits),
    )?;
    let mut recipes = seeds(space);
    let mut search = if request.strategy == "auto" {
        // The remaining recipes take turns with the strategy's own proposals.
        let later = recipes.split_off(recipes.len().min(FIRST_RECIPES));
        let strategy = Additive::new(Arc::clone(shared), later);
        Search::with_strategy(problem, Box::new(strategy), request.seed)
    } else {
        Search::new(problem, &request.strategy, request.seed)?
    };
    search.enqueue(recipes.into_iter().map(|seed| (seed.point, seed.origin)).collect())?;
    Ok(search)
}

/// Folder of the bundles of points on the front.
const CANDIDATES: &str = "candidates";

/// Number of recipes that are tried before anything else: the baseline, and 8 bits everywhere.
const FIRST_RECIPES: usize = 2;

/// Returns the seconds of `budget` for a survey; `None` if the budget is too small for one.
fn survey_seconds(budget: &Budget) -> Option<f64> {
    match (budget.seconds, budget.trials) {
        (Some(seconds), _) => (seconds >= 15.0).then_some((0.25 * seconds).min(300.0)),
        #[expect(clippy::cast_precision_loss, reason = "a number of trials")]
        (None, Some(trials)) => (trials >= 40).then_some((0.5 * trials as f64).min(120.0)),
        (None, None) => Some(120.0),
    }
}

struct Session<'s> {
    options: &'s SessionOptions,
    /// The request with all changes made so far.
    request: StudyRequest,
    /// The study file as it is on disk.
    file: StudyFile,
    control: &'s Control,
    network: &'s Network,
    /// Number of images in the search part.
    search_images: u64,
    /// Requested backends that are still available.
    backends: Vec<String>,
    space: Arc<CompiledSpace>,
    search: Search,
    /// State shared with the additive strategy.
    shared: Arc<Mutex<Shared>>,
    runner: TrialRunner<'s>,
    host: Host,
    /// Trials of earlier sessions that have not been told to the search yet.
    journaled: Journaled,
    /// Whether results of earlier sessions are still to be reported as one front.
    resumed: bool,
    archive: Archive,
    bundles: CandidateBundles,
    /// Ids of the points that the user wants among the finalists.
    keep: BTreeSet<String>,
    tally: Tally,
}

impl Session<'_> {
    /// Asks for proposals, measures them and tells the results until the budget is spent. Returns
    /// the reason of the end.
    fn search_all(&mut self, events: &mut EventSink<'_>) -> Result<StopReason, SessionError> {
        loop {
            self.obey(events)?;
            if self.resumed && self.journaled.is_empty() {
                self.resumed = false;
                self.tell_settings(events)?;
            }
            let budget = self.request.budget;
            // The final measurements are part of the budget, so their time is reserved.
            let seconds = budget.seconds.map(|seconds| seconds - confirm::reserve(seconds));
            if self.control.stopped() {
                return Ok(StopReason::Interrupted);
            }
            let replaying = !self.journaled.is_empty();
            if budget.trials.is_some_and(|trials| self.tally.trials >= trials) {
                return Ok(StopReason::Budget);
            }
            // The first trial, the baseline, always runs, because every result is compared to it.
            let spent = seconds.is_some_and(|seconds| self.tally.elapsed() >= seconds);
            if spent && self.tally.trials > 0 && !replaying {
                return Ok(StopReason::Budget);
            }
            if let Some(seconds) = self.survey_due() {
                match self.survey(seconds, events) {
                    Ok(()) => {}
                    Err(error) => match self.carry_on(error, events)? {
                        Some(reason) => return Ok(reason),
                        None => continue,
                    },
                }
            }
            let Some(proposal) = self.search.ask(1).into_iter().next() else {
                return Ok(StopReason::Exhausted);
            };
            let id = self.space.decode(&proposal.point).id();
            if let Some(trial) = self.journaled.take(&id) {
                self.replay(&proposal.point, &trial)?;
                continue;
            }
            // From here on the search goes another way than before.
            self.absorb(events)?;
            if spent && self.tally.trials > 0 {
                return Ok(StopReason::Budget);
            }
            match self.measure(&proposal, events) {
                Ok(()) => {}
                Err(error) => {
                    if let Some(reason) = self.carry_on(error, events)? {
                        return Ok(reason);
                    }
                }
            }
        }
    }

    /// Returns the seconds for a survey, if the composing strategy needs one now.
    fn survey_due(&self) -> Option<f64> {
        let request = &self.request;
        let due = request.strategy == "auto"
            && self.tally.trials >= FIRST_RECIPES as u64
            && self.journaled.is_empty()
            && self.shared.lock().is_ok_and(|shared| shared.survey.is_none());
        if due { survey_seconds(&request.budget) } else { None }
    }

    /// Surveys the costs of layers and channel groups.
    fn survey(&mut self, seconds: f64, events: &mut EventSink<'_>) -> Result<(), SessionError> {
        let control = self.control;
        let mut surveyor = Surveyor {
            runner: &mut self.runner,
            host: &mut self.host,
            space: &self.space,
            network: self.network,
            seconds,
            pace: Pace::default(),
            interrupted: &|| control.stopped(),
        };
        let survey = events.during(|send| {
            surveyor.survey(&mut |fraction| {
                send(Event::Preparing { task: "survey of the layers".into(), fraction })
            })
        })??;
        events.send(Event::Surveyed(Box::new(survey.clone())))?;
        if let Ok(mut shared) = self.shared.lock() {
            shared.survey = Some(survey);
        }
        Ok(())
    }
}

/// Checks that `folder` is empty or holds a study, so that nothing of the user's is mixed with one.
fn unclaimed(folder: &Path) -> Result<(), String> {
    let mut entries = std::fs::read_dir(folder).map_err(|error| error.to_string())?.peekable();
    let is_study = [STUDY, JOURNAL, LOCK].iter().any(|name| folder.join(name).exists());
    if is_study || entries.peek().is_none() {
        return Ok(());
    }
    Err("is not empty and holds no study; name another folder with --study".to_owned())
}

/// Locks the folder against a second program while the returned file is open.
fn lock(folder: &Path) -> Result<File, String> {
    let file = File::create(folder.join(LOCK)).map_err(|error| error.to_string())?;
    for attempt in 0.. {
        match file.try_lock() {
            Ok(()) => break,
            // A program that asks whether the study runs holds the lock for a moment.
            Err(TryLockError::WouldBlock) if attempt < 10 => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(TryLockError::WouldBlock) => {
                return Err("another paretune works in it; wait for it, or name another folder \
                            with --study"
                    .into());
            }
            Err(TryLockError::Error(error)) => return Err(error.to_string()),
        }
    }
    Ok(file)
}

fn write_front(folder: &Path, front: &Front) -> io::Result<()> {
    artefact::write_whole(&folder.join(FRONT), &front.to_file()?)
}
