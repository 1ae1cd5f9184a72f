//! The search's connection to a worker process: starts it, sends requests, and kills and restarts
//! it at a deadline. The deadline counts from the request or from the worker's latest report of a
//! preparation. Time in which this process or the worker was stopped does not count.
//!
//! A worker that dies may say something about the candidate or about the machine. So the question
//! is put once more to a fresh worker ([`Host::ask_twice`]).

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use paretune_kernels::opencl;
use paretune_record::failure::{Failure, FailureKind};
use paretune_record::request::WorkloadSpec;

use super::protocol::{FastestProbes, Reply, Request};

/// Reason why a request has no reply.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The worker program could not be started.
    #[error("the worker process could not be started: {0}")]
    Start(std::io::Error),
    /// The worker ended during the request.
    #[error("the worker process {0}")]
    Died(String),
    /// The worker was ended by a signal that comes from outside, which says nothing about the
    /// request.
    #[error("the worker process {0}")]
    Killed(String),
    /// The worker was killed at the deadline.
    #[error("no answer within {:.0} s; the worker process was killed", .0.as_secs_f64())]
    Deadline(Duration),
    /// The worker replied that the request failed.
    #[error("{1}")]
    Refused(FailureKind, String),
    /// The request failed, and the worker can no longer use its device. Another worker may.
    #[error("{0}")]
    Unwell(String),
    /// A device fails in a fresh worker as well.
    #[error("{backend} is lost: {reason}")]
    DeviceLost {
        /// Name of the device, as configurations write it.
        backend: String,
        /// Message of the fresh worker.
        reason: String,
    },
    /// The worker sent something that is no reply.
    #[error("the worker process said something unexpected: {0}")]
    Nonsense(String),
    /// The caller asked to stop.
    #[error("interrupted")]
    Interrupted,
}

impl HostError {
    /// Returns whether the worker ended without an answer, or with one that is none.
    #[must_use]
    pub const fn is_sudden(&self) -> bool {
        matches!(self, Self::Died(_) | Self::Killed(_) | Self::Nonsense(_))
    }

    /// Returns the error as the failure of a trial.
    #[must_use]
    pub fn failure(&self) -> Failure {
        let kind = match self {
            Self::Refused(kind, _) => *kind,
            Self::Unwell(_) => FailureKind::Build,
            Self::Deadline(_) => FailureKind::Timeout,
            _ => FailureKind::Crash,
        };
        Failure::new(kind, self.to_string())
    }
}

/// Settings for starting and limiting workers.
#[derive(Clone, Debug)]
pub struct HostOptions {
    /// Program and arguments; see [`own_worker`].
    pub command: Vec<String>,
    /// Limit on the worker's memory in bytes.
    pub memory_limit: Option<u64>,
    /// Time limit for loading and preparing the workload.
    pub open_deadline: Duration,
}

/// Returns the command that starts this program as a worker.
///
/// # Errors
/// Fails if the path of this program cannot be determined.
pub fn own_worker() -> std::io::Result<Vec<String>> {
    let program = std::env::current_exe()?;
    Ok(vec![program.to_string_lossy().into_owned(), "worker".to_owned()])
}

/// A worker process for one workload, started when it is needed.
pub struct Host {
    options: HostOptions,
    workload: WorkloadSpec,
    process: Option<Process>,
    /// Fastest known probes, which the next worker receives.
    pub probes: FastestProbes,
}

struct Process {
    child: Child,
    stdin: ChildStdin,
    lines: Receiver<std::io::Result<String>>,
    errors: Arc<Mutex<Vec<u8>>>,
}

/// Number of workers that may die while they open their workload, before the search gives up.
const ATTEMPTS: u32 = 3;

/// Time between two looks at a worker that does not answer.
const GLANCE: Duration = Duration::from_millis(100);

/// Longest time between two looks that counts towards a deadline. If it was longer, this process
/// was stopped or had no core.
const LONGEST_GLANCE: Duration = Duration::from_secs(1);

/// Number of bytes of the worker's error output that are kept to explain its end.
const ERROR_TAIL: usize = 4096;

impl Host {
    /// Creates the connection without starting a worker.
    #[must_use]
    pub fn new(options: HostOptions, workload: WorkloadSpec) -> Self {
        Self { options, workload, process: None, probes: FastestProbes::default() }
    }

    /// Returns the command that starts workers.
    #[must_use]
    pub fn command(&self) -> &[String] {
        &self.options.command
    }

    /// Starts the worker and opens its workload, if there is none yet.
    ///
    /// # Errors
    /// Fails if the worker does not start or cannot open its workload.
    pub fn ready(
        &mut self,
        see: &mut dyn FnMut(&Reply),
        interrupted: &dyn Fn() -> bool,
    ) -> Result<(), HostError> {
        let mut attempt = 1;
        loop {
            match self.open(see, interrupted) {
                Err(error) if error.is_sudden() && attempt < ATTEMPTS => {
                    tracing::info!("{error}; another one is started");
                    attempt += 1;
                }
                opened => return opened,
            }
        }
    }

    /// Makes one attempt to start a worker, if there is none.
    fn open(
        &mut self,
        see: &mut dyn FnMut(&Reply),
        interrupted: &dyn Fn() -> bool,
    ) -> Result<(), HostError> {
        if self.process.is_some() {
            return Ok(());
        }
        self.process = Some(Process::start(&self.options.command)?);
        let open = Request::Open {
            workload: self.workload.clone(),
            memory_limit: self.options.memory_limit,
            probes: self.probes.clone(),
        };
        let deadline = self.options.open_deadline;
        let opened = match self.exchange(&open, deadline, see, interrupted) {
            Ok(Reply::Opened) => Ok(()),
            Ok(other) => Err(HostError::Nonsense(format!("{other:?}"))),
            Err(error) => Err(error),
        };
        // A worker that could not open its workload is useless.
        if opened.is_err() {
            self.process = None;
        }
        opened
    }

    /// Sends `request` and waits for its reply. `see` receives stages and progress. After an error
    /// other than a refusal, the worker is gone; the next request starts a new one.
    ///
    /// # Errors
    /// Fails as described at [`HostError`].
    pub fn ask(
        &mut self,
        request: &Request,
        deadline: Duration,
        see: &mut dyn FnMut(&Reply),
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Reply, HostError> {
        self.ready(see, interrupted)?;
        self.exchange(request, deadline, see, interrupted)
    }

    /// Sends `request` like [`Host::ask`]. If the worker dies or talks nonsense, and all `devices`
    /// answer, a fresh worker gets the request once more.
    ///
    /// # Errors
    /// Fails as described at [`HostError`], with the error of the second worker.
    pub fn ask_twice(
        &mut self,
        request: &Request,
        deadline: Duration,
        devices: &[String],
        see: &mut dyn FnMut(&Reply),
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Reply, HostError> {
        match self.ask(request, deadline, see, interrupted) {
            Err(error) if error.is_sudden() => {
                let error = blame(self.command(), devices, error, interrupted);
                if !error.is_sudden() {
                    return Err(error);
                }
                tracing::info!("{error}; a fresh worker is asked once more");
                self.ask(request, deadline, see, interrupted)
            }
            answer => answer,
        }
    }

    fn exchange(
        &mut self,
        request: &Request,
        deadline: Duration,
        see: &mut dyn FnMut(&Reply),
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Reply, HostError> {
        let process = self.process.as_mut().ok_or_else(|| HostError::Died("is gone".into()))?;
        let result = process.exchange(request, deadline, see, interrupted);
        if !matches!(result, Ok(_) | Err(HostError::Refused(..))) {
            self.process = None;
        }
        result
    }
}

impl Process {
    fn start(command: &[String]) -> Result<Self, HostError> {
        let (program, arguments) = command.split_first().ok_or_else(|| {
            HostError::Start(std::io::Error::new(
                std::io::ErrorKind::InvalidInput,
                "no worker command",
            ))
        })?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // The worker must see the same devices as this process.
        command.envs(opencl::driver_variable());
        // In its own process group, the worker does not receive an interrupt from the terminal. The
        // search decides what to do.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn().map_err(HostError::Start)?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
            return Err(HostError::Died("has no standard streams".into()));
        };
        let (sender, lines) = channel();
        std::thread::spawn(move || forward_lines(stdout, &sender));
        let errors = Arc::new(Mutex::new(Vec::new()));
        let tail = Arc::clone(&errors);
        std::thread::spawn(move || keep_tail(stderr, &tail));
        Ok(Self { child, stdin, lines, errors })
    }

    fn exchange(
        &mut self,
        request: &Request,
        deadline: Duration,
        see: &mut dyn FnMut(&Reply),
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Reply, HostError> {
        let mut line =
            serde_json::to_vec(request).map_err(|error| HostError::Nonsense(error.to_string()))?;
        line.push(b'\n');
        if self.stdin.write_all(&line).and_then(|()| self.stdin.flush()).is_err() {
            return Err(self.obituary());
        }
        // Preparations serve later candidates as well, so their time does not count against this
        // candidate.
        let mut spent = Duration::ZERO;
        loop {
            if interrupted() {
                return Err(HostError::Interrupted);
            }
            let since = Instant::now();
            // An answer that is waiting is read before the time is judged.
            match self.lines.recv_timeout(deadline.saturating_sub(spent).min(GLANCE)) {
                Ok(Ok(line)) => match serde_json::from_str::<Reply>(&line) {
                    Ok(Reply::Failed { kind, reason }) => {
                        return Err(HostError::Refused(kind, reason));
                    }
                    Ok(Reply::Unwell { reason }) => return Err(HostError::Unwell(reason)),
                    Ok(reply @ Reply::Preparing { .. }) => {
                        spent = Duration::ZERO;
                        see(&reply);
                    }
                    Ok(reply @ Reply::Stage { .. }) => see(&reply),
                    Ok(reply) => return Ok(reply),
                    Err(_) => return Err(HostError::Nonsense(line.chars().take(200).collect())),
                },
                Ok(Err(error)) => return Err(HostError::Nonsense(error.to_string())),
                Err(RecvTimeoutError::Timeout) if spent >= deadline => {
                    return Err(HostError::Deadline(deadline));
                }
                Err(RecvTimeoutError::Timeout) => {
                    let passed = since.elapsed();
                    if passed <= LONGEST_GLANCE && !self.is_stopped() {
                        spent += passed;
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return Err(self.obituary()),
            }
        }
    }

    /// Returns whether a signal has stopped the process until another one continues it.
    fn is_stopped(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()));
        // The name of the program stands in parentheses and may contain anything.
        let state = stat.ok().and_then(|stat| stat.rsplit_once(") ")?.1.chars().next());
        matches!(state, Some('T' | 't'))
    }

    /// Describes in words how the process ended.
    fn obituary(&mut self) -> HostError {
        let (status, from_outside) = match self.child.wait() {
            Ok(status) => end_of(status),
            Err(error) => (format!("ended ({error})"), false),
        };
        // The thread that reads the error output may be slightly late.
        std::thread::sleep(Duration::from_millis(20));
        let tail = match self.errors.lock() {
            Ok(tail) => String::from_utf8_lossy(&tail).into_owned(),
            Err(_) => String::new(),
        };
        let last: Vec<&str> =
            tail.lines().rev().filter(|line| !line.trim().is_empty()).take(2).collect();
        let words: Vec<&str> = last.into_iter().rev().collect();
        let words =
            if words.is_empty() { status } else { format!("{status}: {}", words.join("; ")) };
        if from_outside { HostError::Killed(words) } else { HostError::Died(words) }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A process that has already ended cannot be killed, which is no error here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends one request to a new worker without a workload, which ends after its reply.
///
/// # Errors
/// Fails as described at [`HostError`].
pub fn ask_fresh(
    command: &[String],
    request: &Request,
    deadline: Duration,
    interrupted: &dyn Fn() -> bool,
) -> Result<Reply, HostError> {
    Process::start(command)?.exchange(request, deadline, &mut |_| {}, interrupted)
}

/// Sends one request to a new worker like [`ask_fresh`], and to another one if that dies.
///
/// # Errors
/// Fails as described at [`HostError`], with the error of the second worker.
pub fn ask_fresh_twice(
    command: &[String],
    request: &Request,
    deadline: Duration,
    interrupted: &dyn Fn() -> bool,
) -> Result<Reply, HostError> {
    match ask_fresh(command, request, deadline, interrupted) {
        Err(error) if error.is_sudden() => {
            tracing::info!("{error}; a fresh worker is asked once more");
            ask_fresh(command, request, deadline, interrupted)
        }
        answer => answer,
    }
}

/// Time limit for a device to answer, including the initialization of its driver.
const DEVICE_DEADLINE: Duration = Duration::from_secs(30);

/// Returns `error`, or that one of `devices` is lost. If the error may come from a device, a fresh
/// worker checks whether the devices still answer.
pub fn blame(
    command: &[String],
    devices: &[String],
    error: HostError,
    interrupted: &dyn Fn() -> bool,
) -> HostError {
    if !matches!(error, HostError::Unwell(_) | HostError::Deadline(_)) && !error.is_sudden() {
        return error;
    }
    for backend in devices {
        let request = Request::Device { backend: backend.clone() };
        match ask_fresh(command, &request, DEVICE_DEADLINE, interrupted) {
            Ok(_) => {}
            Err(HostError::Interrupted) => return HostError::Interrupted,
            Err(reason) => {
                return HostError::DeviceLost {
                    backend: backend.clone(),
                    reason: reason.to_string(),
                };
            }
        }
    }
    error
}

/// Returns how a process ended, and whether it was ended by a signal that a process does not cause
/// itself. The system sends such a signal as well if memory is short.
fn end_of(status: std::process::ExitStatus) -> (String, bool) {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        use nix::sys::signal::Signal;
        let signal = Signal::try_from(signal).ok();
        let name = signal.map_or("an unknown signal", Signal::as_str);
        let from_outside = matches!(
            signal,
            Some(
                Signal::SIGKILL
                    | Signal::SIGTERM
                    | Signal::SIGHUP
                    | Signal::SIGINT
                    | Signal::SIGQUIT
            )
        );
        return (format!("was ended by {name}"), from_outside);
    }
    (format!("ended by itself ({status})"), false)
}

fn forward_lines(stdout: impl Read, sender: &Sender<std::io::Result<String>>) {
    for line in BufReader::new(stdout).lines() {
        let broken = line.is_err();
        if sender.send(line).is_err() || broken {
            return;
        }
    }
}

fn keep_tail(mut stderr: impl Read, tail: &Mutex<Vec<u8>>) {
    let mut buffer = [0; 1024];
    while let Ok(count @ 1..) = stderr.read(&mut buffer) {
        if let Ok(mut tail) = tail.lock() {
            tail.extend_from_slice(&buffer[..count]);
            let excess = tail.len().saturating_sub(ERROR_TAIL);
            tail.drain(..excess);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use paretune_record::request::Normalization;

    fn host(script: &str) -> Host {
        let options = HostOptions {
            command: vec!["sh".into(), "-c".into(), script.into()],
            memory_limit: None,
            open_deadline: Duration::from_secs(5),
        };
        let workload = WorkloadSpec {
            artefacts: "unused".into(),
            layers: "unused".into(),
            name: "unused".into(),
            model: String::new(),
            images: String::new(),
            normalization: Normalization { mean: vec![0.0], std: vec![1.0] },
            transform: Default::default(),
        };
        Host::new(options, workload)
    }

    const OPENED: &str = r#"read line; echo '{"reply":"opened"}'; read line; "#;

    fn report(host: &mut Host, deadline: Duration) -> Result<Reply, HostError> {
        let request = Request::Report { bundle: "unused".into(), from: 0, to: 1 };
        host.ask(&request, deadline, &mut |_| {}, &|| false)
    }

    #[test]
    fn a_crash_is_told_with_its_signal_and_last_words() {
        let mut host = host(&format!("{OPENED} echo 'index out of range' >&2; kill -SEGV $$"));
        let error = report(&mut host, Duration::from_secs(5)).unwrap_err().to_string();
        assert!(error.contains("SIGSEGV") && error.contains("index out of range"), "{error}");
    }

    #[test]
    fn a_hang_ends_at_the_deadline_and_the_next_request_starts_anew() {
        let mut host = host(&format!("{OPENED} sleep 60"));
        let start = Instant::now();
        let error = report(&mut host, Duration::from_millis(200)).unwrap_err();
        assert!(matches!(error, HostError::Deadline(_)), "{error}");
        assert!(start.elapsed() < Duration::from_secs(4));
        let error = report(&mut host, Duration::from_millis(200)).unwrap_err();
        assert!(matches!(error, HostError::Deadline(_)), "a fresh worker was opened: {error}");
    }

    #[test]
    fn preparation_is_not_held_against_a_candidate() {
        let busy = r#"for i in 1 2 3 4; do sleep 0.3; echo '{"reply":"preparing","task":"t","fraction":0.5}'; done"#;
        let mut host = host(&format!(
            "{OPENED} {busy}; echo '{{\"reply\":\"exported\",\"bytes\":7}}'; sleep 5"
        ));
        let answer = report(&mut host, Duration::from_millis(900)).unwrap();
        assert!(matches!(answer, Reply::Exported { bytes: 7 }), "{answer:?}");
    }

    #[test]
    fn a_refusal_keeps_the_worker() {
        let refuse = r#"while read line; do echo '{"reply":"failed","kind":"build","reason":"no such layer"}'; done"#;
        let mut host = host(&format!(r#"read line; echo '{{"reply":"opened"}}'; {refuse}"#));
        for _ in 0..2 {
            let error = report(&mut host, Duration::from_secs(5)).unwrap_err();
            assert!(
                matches!(&error, HostError::Refused(FailureKind::Build, reason) if reason == "no such layer"),
                "{error}"
            );
        }
        assert!(host.process.is_some());
    }

    #[test]
    fn garbage_and_interrupts_are_told_apart() {
        let mut garbage = host(&format!("{OPENED} echo garbage; sleep 5"));
        assert!(matches!(
            report(&mut garbage, Duration::from_secs(5)),
            Err(HostError::Nonsense(_))
        ));
        let mut slow = host(&format!("{OPENED} sleep 60"));
        let request = Request::Report { bundle: "unused".into(), from: 0, to: 1 };
        let asked = std::cell::Cell::new(0);
        let interrupted = || {
            asked.set(asked.get() + 1);
            asked.get() > 3
        };
        let error =
            slow.ask(&request, Duration::from_secs(30), &mut |_| {}, &interrupted).unwrap_err();
        assert!(matches!(error, HostError::Interrupted), "{error}");
    }

    /// Returns a script that behaves as `first` says in its first process, and as `later` says in
    /// all others.
    fn in_turn(folder: &std::path::Path, first: &str, later: &str) -> String {
        let mark = folder.join("mark");
        let mark = mark.display();
        format!("if [ -e {mark} ]; then {later}; else touch {mark}; {first}; fi")
    }

    fn report_twice(host: &mut Host) -> Result<Reply, HostError> {
        let request = Request::Report { bundle: "unused".into(), from: 0, to: 1 };
        host.ask_twice(&request, Duration::from_secs(20), &[], &mut |_| {}, &|| false)
    }

    const EXPORTED: &str = r#"echo '{"reply":"exported","bytes":7}'; sleep 5"#;

    #[test]
    fn a_worker_that_dies_is_replaced_and_asked_once_more() {
        for first in ["kill -KILL $$", "kill -SEGV $$", "exit 3", "echo garbage; sleep 5"] {
            // During the request.
            let folder = tempfile::tempdir().unwrap();
            let script = in_turn(folder.path(), first, EXPORTED);
            let mut asked = host(&format!("{OPENED} {script}"));
            assert!(matches!(report_twice(&mut asked), Ok(Reply::Exported { .. })), "{first}");
            // While it opens its workload.
            let folder = tempfile::tempdir().unwrap();
            let script = in_turn(folder.path(), first, &format!("{OPENED} {EXPORTED}"));
            let mut opened = host(&script);
            assert!(report(&mut opened, Duration::from_secs(20)).is_ok(), "{first}");
        }
        let mut killed = host(&format!("{OPENED} kill -KILL $$"));
        assert!(matches!(report_twice(&mut killed), Err(HostError::Killed(_))));
        let mut crashed = host(&format!("{OPENED} kill -SEGV $$"));
        assert!(matches!(report_twice(&mut crashed), Err(HostError::Died(_))));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_stopped_worker_is_not_late() {
        // It stops itself, and another process continues it after more than the deadline.
        let stop = "(sleep 2; kill -CONT $$) & kill -STOP $$";
        let mut stopped = host(&format!("{OPENED} {stop}; {EXPORTED}"));
        let answer = report(&mut stopped, Duration::from_millis(700));
        assert!(matches!(answer, Ok(Reply::Exported { .. })), "{answer:?}");
    }

    #[test]
    fn a_missing_program_is_an_error() {
        let mut host = host("");
        host.options.command = vec!["there/is/no/such/program".into()];
        assert!(matches!(report(&mut host, Duration::from_secs(1)), Err(HostError::Start(_))));
    }
}
