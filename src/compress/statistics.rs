//! Statistics of activations: moments and ranges per channel, and one histogram per value.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Octaves of magnitude in the histogram: 2^-16 up to 2^16.
const OCTAVES: u32 = 32;
/// Mantissa bits that select a bin: 16 bins per octave.
const MANTISSA: u32 = 4;
/// Number of bins per sign.
const HALF: usize = (OCTAVES as usize) << MANTISSA;
/// Upper bits of the first bin's lower edge as `f32`.
const BASE: u32 = (127 - OCTAVES / 2) << MANTISSA;

/// Mean and variance of every channel of a value over images and positions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Moments {
    /// Number of values seen per channel.
    pub count: u64,
    /// Mean of the values of each channel.
    pub mean: Vec<f64>,
    /// Mean squared deviation from the mean, per channel.
    pub variance: Vec<f64>,
}

/// Statistics of one value of a plan.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ValueStatistics {
    /// Mean and variance of each channel.
    pub moments: Moments,
    /// Smallest number of each channel.
    pub min: Vec<f32>,
    /// Largest number of each channel.
    pub max: Vec<f32>,
    /// Histogram of the numbers of all channels.
    pub histogram: Histogram,
}

/// Histogram by sign and magnitude with a fixed relative resolution of 1/16 octave. It needs no
/// range beforehand, and histograms of different values can be added.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// Counts from the most negative to the most positive bin; empty while nothing was counted.
    counts: Vec<u64>,
}

impl Histogram {
    fn bin(x: f32) -> usize {
        let magnitude = (x.abs().to_bits() >> (23 - MANTISSA))
            .saturating_sub(BASE)
            .min(HALF as u32 - 1) as usize;
        if x < 0.0 { HALF - 1 - magnitude } else { HALF + magnitude }
    }

    /// Adds all of `values` to the counts.
    pub fn extend(&mut self, values: &[f32]) {
        self.counts.resize(2 * HALF, 0);
        for &x in values {
            self.counts[Self::bin(x)] += 1;
        }
    }

    /// Adds the counts of another histogram.
    pub fn merge(&mut self, other: &Self) {
        if other.counts.len() == 2 * HALF {
            self.counts.resize(2 * HALF, 0);
            self.counts.iter_mut().zip(&other.counts).for_each(|(sum, count)| *sum += count);
        }
    }

    /// Returns the centers of all bins that are not empty, ascending, with their counts.
    pub fn bins(&self) -> impl Iterator<Item = (f32, u64)> + '_ {
        let middle = |magnitude: usize| {
            let edge = |bin: usize| f32::from_bits((BASE + bin as u32) << (23 - MANTISSA));
            let low = if magnitude == 0 { 0.0 } else { edge(magnitude) };
            0.5 * (low + edge(magnitude + 1))
        };
        self.counts.iter().enumerate().filter(|&(_, &count)| count > 0).map(move |(bin, &count)| {
            let x = if bin < HALF { -middle(HALF - 1 - bin) } else { middle(bin - HALF) };
            (x, count)
        })
    }
}

impl Moments {
    /// Adds a batch of `images` images, one after another in `data`, each with `channels` runs of
    /// equal length.
    pub fn extend(&mut self, channels: usize, images: usize, data: &[f32]) {
        self.mean.resize(channels, 0.0);
        self.variance.resize(channels, 0.0);
        let plane = data.len() / (channels * images).max(1);
        let before = self.count;
        let moments = self.mean.par_iter_mut().zip(self.variance.par_iter_mut());
        moments.enumerate().for_each(|(channel, (mean, variance))| {
            let mut seen = before as f64;
            for image in 0..images {
                let (plane_mean, plane_variance) =
                    plane_moments(&data[(image * channels + channel) * plane..][..plane]);
                // Chan, Golub and LeVeque's rule for joining two samples.
                let added = plane as f64;
                let total = seen + added;
                let delta = plane_mean - *mean;
                *mean += delta * added / total;
                *variance = (*variance * seen
                    + plane_variance * added
                    + delta * delta * seen * added / total)
                    / total;
                seen = total;
            }
        });
        self.count += (images * plane) as u64;
    }

    /// Returns the moments of the channels that `keep` keeps.
    #[must_use]
    pub fn select(&self, keep: &[bool]) -> Self {
        Self {
            count: self.count,
            mean: select(&self.mean, keep),
            variance: select(&self.variance, keep),
        }
    }
}

impl ValueStatistics {
    /// Adds a batch of `images` images, one after another in `data`, each with `channels` runs of
    /// equal length.
    pub fn extend(&mut self, channels: usize, images: usize, data: &[f32]) {
        self.min.resize(channels, f32::INFINITY);
        self.max.resize(channels, f32::NEG_INFINITY);
        let plane = data.len() / (channels * images).max(1);
        self.moments.extend(channels, images, data);
        let ranges = self.min.par_iter_mut().zip(self.max.par_iter_mut());
        ranges.enumerate().for_each(|(channel, (min, max))| {
            for image in 0..images {
                let (low, high) =
                    plane_range(&data[(image * channels + channel) * plane..][..plane]);
                *min = min.min(low);
                *max = max.max(high);
            }
        });
        let parts: Vec<Histogram> = data
            .par_chunks(1 << 18)
            .map(|part| {
                let mut histogram = Histogram::default();
                histogram.extend(part);
                histogram
            })
            .collect();
        parts.iter().for_each(|part| self.histogram.merge(part));
    }

    /// Returns the smallest and the largest number over all channels, zero included; `None` before
    /// anything was seen.
    #[must_use]
    pub fn range(&self) -> Option<(f32, f32)> {
        let low = self.min.iter().fold(0.0f32, |low, &x| low.min(x));
        let high = self.max.iter().fold(0.0f32, |high, &x| high.max(x));
        (self.moments.count > 0 && low.is_finite() && high.is_finite()).then_some((low, high))
    }

    /// Returns the statistics of the channels that `keep` keeps. The histogram stays that of all
    /// channels, bounded by the ranges.
    #[must_use]
    pub fn select(&self, keep: &[bool]) -> Self {
        Self {
            moments: self.moments.select(keep),
            min: select(&self.min, keep),
            max: select(&self.max, keep),
            histogram: self.histogram.clone(),
        }
    }
}

fn select<T: Copy>(all: &[T], keep: &[bool]) -> Vec<T> {
    all.iter().zip(keep).filter(|&(_, &keep)| keep).map(|(&x, _)| x).collect()
}

/// Independent partial sums: floating-point addition has a fixed order, which would keep the
/// compiler from using vector instructions.
const LANES: usize = 16;

/// Computes mean and variance in two passes over numbers that fit into the cache.
fn plane_moments(plane: &[f32]) -> (f64, f64) {
    let count = plane.len().max(1) as f64;
    let mean = lane_sum(plane, |x| x) / count;
    let center = mean as f32;
    let rest = mean - f64::from(center);
    let variance = lane_sum(plane, |x| (x - center) * (x - center)) / count - rest * rest;
    (mean, variance.max(0.0))
}

fn lane_sum(plane: &[f32], term: impl Fn(f32) -> f32) -> f64 {
    // Blocks keep the single-precision partial sums short.
    plane
        .chunks(4096)
        .map(|block| {
            let mut sums = [0.0f32; LANES];
            let (whole, rest) = block.as_chunks::<LANES>();
            for chunk in whole {
                for lane in 0..LANES {
                    sums[lane] += term(chunk[lane]);
                }
            }
            let rest: f64 = rest.iter().map(|&x| f64::from(term(x))).sum();
            sums.iter().map(|&sum| f64::from(sum)).sum::<f64>() + rest
        })
        .sum()
}

fn plane_range(plane: &[f32]) -> (f32, f32) {
    let mut low = [f32::INFINITY; LANES];
    let mut high = [f32::NEG_INFINITY; LANES];
    let (whole, rest) = plane.as_chunks::<LANES>();
    for chunk in whole {
        for lane in 0..LANES {
            low[lane] = if chunk[lane] < low[lane] { chunk[lane] } else { low[lane] };
            high[lane] = if chunk[lane] > high[lane] { chunk[lane] } else { high[lane] };
        }
    }
    let low = low.iter().chain(rest).fold(f32::INFINITY, |low, &x| low.min(x));
    let high = high.iter().chain(rest).fold(f32::NEG_INFINITY, |high, &x| high.max(x));
    (low, high)
}
