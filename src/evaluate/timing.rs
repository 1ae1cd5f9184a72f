//! Measurement protocol for latency.
//!
//! The goal is the candidate's speed on this machine, independent of other load during the
//! measurement. Virtual processors share cores with other tenants, and that interference slows them
//! by a third or more for milliseconds at a time. Every run is therefore enclosed by two runs of a
//! fixed arithmetic workload ([`SpeedProbe`]), and it counts if both were as fast as they can be.
//! The result is the median with a distribution-free 95 % interval; all samples are stored as well.
//! On a machine that is rarely undisturbed, and for runs of milliseconds, which are never
//! undisturbed from start to end, all runs count, scaled by the mean slowdown of all probes.
//! Warm-up runs do not count.

use std::time::{Duration, Instant};

use paretune_kernels::clock::Median;
use paretune_kernels::hardware::SpeedProbe;
use paretune_kernels::{Executor, KernelError};
use serde::{Deserialize, Serialize};

/// Precision and time limit of a timing.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Effort {
    /// Stop if the interval is within this fraction of the median on either side ...
    pub precision: f64,
    /// ... and at least this many undisturbed samples exist ...
    pub least_samples: usize,
    /// ... or after this time in seconds; twice as long on a machine that is rarely undisturbed.
    pub seconds: f64,
}

impl Effort {
    /// Effort for a trial of the search.
    pub const TRIAL: Self = Self { precision: 0.01, least_samples: 20, seconds: 0.4 };
    /// Effort for a point of the final front.
    pub const FINAL: Self = Self { precision: 0.005, least_samples: 50, seconds: 2.0 };
}

/// A probe that is slower than the fastest one by more than this factor was disturbed.
const UNDISTURBED: f64 = 1.05;

/// A slowdown beyond this factor means that a thread was preempted.
const PREEMPTED: f64 = 2.2;

/// Duration in seconds beyond which a run usually includes interference. The probes around it then
/// say little about this run, but all probes together give the mean interference.
const LONG: f64 = 1e-3;

/// Exponent of the growth of run times with the mean slowdown of the probes. It was fitted on a
/// server with shared cores to four networks at full precision and at 8 bits, against their rare
/// undisturbed runs. The probe fills every slot of the front end, so it slows slightly more than
/// the networks.
const SENSITIVITY: f64 = 0.85;

/// Number of successive parts of a measurement. Their disagreement determines the interval of
/// scaled runs.
const PARTS: usize = 8;

/// Number of undisturbed samples from which on the disturbed ones are ignored.
const ENOUGH_UNDISTURBED: usize = 10;

/// Measured latency of one candidate: seconds of one inference at batch 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// Median of the undisturbed samples, or of all scaled samples if too few are undisturbed.
    pub median: f64,
    /// Lower end of the median's 95 % interval.
    pub low: f64,
    /// Upper end of the median's 95 % interval.
    pub high: f64,
    /// Number of threads that ran it.
    pub threads: usize,
    /// Seconds of the fastest known probe on as many threads.
    pub probe: f64,
    /// Fraction of the samples that were undisturbed.
    pub undisturbed: f64,
    /// All measured samples in order, unscaled.
    pub samples: Vec<f64>,
}

/// One run and the probes around it, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Seconds of the run itself.
    pub seconds: f64,
    /// Seconds of the probe before it.
    pub before: f64,
    /// Seconds of the probe after it.
    pub after: f64,
}

impl Timing {
    /// Summarizes `samples`; `probe` is the fastest known probe.
    #[must_use]
    pub fn of(samples: &[Sample], probe: f64) -> Self {
        let undisturbed = |sample: &&Sample| sample.before.max(sample.after) <= UNDISTURBED * probe;
        let undisturbed: Vec<f64> =
            samples.iter().filter(undisturbed).map(|sample| sample.seconds).collect();
        let counted = if undisturbed.len() >= ENOUGH_UNDISTURBED && median(&undisturbed) <= LONG {
            Median::of_95(&undisturbed)
        } else {
            scaled(samples, probe)
        };
        let [median, low, high] =
            counted.map_or([0.0; 3], |median| [median.median, median.low, median.high]);
        #[expect(clippy::cast_precision_loss, reason = "some thousands")]
        let fraction = undisturbed.len() as f64 / samples.len().max(1) as f64;
        let samples = samples.iter().map(|sample| sample.seconds).collect();
        Self { median, low, high, threads: 1, probe, undisturbed: fraction, samples }
    }
}

/// Returns the median of all `samples`, scaled to the speed of the fastest `probe`. Its interval
/// covers the disagreement between parts of the measurement.
fn scaled(samples: &[Sample], probe: f64) -> Option<Median> {
    let estimate = |samples: &[Sample]| {
        let seconds: Vec<f64> = samples.iter().map(|sample| sample.seconds).collect();
        let slowdown = typical_slowdown(samples, probe).powf(SENSITIVITY);
        Median::of_95(&seconds).map(|median| Median {
            median: median.median / slowdown,
            low: median.low / slowdown,
            high: median.high / slowdown,
            coverage: median.coverage,
        })
    };
    let mut whole = estimate(samples)?;
    if samples.len() >= PARTS * ENOUGH_UNDISTURBED {
        let parts: Vec<f64> = samples
            .chunks(samples.len().div_ceil(PARTS))
            .filter_map(|part| estimate(part).map(|median| median.median))
            .collect();
        if let Some(parts) = Median::of_95(&parts) {
            whole.low = whole.low.min(parts.low);
            whole.high = whole.high.max(parts.high);
        }
    }
    Some(whole)
}

/// Returns the median; 0 without samples.
#[must_use]
pub fn median(seconds: &[f64]) -> f64 {
    Median::of_95(seconds).map_or(0.0, |median| median.median)
}

/// Returns the mean slowdown of all probes whose threads were not preempted.
fn typical_slowdown(samples: &[Sample], probe: f64) -> f64 {
    let slowdowns = samples.iter().flat_map(|sample| [sample.before, sample.after]);
    let slowdowns: Vec<f64> = slowdowns
        .map(|seconds| (seconds / probe).max(1.0))
        .filter(|slowdown| *slowdown < PREEMPTED)
        .collect();
    #[expect(clippy::cast_precision_loss, reason = "some thousands of samples")]
    let count = slowdowns.len() as f64;
    if slowdowns.is_empty() { 1.0 } else { slowdowns.iter().sum::<f64>() / count }
}

/// An executor with its input, its output buffer and the probe of its cores.
pub struct Runner<'e> {
    executor: &'e mut Executor,
    input: &'e [f32],
    output: Vec<f32>,
    probe: SpeedProbe,
    fastest: f64,
    last: f64,
    samples: Vec<Sample>,
    undisturbed: usize,
}

/// Shortest burst that is timed before switching to another candidate.
const BURST: Duration = Duration::from_micros(3000);

/// Duration of the probes before the first run. On a machine that is undisturbed at times, some of
/// them are undisturbed.
const CALIBRATION: Duration = Duration::from_millis(30);

impl<'e> Runner<'e> {
    /// Creates a runner. `input` is one image and `outputs` the length of its result. `probe`
    /// covers as many threads as the executor uses, and `fastest` is the fastest known one, or 0.
    pub fn new(
        executor: &'e mut Executor,
        input: &'e [f32],
        outputs: usize,
        probe: SpeedProbe,
        fastest: f64,
    ) -> Self {
        let fastest = if fastest > 0.0 { fastest } else { f64::INFINITY };
        let output = vec![0.0; outputs];
        Self {
            executor,
            input,
            output,
            probe,
            fastest,
            last: 0.0,
            samples: Vec::new(),
            undisturbed: 0,
        }
    }

    /// Runs without counting until caches, branch predictors and clocks have settled. Also measures
    /// the fastest probe, if it is unknown.
    ///
    /// # Errors
    /// Fails if the input does not fit.
    pub fn warm_up(&mut self) -> Result<(), KernelError> {
        if self.fastest.is_infinite() {
            let start = Instant::now();
            while start.elapsed() < CALIBRATION {
                self.look()?;
            }
        }
        let start = Instant::now();
        let mut runs = 0;
        while runs < 2 || (start.elapsed() < Duration::from_millis(20) && runs < 50) {
            self.executor.run(self.input, &mut self.output)?;
            runs += 1;
        }
        Ok(())
    }

    fn look(&mut self) -> Result<(), KernelError> {
        self.last = self.probe.seconds()?;
        self.fastest = self.fastest.min(self.last);
        Ok(())
    }

    /// Runs one burst: one uncounted run, because the caches belong to another candidate, then
    /// timed ones.
    ///
    /// # Errors
    /// Fails if the input does not fit.
    pub fn burst(&mut self) -> Result<(), KernelError> {
        self.executor.run(self.input, &mut self.output)?;
        self.look()?;
        let start = Instant::now();
        loop {
            let begun = Instant::now();
            self.executor.run(self.input, &mut self.output)?;
            let seconds = begun.elapsed().as_secs_f64();
            let before = self.last;
            self.look()?;
            self.samples.push(Sample { seconds, before, after: self.last });
            self.undisturbed += usize::from(before.max(self.last) <= UNDISTURBED * self.fastest);
            if start.elapsed() >= BURST {
                return Ok(());
            }
        }
    }

    fn timing(&self) -> Timing {
        Timing { threads: self.probe.threads(), ..Timing::of(&self.samples, self.fastest) }
    }

    /// Returns whether the median has reached the precision of `effort`.
    fn settled(&self, effort: &Effort) -> bool {
        self.undisturbed >= effort.least_samples && {
            let timing = self.timing();
            timing.high - timing.low <= 2.0 * effort.precision * timing.median
        }
    }
}

/// Times a single `candidate` until `effort` is reached.
///
/// # Errors
/// Fails if the input does not fit.
pub fn time(mut candidate: Runner<'_>, effort: &Effort) -> Result<Timing, KernelError> {
    candidate.warm_up()?;
    let start = Instant::now();
    loop {
        candidate.burst()?;
        let spent = start.elapsed().as_secs_f64();
        let patience = if candidate.undisturbed >= ENOUGH_UNDISTURBED { 1.0 } else { 2.0 };
        let tired = spent >= patience * effort.seconds && candidate.samples.len() >= 5;
        if tired || candidate.settled(effort) {
            return Ok(candidate.timing());
        }
    }
}

/// Times all `candidates` in turns with equally many bursts, so that changes of the machine affect
/// all of them.
///
/// # Errors
/// Fails if an input does not fit.
pub fn time_together(
    mut candidates: Vec<Runner<'_>>,
    effort: &Effort,
) -> Result<Vec<Timing>, KernelError> {
    for candidate in &mut candidates {
        candidate.warm_up()?;
    }
    #[expect(clippy::cast_precision_loss, reason = "a handful of candidates")]
    let seconds = effort.seconds * candidates.len() as f64;
    let start = Instant::now();
    loop {
        for candidate in &mut candidates {
            candidate.burst()?;
        }
        let enough = start.elapsed().as_secs_f64() >= seconds;
        let all = candidates
            .iter()
            .all(|candidate| candidate.samples.len() >= effort.least_samples.min(5));
        if all && enough {
            return Ok(candidates.iter().map(Runner::timing).collect());
        }
    }
}

/// Measures every step of `executor` for `seconds` and summarizes it like whole runs. Also returns
/// the seconds of the fastest probe; `fastest` is the one known before, or 0.
///
/// # Errors
/// Fails if the input does not fit.
pub fn profile(
    executor: &mut Executor,
    input: &[f32],
    outputs: usize,
    probe: &SpeedProbe,
    fastest: f64,
    seconds: f64,
) -> Result<(Vec<f64>, f64), KernelError> {
    let mut output = vec![0.0; outputs];
    executor.run(input, &mut output)?;
    let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); executor.steps().len()];
    let mut before = probe.seconds()?;
    let mut fastest = if fastest > 0.0 { fastest.min(before) } else { before };
    let begun = Instant::now();
    for round in 0.. {
        if round >= 5 && begun.elapsed().as_secs_f64() >= seconds {
            break;
        }
        let steps = executor.profile(input, &mut output)?;
        let after = probe.seconds()?;
        fastest = fastest.min(after);
        for (samples, seconds) in samples.iter_mut().zip(steps) {
            samples.push(Sample { seconds, before, after });
        }
        before = after;
    }
    Ok((samples.iter().map(|samples| Timing::of(samples, fastest).median).collect(), fastest))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run with times in tenths of a millisecond.
    fn sample(time: f64, before: f64, after: f64) -> Sample {
        Sample { seconds: time * 1e-4, before, after }
    }

    fn is(timing: &Timing, time: f64) -> bool {
        (timing.median - time * 1e-4).abs() < 1e-12
    }

    #[test]
    fn undisturbed_samples_decide() {
        let mut samples = vec![sample(1.4, 13.0, 13.0); 90];
        samples.extend(vec![sample(1.0, 10.0, 10.2); 10]);
        // Interference in the middle of the measurement.
        samples.push(sample(1.3, 10.0, 13.0));
        let timing = Timing::of(&samples, 10.0);
        assert!(is(&timing, 1.0));
        assert!((timing.undisturbed - 10.0 / 101.0).abs() < 1e-12);
        assert_eq!(timing.samples.len(), 101);
    }

    #[test]
    fn without_quiet_all_are_scaled_by_the_mean_of_their_probes() {
        // The runs do not follow their probes here, and one probe was preempted.
        let mut samples = vec![sample(1.5, 11.0, 15.0); 30];
        samples.push(sample(1.5, 10.0, 400.0));
        let timing = Timing::of(&samples, 10.0);
        let mean = (31.0 * 1.1 - 0.1 + 30.0 * 1.5) / 61.0_f64;
        assert!(is(&timing, 1.5 / mean.powf(SENSITIVITY)), "{}", timing.median);
        assert_eq!(timing.undisturbed, 0.0);
        assert_eq!(timing.samples.len(), 31);
    }

    #[test]
    fn long_runs_are_scaled_even_where_their_ends_are_quiet() {
        let mut samples = vec![sample(50.0, 10.0, 10.0); 15];
        samples.extend(vec![sample(50.0, 14.0, 14.0); 15]);
        let timing = Timing::of(&samples, 10.0);
        assert!(is(&timing, 50.0 / 1.2_f64.powf(SENSITIVITY)), "{}", timing.median);
    }

    #[test]
    fn the_interval_of_scaled_runs_covers_their_parts() {
        // The second half is slower, although its probes are not.
        let mut samples = vec![sample(1.2, 12.0, 12.0); 60];
        samples.extend(vec![sample(1.5, 12.0, 12.0); 40]);
        let timing = Timing::of(&samples, 10.0);
        let slowdown = 1.2_f64.powf(SENSITIVITY);
        assert!(is(&timing, 1.2 / slowdown));
        assert!((timing.high - 1.5e-4 / slowdown).abs() < 1e-12, "{}", timing.high);
    }

    #[test]
    fn no_sample_is_no_panic() {
        assert_eq!(Timing::of(&[], 1.0).median, 0.0);
    }
}
