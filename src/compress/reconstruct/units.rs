//! Units of a sparsity pattern: weights that become zero together.

use std::cmp::Reverse;
use std::ops::Range;

use paretune_kernels::weights::Pattern;
use rayon::prelude::*;

/// Partition of the weights of a layer with one group into units, each of them zero as a whole or
/// not at all.
pub(crate) struct Units {
    /// Number of rows that share their zeros.
    pub(super) rows: usize,
    /// Columns of each unit, equal for all rows: consecutive input channels at one tap.
    pub(super) columns: Vec<Vec<usize>>,
    /// For a pattern of N of M: the units kept in each run, and the units of a run.
    pub(super) n_of_m: Option<(usize, usize)>,
    /// Run of each unit; empty for other patterns.
    pub(super) runs: Vec<usize>,
}

impl Units {
    /// Creates the units of filters with `channels` input channels and `taps`; `None` for a pattern
    /// without zeros.
    pub(crate) fn new(pattern: Pattern, channels: usize, taps: usize) -> Option<Self> {
        let single = |rows: usize, inputs: usize| {
            let mut columns = Vec::new();
            for first in (0..channels).step_by(inputs) {
                for tap in 0..taps {
                    let block = first..(first + inputs).min(channels);
                    columns.push(block.map(|channel| channel * taps + tap).collect());
                }
            }
            Self { rows, columns, n_of_m: None, runs: Vec::new() }
        };
        Some(match pattern {
            Pattern::Dense => return None,
            Pattern::Unstructured => single(1, 1),
            Pattern::Blocks { outputs, inputs } => {
                single(usize::from(outputs).max(1), usize::from(inputs).max(1))
            }
            Pattern::NofM { n, m } => {
                let m = usize::from(m).max(1);
                let mut units = single(1, 1);
                units.n_of_m = Some((usize::from(n), m));
                units.runs = units
                    .columns
                    .iter()
                    .map(|unit| unit[0] / taps / m * taps + unit[0] % taps)
                    .collect();
                units
            }
        })
    }

    /// Returns the number of units of each run that must become zero; empty for patterns without
    /// runs.
    pub(super) fn quotas(&self) -> Vec<usize> {
        let Some((kept, _)) = self.n_of_m else { return Vec::new() };
        let mut sizes = vec![0usize; self.runs.iter().max().map_or(0, |&last| last + 1)];
        self.runs.iter().for_each(|&run| sizes[run] += 1);
        sizes.into_iter().map(|size| size.saturating_sub(kept)).collect()
    }

    /// Returns a mask of `rows` times `columns` weights in which the fraction `fraction` of the
    /// units is removed, those of the least mean `score` (by index, at least 0). Among equal units
    /// the last ones go first.
    pub(crate) fn largest(
        &self,
        rows: usize,
        columns: usize,
        fraction: f64,
        score: impl Fn(usize) -> f32 + Sync,
    ) -> Vec<bool> {
        let bands: Vec<_> = self.bands(rows).collect();
        let scores: Vec<Vec<f32>> = bands
            .par_iter()
            .map(|band| {
                let mean = |unit: &Vec<usize>| {
                    let row = |row: usize| {
                        unit.iter().map(|&column| score(row * columns + column)).sum::<f32>()
                    };
                    band.clone().map(row).sum::<f32>() / (unit.len() * band.len()) as f32
                };
                self.columns.iter().map(mean).collect()
            })
            .collect();
        let mut keep = vec![true; rows * columns];
        let mut remove = |band: usize, unit: usize| {
            for row in bands[band].clone() {
                self.columns[unit].iter().for_each(|&column| keep[row * columns + column] = false);
            }
        };
        if self.n_of_m.is_some() {
            for (band, scores) in scores.iter().enumerate() {
                let mut quotas = self.quotas();
                let mut ascending: Vec<usize> = (0..scores.len()).collect();
                ascending.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]).then(b.cmp(&a)));
                for unit in ascending {
                    let quota = &mut quotas[self.runs[unit]];
                    if *quota > 0 {
                        *quota -= 1;
                        remove(band, unit);
                    }
                }
            }
            return keep;
        }
        // Scores are never negative, so their bits have the order of the numbers.
        let all = scores.iter().enumerate().flat_map(|(band, scores)| {
            scores
                .iter()
                .enumerate()
                .map(move |(unit, score)| (score.to_bits(), Reverse((band, unit))))
        });
        let mut order: Vec<(u32, Reverse<(usize, usize)>)> = all.collect();
        let zeros = ((fraction * order.len() as f64).round() as usize).min(order.len());
        if zeros > 0 && zeros < order.len() {
            order.select_nth_unstable(zeros - 1);
        }
        order[..zeros].iter().for_each(|&(_, Reverse((band, unit)))| remove(band, unit));
        keep
    }

    /// Iterates over the blocks of rows that share their zeros.
    pub(super) fn bands(&self, rows: usize) -> impl Iterator<Item = Range<usize>> + '_ {
        (0..rows).step_by(self.rows).map(move |first| first..(first + self.rows).min(rows))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_take_neighboring_channels_at_one_tap() {
        let units = Units::new(Pattern::Blocks { outputs: 4, inputs: 2 }, 3, 2).unwrap();
        assert_eq!(units.columns, [vec![0, 2], vec![1, 3], vec![4], vec![5]]);
        assert!(units.bands(6).eq([0..4, 4..6]));
        assert!(units.quotas().is_empty());
        assert!(Units::new(Pattern::Dense, 3, 2).is_none());
    }

    #[test]
    fn runs_are_of_one_tap() {
        let units = Units::new(Pattern::NofM { n: 1, m: 2 }, 3, 2).unwrap();
        // Columns are channel * 2 + tap.
        assert_eq!(units.runs, [0, 1, 0, 1, 2, 3]);
        assert_eq!(units.quotas(), [1, 1, 0, 0]);
    }
}
