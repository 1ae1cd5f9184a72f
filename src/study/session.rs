//! One session of a study: from a request to a front.
//!
//! A study is resumed by replaying it: the search starts again from its seed, and results known to
//! the journal or the store are told to it without a measurement. A killed study so continues
//! exactly where it stopped, and its outcome does not depend on the number of interruptions.

mod control;
mod device_loss;
mod finalize;
mod front;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use paretune_db::{Store, StoreError};
use paretune_evaluate::host::{Host, HostError, HostOptions};
use paretune_evaluate::protocol::Reply;
use paretune_evaluate::stop::StopCriteria;
use paretune_joint_space::seeds::{BASELINE, seeds};
use paretune_kernels::hardware;
use paretune_model::Network;
use paretune_record::archive;
use paretune_record::artefact;
use paretune_record::budget::Budget;
use paretune_record::event::{Event, Started, TrialFinished};
use paretune_record::front::{Front, FrontPoint};
use paretune_record::journal::Journal;
use paretune_record::measurement::{Estimate, Measurement};
use paretune_record::metric::{Metric, Metrics};
use paretune_record::request::{StudyFile, StudyRequest};
use paretune_record::stop::StopReason;
use paretune_search::{Outcome, Problem, ProblemError, Proposal, Search};
use paretune_spaces::{CompiledSpace, Configuration};

use super::additive::{Additive, Shared};
use super::bounds;
use super::confirm;
use super::prepare::{Material, PrepareError, space_of};
use super::survey::{Pace, Surveyor};
use super::trial::{TrialError, TrialOutcome, TrialResult, TrialRunner};

pub use control::Control;

/// Reason why a session failed as a whole.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The study could not be prepared.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// The space has an error or is empty.
    #[error(transparent)]
    Space(#[from] paretune_spaces::SpaceError),
    /// The search rejected its problem or strategy.
    #[error(transparent)]
    Search(#[from] ProblemError),
    /// The result store cannot be used.
    #[error("result store: {0}")]
    Store(#[from] StoreError),
    /// The worker cannot be started, or it cannot load the workload.
    #[error("{0}")]
    Worker(HostError),
    /// The baseline cannot be measured, so there is nothing to compare to.
    #[error("the baseline network could not be measured: {0}")]
    Baseline(String),
    /// A file in the study's folder cannot be used.
    #[error("study folder `{path}`: {problem}")]
    Folder {
        /// Path of the folder in question.
        path: String,
        /// Description of the problem for the user.
        problem: String,
    },
}

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
    let request = &options.request;
    let wrong =
        |problem: String| SessionError::Folder { path: options.folder.display().to_string(), problem };
    std::fs::create_dir_all(&options.folder).map_err(|error| wrong(error.to_string()))?;
    let _lock = lock(&options.folder).map_err(wrong)?;
    let mut file = material.store(&options.folder, request)?;
    file.share_layers(&options.folder, &options.store).map_err(PrepareError::from)?;
    let workload = file.workload(&options.folder);
    let hardware = hardware::detect();
    let space = Arc::new(
        space_of(&material.network, &request.threads, &request.backends, request.space.as_ref())?
            .compile()?,
    );
    let (journal, past) = Journal::open(&options.folder).map_err(|error| wrong(error.to_string()))?;
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
    };
    events.send(Event::Started(Box::new(started)))?;
    for notice in store.notices() {
        events.send(Event::Notice { text: notice })?;
    }
    if past.damaged_lines > 0 {
        let text = format!("{} damaged line(s) of the journal were passed over", past.damaged_lines);
        events.send(Event::Notice { text })?;
    }

    let shared =
        Arc::new(Mutex::new(Shared { survey: past.survey, prefer: request.prefer, ..Shared::default() }));
    let search = start_search(&space, request, &shared)?;

    let mut runner = TrialRunner::new(&store, workload.clone(), hardware.id.clone())?;
    runner.deadline = options.trial_deadline;
    runner.devices = request.backends.iter().filter(|backend| *backend != "cpu").cloned().collect();
    runner.candidates = Some(runner.workload.artefacts.join(CANDIDATES));
    let earlier = past.seconds;
    let mut session = Session {
        options,
        request: request.clone(),
        backends: request.backends.clone(),
        file,
        control,
        whole: Vec::new(),
        built: VecDeque::new(),
        keep: BTreeSet::new(),
        space,
        search,
        runner,
        host: Host::new(options.host.clone(), workload),
        memory: past.trials.into_iter().map(|trial| (trial.id.clone(), trial)).collect(),
        front: Vec::new(),
        baseline: None,
        trials: 0,
        cached: 0,
        clock: Clock { begun, earlier },
        trial_seconds: 0.0,
        shared,
        network: &material.network,
        search_images: material.dataset.search.len() as u64,
    };
    let (reason, measure, front) = loop {
        let reason = session.search_all(&mut events)?;
        let measure = !matches!(reason, StopReason::Interrupted | StopReason::DeviceLost);
        let error = match session.finalize(&mut events, material, &hardware, measure) {
            Ok(front) => break (reason, measure, front),
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
    events.send(Event::Finished { reason, front: Box::new(front.clone()) })?;
    Ok(Conclusion { front, interrupted })
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

/// Largest number of bundles that are kept for the final measurements.
const KEPT_BUNDLES: usize = 16;

/// Factor on the number of images for candidates whose accuracy is close to a limit.
const UNDECIDED: u64 = 8;

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

/// Event sink: writes events to the journal and passes them on.
struct EventSink<'t> {
    journal: Journal,
    see: &'t mut dyn FnMut(&Event),
    folder: &'t Path,
}

impl EventSink<'_> {
    fn send(&mut self, event: Event) -> Result<(), SessionError> {
        // A later session does not need the progress within a step, so these events are not stored.
        if !matches!(event, Event::Preparing { .. } | Event::Stage { .. } | Event::Confirming { .. }) {
            self.journal.write(&event).map_err(|error| SessionError::Folder {
                path: self.folder.display().to_string(),
                problem: format!("the journal cannot be written: {error}"),
            })?;
        }
        (self.see)(&event);
        Ok(())
    }
}

#[derive(Clone, Copy)]
struct Clock {
    begun: Instant,
    earlier: f64,
}

impl Clock {
    /// Returns the seconds since the study began, over all sessions.
    fn elapsed(&self) -> f64 {
        self.earlier + self.begun.elapsed().as_secs_f64()
    }
}

struct Session<'s> {
    options: &'s SessionOptions,
    /// The request with all changes made so far.
    request: StudyRequest,
    /// Requested backends that are still available.
    backends: Vec<String>,
    /// The study file as it is on disk.
    file: StudyFile,
    /// All completely measured configurations, each with its origin and metrics.
    whole: Vec<(Configuration, String, Measurement)>,
    /// Ids of the points whose bundles are kept for the final measurements, latest last.
    built: VecDeque<String>,
    /// Ids of the points that the user wants among the finalists.
    keep: BTreeSet<String>,
    control: &'s Control,
    space: Arc<CompiledSpace>,
    search: Search,
    runner: TrialRunner<'s>,
    host: Host,
    /// Trials of earlier sessions that have not been told to the search yet, by id.
    memory: HashMap<String, TrialFinished>,
    /// Points that no complete trial dominates, with their accuracy on the search images.
    front: Vec<FrontPoint>,
    /// The baseline with its accuracy on the search images.
    baseline: Option<FrontPoint>,
    trials: u64,
    cached: u64,
    clock: Clock,
    /// Seconds spent on measured trials.
    trial_seconds: f64,
    /// State shared with the composing strategy.
    shared: Arc<Mutex<Shared>>,
    network: &'s Network,
    /// Number of images in the search part.
    search_images: u64,
}

impl Session<'_> {
    /// Asks for proposals, measures them and tells the results until the budget is spent. Returns
    /// the reason of the end.
    fn search_all(&mut self, events: &mut EventSink<'_>) -> Result<StopReason, SessionError> {
        loop {
            self.obey(events)?;
            let budget = self.request.budget;
            // The final measurements are part of the budget, so their time is reserved.
            let seconds = budget.seconds.map(|seconds| seconds - confirm::reserve(seconds));
            if self.control.stopped() {
                return Ok(StopReason::Interrupted);
            }
            let replaying = !self.memory.is_empty();
            if budget.trials.is_some_and(|trials| self.trials >= trials) {
                return Ok(StopReason::Budget);
            }
            // The first trial, the baseline, always runs, because every result is compared to it.
            let spent = seconds.is_some_and(|seconds| self.clock.elapsed() >= seconds);
            if spent && self.trials > 0 && !replaying {
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
            if let Some(trial) = self.memory.remove(&id) {
                self.remember(&proposal, trial)?;
                continue;
            }
            if spent && self.trials > 0 {
                return Ok(StopReason::Budget);
            }
            match self.try_out(&proposal, events) {
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
            && self.trials >= FIRST_RECIPES as u64
            && self.memory.is_empty()
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
        let mut problem = None;
        let survey = surveyor.survey(&mut |share| {
            if let Err(error) = events.send(Event::Preparing { task: "survey of the layers".into(), share }) {
                problem = Some(error);
            }
        })?;
        if let Some(problem) = problem {
            return Err(problem);
        }
        events.send(Event::Surveyed(Box::new(survey.clone())))?;
        if let Ok(mut shared) = self.shared.lock() {
            shared.survey = Some(survey);
        }
        Ok(())
    }

    /// Tells the search the result of an earlier session.
    fn remember(&mut self, proposal: &Proposal, trial: TrialFinished) -> Result<(), SessionError> {
        self.trials += 1;
        self.cached += u64::from(trial.cached);
        let outcome = match (&trial.failure, trial.known) {
            (None, None) => dropped(&trial.partial.unwrap_or_default()),
            (None, Some(known)) => {
                if proposal.origin == BASELINE {
                    self.baseline.clone_from(&trial.point);
                    self.learn_images(&known);
                }
                if let Some(point) = &trial.point {
                    self.whole.push((point.config.clone(), point.origin.clone(), known));
                }
                self.enter(trial.point);
                whole(&known)
            }
            (failure, _) => Outcome::Failed { reason: failure.clone().unwrap_or_default() },
        };
        self.search.tell(&proposal.point, outcome)?;
        Ok(())
    }

    fn try_out(&mut self, proposal: &Proposal, events: &mut EventSink<'_>) -> Result<(), SessionError> {
        let begun = Instant::now();
        let configuration = self.space.decode(&proposal.point);
        let id = configuration.id();
        let number = self.trials + 1;
        events.send(Event::TrialStarted { number, id: id.clone(), origin: proposal.origin.clone() })?;
        let first = proposal.origin == BASELINE;
        let criteria = if first { StopCriteria::default() } else { self.criteria() };
        let mut answered = self.answer(&configuration, &criteria, events)?;
        if first {
            match &answered.outcome {
                TrialOutcome::Measured(known) | TrialOutcome::Dropped(known) => {
                    self.learn_images(known);
                    // The measured latency of the baseline decides how many images are affordable,
                    // so its score is completed now.
                    let cached = answered.cached;
                    answered = self.answer(&configuration, &criteria, events)?;
                    answered.cached &= cached;
                }
                TrialOutcome::Rejected(_) => {}
                TrialOutcome::Failed(reason) => return Err(SessionError::Baseline(reason.message.clone())),
            }
        }
        let limits = &self.request.limits;
        let (outcome, point, failure, partial, known) = match &answered.outcome {
            TrialOutcome::Measured(known) => {
                let point = archive::point(&configuration, &proposal.origin, known, limits);
                (whole(known), Some(point), None, None, Some(*known))
            }
            TrialOutcome::Dropped(known) => (whole(known), None, None, Some(known.metrics()), Some(*known)),
            TrialOutcome::Rejected(seen) => (dropped(seen), None, None, Some(*seen), None),
            TrialOutcome::Failed(reason) => {
                (Outcome::Failed { reason: reason.message.clone() }, None, Some(reason.clone()), None, None)
            }
        };
        if first {
            self.baseline.clone_from(&point);
        }
        self.search.tell(&proposal.point, outcome)?;
        if let (Some(known), Some(_)) = (known, &point) {
            self.whole.push((configuration.clone(), proposal.origin.clone(), known));
        }
        let (entered, displaced) = self.enter(point.clone());
        self.keep_built(&id, entered, &displaced);
        let best = self.best();
        let point = point.map(|point| FrontPoint { best: best.as_ref() == Some(&point.id), ..point });
        self.trials = number;
        self.cached += u64::from(answered.cached);
        if !answered.cached && !first {
            self.trial_seconds += begun.elapsed().as_secs_f64();
        }
        events.send(Event::TrialFinished(Box::new(TrialFinished {
            number,
            id,
            origin: proposal.origin.clone(),
            config: point.is_none().then(|| configuration.clone()),
            point,
            failure_kind: failure.as_ref().map(|failure| failure.kind),
            failure: failure.map(|failure| failure.message),
            cached: answered.cached,
            partial,
            known,
            seconds: begun.elapsed().as_secs_f64(),
            elapsed: self.clock.elapsed(),
            hypervolume: self.hypervolume(),
            entered,
            displaced,
            quiet: self.runner.quiet,
            baseline: self.baseline.as_ref().map(|point| point.metrics),
        })))
    }

    /// Keeps the bundle of the latest trial, called `id`, if it has `entered` the front. Discards
    /// the bundles of `displaced` points and the oldest beyond the limit; a discarded bundle is
    /// built again when it is needed.
    fn keep_built(&mut self, id: &str, entered: bool, displaced: &[String]) {
        let Some(folder) = &self.runner.candidates else { return };
        self.built.push_back(id.to_owned());
        let surplus = self.built.len().saturating_sub(KEPT_BUNDLES);
        let mut unwanted: Vec<String> = self.built.drain(..surplus).collect();
        unwanted.extend(displaced.iter().cloned());
        if !entered {
            unwanted.extend(self.built.pop_back());
        }
        self.built.retain(|known| !unwanted.contains(known));
        for known in unwanted {
            artefact::discard(&folder.join(known));
        }
    }

    /// Measures a configuration and reports the stages of the trial as events.
    fn answer(
        &mut self,
        configuration: &Configuration,
        criteria: &StopCriteria,
        events: &mut EventSink<'_>,
    ) -> Result<TrialResult, SessionError> {
        let id = configuration.id();
        let mut problem = None;
        let mut see = |reply: &Reply| {
            let event = match reply {
                Reply::Preparing { task, share } => Event::Preparing { task: task.clone(), share: *share },
                Reply::Stage { stage } => Event::Stage { id: id.clone(), stage: stage.clone() },
                _ => return,
            };
            if let Err(error) = events.send(event) {
                problem = Some(error);
            }
        };
        let control = self.control;
        let answered =
            self.runner.trial(&mut self.host, configuration, criteria, &mut see, &|| control.stopped());
        match (problem, answered) {
            (Some(problem), _) => Err(problem),
            (None, Ok(answered)) => Ok(answered),
            (None, Err(TrialError::Store(error))) => Err(error.into()),
            (None, Err(TrialError::Host(error))) => Err(SessionError::Worker(error)),
        }
    }

    /// Sets the number of search images of a complete score from the baseline's recorded latency:
    /// about one hundredth of the budget per candidate, in steps coarse enough to be stable.
    fn learn_images(&mut self, baseline: &Measurement) {
        if self.runner.images > 0 {
            return;
        }
        let budget = &self.request.budget;
        #[expect(clippy::cast_precision_loss, reason = "a number of trials")]
        let seconds = match (budget.seconds, budget.trials) {
            (Some(seconds), _) => (seconds / 100.0).clamp(1.0, 8.0),
            (None, trials) => trials.map_or(3.0, |trials| (trials as f64 / 30.0).clamp(0.3, 3.0)),
        };
        let affordable = seconds / baseline.latency[0].max(1e-7);
        let steps = [4096_u32, 2048, 1024];
        let images = steps.into_iter().find(|step| f64::from(*step) <= affordable).unwrap_or(512);
        self.runner.images = u64::from(images).min(self.search_images);
        self.runner.most_images = (UNDECIDED * u64::from(images)).min(self.search_images);
    }
}

/// Locks the folder against a second program while the returned file is open.
fn lock(folder: &Path) -> Result<File, String> {
    let file = File::create(folder.join("lock")).map_err(|error| error.to_string())?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err("another paretune works in it; wait for it, or name another folder with --study".into())
        }
        Err(TryLockError::Error(error)) => Err(error.to_string()),
    }
}

fn write_front(folder: &Path, front: &Front) -> io::Result<()> {
    let mut text = serde_json::to_vec_pretty(front)?;
    text.push(b'\n');
    paretune_record::artefact::write_whole(&folder.join("front.json"), &text)
}

/// Returns the search's outcome of a trial that measured everything.
fn whole(measurement: &Measurement) -> Outcome {
    let ends = |end: fn(&Estimate) -> f64| -> Vec<f64> {
        let value = |metric| measurement.estimate(metric).map_or(f64::NAN, |estimate| end(&estimate));
        Metric::ALL.map(value).to_vec()
    };
    Outcome::Measured {
        values: ends(|estimate| estimate.value),
        low: ends(|estimate| estimate.low),
        high: ends(|estimate| estimate.high),
    }
}

/// Returns the search's outcome of a trial that ended early.
fn dropped(seen: &Metrics) -> Outcome {
    Outcome::Dropped { values: Metric::ALL.map(|metric| seen.get(metric)).to_vec() }
}
