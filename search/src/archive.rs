//! Archive of all feasible points that are not dominated, and of the nearest miss.

use paretune_spaces::Point;

use crate::dominance::{Standing, dominates};
use crate::hypervolume::{contribution, hypervolume};
use crate::problem::{Normalization, Problem};

/// Measured point of the archive.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Index of the point's trial.
    pub trial: usize,
    /// Configuration that the trial measured.
    pub point: Point,
    /// Measured value of each metric of the problem.
    pub values: Vec<f64>,
    /// Canonical objectives and total violation.
    pub standing: Standing,
    /// Relative violation of each limit; 0 if it is met.
    pub violations: Vec<f64>,
}

/// Feasible points that no other feasible point dominates. Of equal points the first is kept.
#[derive(Clone, Debug, Default)]
pub struct Archive {
    front: Vec<Entry>,
    nearest: Option<Entry>,
    /// Smallest and largest canonical values of all feasible points.
    extremes: Option<(Vec<f64>, Vec<f64>)>,
    normalization: Option<Normalization>,
    fixed: bool,
    volume: f64,
}

/// Change of the archive by a new point.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Change {
    /// Whether the new point is in the front.
    pub entered: bool,
    /// Points that the new point displaced.
    pub displaced: Vec<Entry>,
}

impl Archive {
    pub(crate) fn new(problem: &Problem) -> Archive {
        let normalization = problem.normalization().cloned();
        Archive { fixed: normalization.is_some(), normalization, ..Archive::default() }
    }

    /// Returns the front: feasible points that are not dominated, in the order of their trials.
    #[must_use]
    pub fn front(&self) -> &[Entry] {
        &self.front
    }

    /// Returns the infeasible point with the smallest total violation, as long as no point is
    /// feasible.
    #[must_use]
    pub fn nearest_miss(&self) -> Option<&Entry> {
        if self.front.is_empty() { self.nearest.as_ref() } else { None }
    }

    /// Returns the scale of the hypervolume: the fixed one, or the range from the best to the worst
    /// feasible values. `None` while no feasible point is known.
    #[must_use]
    pub fn normalization(&self) -> Option<&Normalization> {
        self.normalization.as_ref()
    }

    /// Returns the fraction of the box between ideal and reference that the front dominates.
    /// Without a fixed [`Normalization`] the box grows with the values seen, so earlier and later
    /// results do not compare.
    #[must_use]
    pub fn hypervolume(&self) -> f64 {
        self.volume
    }

    /// Returns the front in units of [`Archive::normalization`].
    #[must_use]
    pub fn normalized(&self) -> Vec<Vec<f64>> {
        match &self.normalization {
            Some(n) => self.front.iter().map(|e| n.apply(&e.standing.objectives)).collect(),
            None => Vec::new(),
        }
    }

    /// Returns the best feasible point by one objective. Ties are decided by the other objectives
    /// in turn.
    #[must_use]
    pub fn best_by(&self, objective: usize) -> Option<&Entry> {
        let key = |e: &Entry| {
            let mut values = e.standing.objectives.clone();
            if objective < values.len() {
                values[..=objective].rotate_right(1);
            }
            values
        };
        self.front.iter().min_by(|a, b| compare(&key(a), &key(b)))
    }

    /// Returns the knee: the point of the front that is nearest to the best value of every
    /// objective, each scaled by its range on the front.
    #[must_use]
    pub fn knee(&self) -> Option<&Entry> {
        let first = self.front.first()?;
        let mut low = first.standing.objectives.clone();
        let mut high = low.clone();
        for e in &self.front {
            for (i, v) in e.standing.objectives.iter().enumerate() {
                low[i] = low[i].min(*v);
                high[i] = high[i].max(*v);
            }
        }
        let distance = |e: &Entry| -> f64 {
            let scaled = |(i, v): (usize, &f64)| {
                if high[i] > low[i] { (v - low[i]) / (high[i] - low[i]) } else { 0.0 }
            };
            e.standing.objectives.iter().enumerate().map(scaled).map(|x| x * x).sum()
        };
        self.front.iter().min_by(|a, b| distance(a).total_cmp(&distance(b)))
    }

    pub(crate) fn insert(&mut self, entry: Entry) -> Change {
        if entry.standing.violation > 0.0 {
            let nearer = |n: &Entry| {
                let key =
                    |e: &Entry| [&[e.standing.violation][..], &e.standing.objectives[..]].concat();
                compare(&key(&entry), &key(n)).is_lt()
            };
            if self.nearest.as_ref().is_none_or(nearer) {
                self.nearest = Some(entry);
            }
            return Change::default();
        }
        let rescaled = self.stretch(&entry.standing.objectives);
        let objectives = &entry.standing.objectives;
        let covered = self
            .front
            .iter()
            .any(|e| e.standing.objectives == *objectives || e.standing.dominates(&entry.standing));
        if covered {
            if rescaled {
                self.measure();
            }
            return Change::default();
        }
        let added = match &self.normalization {
            Some(n) if !rescaled => {
                contribution(&self.normalized(), &n.apply(objectives), &vec![1.0; objectives.len()])
            }
            _ => 0.0,
        };
        let (displaced, kept): (Vec<Entry>, Vec<Entry>) =
            self.front.drain(..).partition(|e| dominates(objectives, &e.standing.objectives));
        self.front = kept;
        self.front.push(entry);
        if rescaled {
            self.measure();
        } else {
            self.volume += added;
        }
        Change { entered: true, displaced }
    }

    /// Widens the extremes. Returns whether the scale of the hypervolume changed.
    fn stretch(&mut self, objectives: &[f64]) -> bool {
        let (low, high) =
            self.extremes.get_or_insert_with(|| (objectives.to_vec(), objectives.to_vec()));
        let mut changed = self.normalization.is_none();
        for (i, v) in objectives.iter().enumerate() {
            changed |= *v < low[i] || *v > high[i];
            low[i] = low[i].min(*v);
            high[i] = high[i].max(*v);
        }
        if self.fixed || !changed {
            return false;
        }
        // A range without width would divide by zero, and a point at the reference would count for
        // nothing.
        let width =
            |i: usize| if high[i] > low[i] { high[i] - low[i] } else { high[i].abs().max(1.0) };
        let reference =
            (0..low.len()).map(|i| high[i].max(low[i] + width(i)) + 0.01 * width(i)).collect();
        self.normalization = Some(Normalization { ideal: low.clone(), reference });
        true
    }

    fn measure(&mut self) {
        let front = self.normalized();
        self.volume = front.first().map_or(0.0, |p| hypervolume(&front, &vec![1.0; p.len()]));
    }
}

fn compare(a: &[f64], b: &[f64]) -> std::cmp::Ordering {
    let differing = a.iter().zip(b).map(|(x, y)| x.total_cmp(y)).find(|o| o.is_ne());
    differing.unwrap_or(std::cmp::Ordering::Equal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(trial: usize, objectives: &[f64], violation: f64) -> Entry {
        Entry {
            trial,
            point: Point::new(vec![trial as u16]),
            values: objectives.to_vec(),
            standing: Standing { objectives: objectives.to_vec(), violation },
            violations: vec![violation],
        }
    }

    #[test]
    fn front_nearest_miss_and_choices() {
        let mut archive = Archive::default();
        assert!(!archive.insert(entry(0, &[0.0, 0.0], 0.5)).entered);
        assert!(!archive.insert(entry(1, &[0.0, 0.0], 0.2)).entered);
        assert_eq!(archive.nearest_miss().map(|e| e.trial), Some(1));
        assert_eq!(archive.hypervolume(), 0.0);
        assert!(archive.insert(entry(2, &[5.0, 5.0], 0.0)).entered);
        assert!(archive.nearest_miss().is_none());
        assert!(archive.insert(entry(3, &[0.0, 9.0], 0.0)).entered);
        let change = archive.insert(entry(4, &[3.0, 3.0], 0.0));
        assert_eq!(change.displaced.iter().map(|e| e.trial).collect::<Vec<_>>(), [2]);
        assert!(!archive.insert(entry(5, &[3.0, 3.0], 0.0)).entered);
        assert!(!archive.insert(entry(6, &[9.0, 9.0], 0.0)).entered);
        assert!(archive.insert(entry(7, &[8.0, 0.0], 0.0)).entered);
        assert_eq!(archive.best_by(0).map(|e| e.trial), Some(3));
        assert_eq!(archive.best_by(1).map(|e| e.trial), Some(7));
        assert_eq!(archive.knee().map(|e| e.trial), Some(4));
        let expected = hypervolume(&archive.normalized(), &[1.0, 1.0]);
        assert!((archive.hypervolume() - expected).abs() < 1e-12 && expected > 0.3);
    }
}
