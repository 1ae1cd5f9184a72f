//! The process that builds and runs candidates: `paretune worker`, which communicates by its
//! standard streams. A candidate that crashes, hangs or exhausts the memory does not harm the
//! search.

use std::io::{self, BufRead, Write};
use std::time::Instant;

use paretune_kernels::bundle::{Bundle, Stored};
use paretune_kernels::hardware::{Isa, SpeedProbe, ThreadCeilings, ceilings};
use paretune_kernels::{Backend, Executor, ExecutorOptions, Plan, memory, opencl};
use paretune_record::failure::FailureKind;
use paretune_record::metric::{Metric, Metrics};
use paretune_spaces::Configuration;

use super::inspect::costs;
use super::plan::{build_plan, build_plan_for_timing, recipe_of};
use super::protocol::{FastestProbes, Measured, Reply, Request, TimeRequest, TrialRequest};
use super::repeat::noise;
use super::timing::{Runner, Timing, profile, time, time_together};
use super::workload::Workload;

/// Number of images that are scored between two comparisons with the incumbents.
const ACCURACY_STEP: u64 = 256;

/// Serves requests from standard input until it ends.
///
/// # Errors
/// Fails if a stream breaks or if a request cannot be parsed: in both cases no search is left to
/// serve.
pub fn serve() -> io::Result<()> {
    die_with_parent();
    let stdin = io::stdin().lock();
    let mut worker = Worker {
        isa: Isa::detect(),
        workload: None,
        probes: FastestProbes::default(),
        ceilings: Vec::new(),
    };
    for line in stdin.lines() {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        let request: Request = serde_json::from_str(&line)?;
        let reply = worker.answer(request).unwrap_or_else(|reason| match opencl::unusable() {
            Some(error) => Reply::Unwell { reason: format!("{reason} ({error})") },
            None => Reply::Failed { kind: FailureKind::Build, reason },
        });
        say(&reply)?;
    }
    Ok(())
}

fn say(reply: &Reply) -> io::Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    let mut stdout = io::stdout().lock();
    stdout.write_all(&line)?;
    stdout.flush()
}

/// Sends a stage or progress message. A broken stream causes an error at the next reply.
fn mention(reply: &Reply) {
    if let Err(error) = say(reply) {
        tracing::debug!("nobody listens: {error}");
    }
}

fn stage(name: &str) {
    mention(&Reply::Stage { stage: name.to_owned() });
}

fn preparing(task: &str, fraction: f64) {
    mention(&Reply::Preparing { task: task.to_owned(), fraction });
}

struct Worker {
    isa: Isa,
    workload: Option<Workload>,
    /// Fastest observed speeds of the cores.
    probes: FastestProbes,
    /// Measured ceilings of the hardware by number of threads; measured on first use.
    ceilings: Vec<ThreadCeilings>,
}

impl Worker {
    fn answer(&mut self, request: Request) -> Result<Reply, String> {
        match request {
            Request::Open { workload, memory_limit, probes } => {
                if let Some(bytes) = memory_limit {
                    limit_memory(bytes)?;
                }
                let workload = Workload::open(&workload, self.isa, &mut preparing).map_err(text)?;
                let workload = workload.with_progress(preparing);
                self.probes = probes;
                self.workload = Some(workload);
                Ok(Reply::Opened)
            }
            Request::Trial(trial) => self.trial(&trial),
            Request::Time(request) => Ok(Reply::Timed { timings: self.time(&request)? }),
            Request::Profile { configuration, seconds } => {
                Ok(Reply::Profiled { steps: self.profile(&configuration, seconds)? })
            }
            Request::Inspect { configuration, seconds } => self.inspect(&configuration, seconds),
            Request::Loss { configuration, images } => {
                let workload = self.workload()?;
                let recipe = recipe_of(workload, &configuration).map_err(text)?;
                let images = usize::try_from(images).unwrap_or(usize::MAX);
                Ok(Reply::Lost { loss: workload.loss(&recipe, images).map_err(text)? })
            }
            Request::Thin { work } => {
                Ok(Reply::Thinned { shares: self.workload()?.channel_budget(work).map_err(text)? })
            }
            Request::Device { backend } => {
                if let Backend::OpenCl { device } = backend.parse()? {
                    opencl::check(&device).map_err(text)?;
                }
                Ok(Reply::Present)
            }
            Request::Rank => {
                Ok(Reply::Ranked { costs: self.workload()?.channel_costs().map_err(text)? })
            }
            Request::Report { bundle, from, to } => {
                let workload = self.workload()?;
                let plan = Bundle::read(&bundle).map_err(text)?.plan;
                let [from, to] =
                    [from, to].map(|image| usize::try_from(image).unwrap_or(usize::MAX));
                Ok(Reply::Reported { score: workload.score_report(&plan, from, to).map_err(text)? })
            }
            Request::Export { configuration, id, folder } => {
                let workload = self.workload()?;
                let plan =
                    build_plan(workload, &configuration, self.isa, &mut preparing).map_err(text)?;
                let bundle = workload.bundle(plan, &id);
                bundle.write(&folder).map_err(text)?;
                Ok(Reply::Exported { bytes: bundle.bytes() })
            }
        }
    }

    fn workload(&self) -> Result<&Workload, String> {
        self.workload.as_ref().ok_or_else(|| "no workload was opened".to_owned())
    }

    /// Returns the probe for a number of threads and the seconds of its fastest known run.
    fn probe(&self, threads: usize) -> Result<(SpeedProbe, f64), String> {
        Ok((SpeedProbe::new(threads, self.isa).map_err(text)?, self.probes.get(threads)))
    }

    /// Measures in order of cost: exact sizes, a few runs, the timing, the images. Each stage runs
    /// only if the stages before do not reject the candidate.
    fn trial(&mut self, request: &TrialRequest) -> Result<Reply, String> {
        stage("build");
        let workload = self.workload.as_ref().ok_or("no workload was opened")?;
        let plan =
            build_plan(workload, &request.configuration, self.isa, &mut preparing).map_err(text)?;
        let outputs = plan.values.get(plan.output).map_or(0, paretune_kernels::ValueSpec::len);
        let bundle = workload.bundle(plan, &request.id);
        let files = bundle.file_bytes();
        let size = files.plan + files.weights;
        #[expect(clippy::cast_precision_loss, reason = "bytes are far below 2^53")]
        let bytes = |count: u64| count as f64;
        let rejected = |seen| Ok(Reply::Rejected { seen, weights: files.weights });
        // The plan's bytes are left out at first, so that all schedules are rejected for the same
        // reason.
        let mut seen = Metrics::from([(Metric::Size, bytes(files.weights))]);
        if request.stop.upper.reject(&seen) {
            return rejected(seen);
        }
        seen.set(Metric::Size, bytes(size));
        let plan = &bundle.plan;
        let input = noise(plan, &bundle.preprocessing, 1);

        // Verification must not count for the candidate's memory.
        opencl::verify(plan, 1).map_err(text)?;
        let before = memory::live_bytes();
        let mut executor = prepared(plan, plan.threads, 1, self.isa)?;
        memory::reset_peak();
        executor.run(&input, &mut vec![0.0; outputs]).map_err(text)?;
        let allocated = memory::peak_bytes().saturating_sub(before);
        let memory = allocated + executor.device_bytes() + executor.mapped_bytes();
        seen.set(Metric::Memory, bytes(memory));
        if request.stop.upper.reject(&seen) {
            return rejected(seen);
        }
        if request.effort.is_some() {
            seen.set(Metric::Latency, fastest_run(&mut executor, &input, outputs)?);
            if request.stop.upper.reject(&seen) {
                return rejected(seen);
            }
        }

        let mut timing = None;
        if let Some(effort) = &request.effort {
            stage("timing");
            let threads = plan.threads.max(1);
            let (probe, fastest) = self.probe(threads)?;
            let runner = Runner::new(&mut executor, &input, outputs, probe, fastest);
            let seen = time(runner, effort).map_err(text)?;
            self.probes.set(threads, seen.probe);
            timing = Some(seen);
        }
        drop(executor);

        stage("accuracy");
        let mut score = request.known_score;
        let mut dropped = false;
        let latency = timing.as_ref().map_or(request.known_latency_low, |timing| timing.low);
        let available = u64::try_from(workload.dataset.search.len()).unwrap_or(u64::MAX);
        let enough = request.images.min(available);
        // More images are scored only if the candidate may still beat the incumbents.
        let images = [enough, request.most_images.min(available)];
        let costs = seen.with(Metric::Latency, latency);
        let most = request.stop.enough_images(images, &costs);
        let bounds = &request.stop.accuracy;
        while !bounds.enough(&score, enough, most) {
            let outside = !request.stop.incumbents.is_empty() && bounds.missed(&score);
            let beaten = request.stop.is_beaten(&costs, score.interval()[1]);
            if score.total > 0 && (outside || beaten) {
                dropped = true;
                break;
            }
            let to =
                (score.total + ACCURACY_STEP).min(if score.total < enough { enough } else { most });
            let (from, to) =
                (usize::try_from(score.total).unwrap_or(0), usize::try_from(to).unwrap_or(0));
            score = score.plus(workload.score_search(plan, from, to).map_err(text)?);
        }
        if let Some(folder) = request.keep.as_ref().filter(|_| !dropped) {
            bundle.write(folder).map_err(text)?;
        }
        let probes = self.probes.clone();
        let weights = files.weights;
        Ok(Reply::Measured(Box::new(Measured {
            size,
            weights,
            memory,
            timing,
            probes,
            score,
            dropped,
        })))
    }

    fn profile(
        &mut self,
        configuration: &Configuration,
        seconds: f64,
    ) -> Result<Vec<(String, f64)>, String> {
        let plan =
            build_plan_for_timing(self.workload()?, configuration, self.isa).map_err(text)?;
        let (executor, times) = self.timed_steps(&plan, seconds)?;
        Ok(executor.steps().iter().map(|step| step.name.clone()).zip(times).collect())
    }

    /// Loads the network and times each of its steps.
    fn timed_steps(&mut self, plan: &Plan, seconds: f64) -> Result<(Executor, Vec<f64>), String> {
        let outputs = plan.values.get(plan.output).map_or(0, paretune_kernels::ValueSpec::len);
        let input = noise(plan, &self.workload()?.preprocessing(), 1);
        let threads = plan.threads.max(1);
        let mut executor = load(plan, threads, 1, self.isa)?;
        let (probe, fastest) = self.probe(threads)?;
        let (times, fastest) =
            profile(&mut executor, &input, outputs, &probe, fastest, seconds).map_err(text)?;
        self.probes.set(threads, fastest);
        Ok((executor, times))
    }

    fn inspect(&mut self, configuration: &Configuration, seconds: f64) -> Result<Reply, String> {
        let plan =
            build_plan(self.workload()?, configuration, self.isa, &mut preparing).map_err(text)?;
        let (executor, times) = self.timed_steps(&plan, seconds)?;
        let threads = plan.threads.max(1);
        if self.ceilings.iter().all(|known| known.threads != threads) {
            self.ceilings.extend(ceilings(&[threads]).map_err(text)?.threads);
        }
        // The ceilings of the processor do not apply to a device.
        let here = |known: &&ThreadCeilings| known.threads == threads && plan.is_on_processor();
        let ceilings = self.ceilings.iter().find(here);
        Ok(Reply::Inspected { threads, steps: costs(&plan, executor.steps(), &times, ceilings) })
    }

    fn time(&mut self, request: &TimeRequest) -> Result<Vec<Timing>, String> {
        self.probes.clone_from(&request.probes);
        let batch = request.batch.max(1);
        let mut loaded = Vec::with_capacity(request.bundles.len());
        for folder in &request.bundles {
            let stored = Stored::open(folder).map_err(text)?;
            let Bundle { plan, preprocessing, .. } = stored.description();
            let outputs =
                batch * plan.values.get(plan.output).map_or(0, paretune_kernels::ValueSpec::len);
            let threads = request.threads.unwrap_or(plan.threads).max(1);
            let (probe, fastest) = self.probe(threads)?;
            let input = noise(plan, preprocessing, batch);
            if !plan.is_on_processor() {
                opencl::verify(&stored.bundle().map_err(text)?.plan, batch).map_err(text)?;
            }
            let executor = stored
                .load(&ExecutorOptions { batch, threads, isa: self.isa })
                .map_err(text)?
                .executor;
            loaded.push((executor, input, outputs, probe, fastest));
        }
        let runners = loaded.iter_mut().map(|(executor, input, outputs, probe, fastest)| {
            Runner::new(executor, input, *outputs, probe.clone(), *fastest)
        });
        let mut runners: Vec<Runner<'_>> = runners.collect();
        match runners.len() {
            1 => runners.drain(..).map(|only| time(only, &request.effort).map_err(text)).collect(),
            _ => time_together(runners, &request.effort).map_err(text),
        }
    }
}

/// Returns the seconds of the fastest of three runs.
fn fastest_run(executor: &mut Executor, input: &[f32], outputs: usize) -> Result<f64, String> {
    let mut output = vec![0.0; outputs];
    let mut fastest = f64::INFINITY;
    for _ in 0..3 {
        let begun = Instant::now();
        executor.run(input, &mut output).map_err(text)?;
        fastest = fastest.min(begun.elapsed().as_secs_f64());
    }
    Ok(fastest)
}

/// Loads `plan`. On a device, the results of every layer are verified before its time counts.
fn load(plan: &Plan, threads: usize, batch: usize, isa: Isa) -> Result<Executor, String> {
    opencl::verify(plan, batch).map_err(text)?;
    prepared(plan, threads, batch, isa)
}

/// Loads a plan whose kernels are already verified.
fn prepared(plan: &Plan, threads: usize, batch: usize, isa: Isa) -> Result<Executor, String> {
    Executor::new(plan, &ExecutorOptions { batch, threads: threads.max(1), isa }).map_err(text)
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Ends the worker if the search is killed, so that no orphan keeps measuring.
fn die_with_parent() {
    #[cfg(target_os = "linux")]
    if let Err(error) = nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL) {
        tracing::warn!("the worker could not be tied to the search: {error}");
    }
}

/// Limits the memory that this process may write to. The address space is not limited, because
/// drivers of accelerators reserve terabytes of it. An allocation beyond the limit ends this
/// process, which costs one trial.
fn limit_memory(bytes: u64) -> Result<(), String> {
    #[cfg(target_os = "linux")]
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_DATA, bytes, bytes)
        .map_err(|error| {
            format!("the worker's memory could not be limited to {bytes} bytes: {error}")
        })?;
    #[cfg(not(target_os = "linux"))]
    tracing::warn!("no memory limit on this system (asked for {bytes} bytes)");
    Ok(())
}
