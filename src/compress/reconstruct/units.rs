//! Which weights a pattern makes zero together.

use std::cmp::Reverse;
use std::ops::Range;

use paretune_kernels::weights::Pattern;
use rayon::prelude::*;

/// The weights of a layer of one group in units that are zero or not as a whole.
pub(in crate::compress) struct Units {
    /// Rows that share their zeros.
    pub(super) rows: usize,
    /// Columns of each unit, the same for all rows: consecutive input channels at one tap.
    pub(super) columns: Vec<Vec<usize>>,
    /// Where at most some units of a run may stay: how many stay of how many.
    pub(super) grouped: Option<(usize, usize)>,
    /// By unit: the run that it belongs to; empty without.
    pub(super) runs: Vec<usize>,
}

impl Units {
    /// Of filters with `channels` input channels and `taps`; `None` for a pattern without zeros.
    pub(in crate::compress) fn new(pattern: Pattern, channels: usize, taps: usize) -> Option<Self> {
        let single = |rows: usize, inputs: usize| {
            let mut columns = Vec::new();
            for first in (0..channels).step_by(inputs) {
                for tap in 0..taps {
                    let block = first..(first + inputs).min(channels);
                    columns.push(block.map(|channel| channel * taps + tap).collect());
                }
            }
            Self { rows, columns, grouped: None, runs: Vec::new() }
        };
        Some(match pattern {
            Pattern::Dense => return None,
            Pattern::Unstructured => single(1, 1),
            Pattern::Blocks { outputs, inputs } => {
                single(usize::from(outputs).max(1), usize::from(inputs).max(1))
            }
            Pattern::Grouped { kept, of } => {
                let of = usize::from(of).max(1);
                let mut units = single(1, 1);
                units.grouped = Some((usize::from(kept), of));
                units.runs =
                    units.columns.iter().map(|unit| unit[0] / taps / of * taps + unit[0] % taps).collect();
                units
            }
        })
    }

    /// How many units of each run have to become zero; empty where the pattern knows no runs.
    pub(super) fn quotas(&self) -> Vec<usize> {
        let Some((kept, _)) = self.grouped else { return Vec::new() };
        let mut sizes = vec![0usize; self.runs.iter().max().map_or(0, |&last| last + 1)];
        self.runs.iter().for_each(|&run| sizes[run] += 1);
        sizes.into_iter().map(|size| size.saturating_sub(kept)).collect()
    }

    /// Which of `rows` times `columns` weights stay where a `share` of the units becomes zero, those with the least
    /// mean of `score` (by index, at least 0); of equals the last ones go first.
    pub(in crate::compress) fn largest(
        &self,
        rows: usize,
        columns: usize,
        share: f64,
        score: impl Fn(usize) -> f32 + Sync,
    ) -> Vec<bool> {
        let bands: Vec<_> = self.bands(rows).collect();
        let scores: Vec<Vec<f32>> = bands
            .par_iter()
            .map(|band| {
                let mean = |unit: &Vec<usize>| {
                    let row =
                        |row: usize| unit.iter().map(|&column| score(row * columns + column)).sum::<f32>();
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
        if self.grouped.is_some() {
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
        // Scores are never negative, so that their bits are in order.
        let all = scores.iter().enumerate().flat_map(|(band, scores)| {
            scores.iter().enumerate().map(move |(unit, score)| (score.to_bits(), Reverse((band, unit))))
        });
        let mut order: Vec<(u32, Reverse<(usize, usize)>)> = all.collect();
        let zeros = ((share * order.len() as f64).round() as usize).min(order.len());
        if zeros > 0 && zeros < order.len() {
            order.select_nth_unstable(zeros - 1);
        }
        order[..zeros].iter().for_each(|&(_, Reverse((band, unit)))| remove(band, unit));
        keep
    }

    /// Blocks of rows that share their zeros.
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
        let units = Units::new(Pattern::Grouped { kept: 1, of: 2 }, 3, 2).unwrap();
        // Columns are channel * 2 + tap.
        assert_eq!(units.runs, [0, 1, 0, 1, 2, 3]);
        assert_eq!(units.quotas(), [1, 1, 0, 0]);
    }
}
