//! The measurement protocol for latency.
//!
//! A candidate is timed in short bursts that alternate with bursts of a fixed reference, the untouched
//! network: where the machine slows down for a while, both slow down, and the ratio tells. Warm-up is
//! left out, the median is kept with a distribution-free 95 % interval, and so are the samples.

use std::time::{Duration, Instant};

use paretune_kernels::clock::Median;
use paretune_kernels::{Executor, KernelError};
use serde::{Deserialize, Serialize};

/// How much effort a timing is worth.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Effort {
    /// Stop when the interval is within this share of the median on either side ...
    pub precision: f64,
    /// ... and at least this many samples are there ...
    pub least_samples: usize,
    /// ... or when this much time has passed.
    pub seconds: f64,
}

impl Effort {
    /// For a trial of the search.
    pub const TRIAL: Self = Self { precision: 0.01, least_samples: 20, seconds: 0.4 };
    /// For a point of the final front.
    pub const FINAL: Self = Self { precision: 0.005, least_samples: 50, seconds: 2.0 };
}

/// What was seen of one candidate's speed. Seconds for one inference at batch 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// Median of the samples.
    pub median: f64,
    /// Lower end of the median's 95 % interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Median of the reference between the samples; 0 without a reference.
    pub reference: f64,
    /// In the order in which they were taken.
    pub samples: Vec<f64>,
}

impl Timing {
    /// Summary of `samples`.
    #[must_use]
    pub fn of(samples: Vec<f64>, reference: &[f64]) -> Self {
        let [median, low, high] =
            Median::of_95(&samples).map_or([0.0; 3], |median| [median.median, median.low, median.high]);
        let reference = Median::of_95(reference).map_or(0.0, |median| median.median);
        Self { median, low, high, reference, samples }
    }

    /// The seconds as they would have been when the reference ran in `nominal` seconds (0: not known): drift
    /// of the machine taken out. `reference` stays what was seen.
    #[must_use]
    pub fn without_drift(mut self, nominal: f64) -> Self {
        if nominal > 0.0 && self.reference > 0.0 {
            let factor = nominal / self.reference;
            for seconds in
                [&mut self.median, &mut self.low, &mut self.high].into_iter().chain(&mut self.samples)
            {
                *seconds *= factor;
            }
        }
        self
    }

    /// Whether the median is known to the precision that `effort` asks for.
    fn settled(&self, effort: &Effort) -> bool {
        self.samples.len() >= effort.least_samples
            && self.high - self.low <= 2.0 * effort.precision * self.median
    }
}

/// An executor, its input and room for its output.
pub struct Runner<'e> {
    executor: &'e mut Executor,
    input: &'e [f32],
    output: Vec<f32>,
    samples: Vec<f64>,
}

/// Shortest burst that is timed without a switch to another candidate.
const BURST: Duration = Duration::from_micros(1500);

impl<'e> Runner<'e> {
    /// `input` is one image, `outputs` the length of its result.
    pub fn new(executor: &'e mut Executor, input: &'e [f32], outputs: usize) -> Self {
        Self { executor, input, output: vec![0.0; outputs], samples: Vec::with_capacity(1024) }
    }

    /// Runs without timing until caches, branch predictors and clocks have settled.
    ///
    /// # Errors
    /// Where the input does not fit.
    pub fn warm_up(&mut self) -> Result<(), KernelError> {
        let start = Instant::now();
        let mut runs = 0;
        while runs < 2 || (start.elapsed() < Duration::from_millis(20) && runs < 50) {
            self.executor.run(self.input, &mut self.output)?;
            runs += 1;
        }
        Ok(())
    }

    /// One burst: a run that is not counted (the caches belong to another candidate), then timed ones.
    ///
    /// # Errors
    /// Where the input does not fit.
    pub fn burst(&mut self) -> Result<(), KernelError> {
        self.executor.run(self.input, &mut self.output)?;
        let start = Instant::now();
        loop {
            let before = Instant::now();
            self.executor.run(self.input, &mut self.output)?;
            self.samples.push(before.elapsed().as_secs_f64());
            if start.elapsed() >= BURST {
                return Ok(());
            }
        }
    }
}

/// Times `candidate` interleaved with `reference`.
///
/// # Errors
/// Where an input does not fit.
pub fn time(
    mut candidate: Runner<'_>,
    mut reference: Option<Runner<'_>>,
    effort: &Effort,
) -> Result<Timing, KernelError> {
    candidate.warm_up()?;
    if let Some(reference) = &mut reference {
        reference.warm_up()?;
    }
    let start = Instant::now();
    loop {
        candidate.burst()?;
        if let Some(reference) = &mut reference {
            reference.burst()?;
        }
        let spent = start.elapsed().as_secs_f64();
        let enough = spent >= effort.seconds && candidate.samples.len() >= 5;
        if enough || candidate.samples.len() >= effort.least_samples {
            let seen = reference.as_ref().map_or(&[][..], |reference| &reference.samples);
            let timing = Timing::of(candidate.samples.clone(), seen);
            if enough || timing.settled(effort) {
                return Ok(timing);
            }
        }
    }
}

/// Times all `candidates` round-robin, the same number of bursts each.
///
/// # Errors
/// Where an input does not fit.
pub fn time_together(mut candidates: Vec<Runner<'_>>, effort: &Effort) -> Result<Vec<Timing>, KernelError> {
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
        let all = candidates.iter().all(|candidate| candidate.samples.len() >= effort.least_samples.min(5));
        if all && enough {
            return Ok(candidates.into_iter().map(|candidate| Timing::of(candidate.samples, &[])).collect());
        }
    }
}
