//! Pareto dominance, constraint-domination, ranks and crowding (Deb et al., 2002).

use std::cmp::Ordering;

/// Returns whether `a` dominates `b`: nowhere worse and somewhere better. Smaller is better.
#[must_use]
pub fn dominates(a: &[f64], b: &[f64]) -> bool {
    let mut better = false;
    for (x, y) in a.iter().zip(b) {
        if x > y {
            return false;
        }
        better |= x < y;
    }
    better
}

/// Values of a point that decide whether it dominates another.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    /// Canonical values of the objectives; smaller is better.
    pub objectives: Vec<f64>,
    /// Total relative violation of limits; 0 if all are met.
    pub violation: f64,
}

impl Standing {
    /// Returns whether this point dominates another by Deb's rule: a feasible point beats an
    /// infeasible one, a smaller violation beats a larger one, and Pareto dominance decides among
    /// feasible points.
    #[must_use]
    pub fn dominates(&self, other: &Standing) -> bool {
        match (self.violation > 0.0, other.violation > 0.0) {
            (false, true) => true,
            (true, false) => false,
            (true, true) if self.violation != other.violation => self.violation < other.violation,
            _ => dominates(&self.objectives, &other.objectives),
        }
    }
}

/// Sorts indices into layers: the first layer is not dominated, and each further one is not
/// dominated once the earlier ones are removed.
#[must_use]
pub fn sort<S: AsRef<Standing>>(standings: &[S]) -> Vec<Vec<usize>> {
    let n = standings.len();
    let mut beats = vec![Vec::new(); n];
    let mut beaten = vec![0usize; n];
    for i in 0..n {
        for j in i + 1..n {
            let (a, b) = (standings[i].as_ref(), standings[j].as_ref());
            if a.dominates(b) {
                beats[i].push(j);
                beaten[j] += 1;
            } else if b.dominates(a) {
                beats[j].push(i);
                beaten[i] += 1;
            }
        }
    }
    let mut layers = Vec::new();
    let mut layer: Vec<usize> = (0..n).filter(|i| beaten[*i] == 0).collect();
    while !layer.is_empty() {
        let mut next = Vec::new();
        for i in &layer {
            for j in &beats[*i] {
                beaten[*j] -= 1;
                if beaten[*j] == 0 {
                    next.push(*j);
                }
            }
        }
        next.sort_unstable();
        layers.push(std::mem::replace(&mut layer, next));
    }
    layers
}

impl AsRef<Standing> for Standing {
    fn as_ref(&self) -> &Standing {
        self
    }
}

/// Returns the crowding distance of each member of a layer: how far apart its neighbors are, and
/// infinity at the ends of any objective.
#[must_use]
pub fn crowding<S: AsRef<Standing>>(standings: &[S], layer: &[usize]) -> Vec<f64> {
    let mut distance = vec![0.0; layer.len()];
    let Some(first) = layer.first() else { return distance };
    for objective in 0..standings[*first].as_ref().objectives.len() {
        let value = |at: usize| standings[layer[at]].as_ref().objectives[objective];
        let mut order: Vec<usize> = (0..layer.len()).collect();
        order.sort_by(|a, b| value(*a).total_cmp(&value(*b)).then(a.cmp(b)));
        let (low, high) = (value(order[0]), value(order[order.len() - 1]));
        distance[order[0]] = f64::INFINITY;
        distance[order[order.len() - 1]] = f64::INFINITY;
        if high > low {
            for window in order.windows(3) {
                distance[window[1]] += (value(window[2]) - value(window[0])) / (high - low);
            }
        }
    }
    distance
}

/// Selects the `keep` best, best first: whole layers, then the least crowded of the layer that does
/// not fit.
#[must_use]
pub fn select<S: AsRef<Standing>>(standings: &[S], keep: usize) -> Vec<usize> {
    let mut chosen = Vec::with_capacity(keep);
    for layer in sort(standings) {
        if chosen.len() >= keep {
            break;
        }
        let distance = crowding(standings, &layer);
        let mut order: Vec<usize> = (0..layer.len()).collect();
        order.sort_by(|a, b| {
            distance[*b]
                .partial_cmp(&distance[*a])
                .unwrap_or(Ordering::Equal)
                .then(layer[*a].cmp(&layer[*b]))
        });
        chosen.extend(order.into_iter().take(keep - chosen.len()).map(|i| layer[i]));
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(objectives: &[f64], violation: f64) -> Standing {
        Standing { objectives: objectives.to_vec(), violation }
    }

    #[test]
    fn limits_come_before_objectives() {
        let good = standing(&[1.0, 1.0], 0.5);
        let near = standing(&[9.0, 9.0], 0.1);
        let feasible = standing(&[99.0, 99.0], 0.0);
        assert!(near.dominates(&good) && feasible.dominates(&near) && !good.dominates(&feasible));
        assert!(!feasible.dominates(&feasible));
    }

    #[test]
    fn layers_and_crowding() {
        let points: Vec<Standing> =
            [[0.0, 4.0], [1.0, 2.0], [2.0, 2.0], [4.0, 0.0], [5.0, 5.0], [1.5, 1.5]]
                .map(|p| standing(&p, 0.0))
                .into();
        assert_eq!(sort(&points), [vec![0, 1, 3, 5], vec![2], vec![4]]);
        let kept = select(&points, 3);
        assert_eq!(&kept[..2], [0, 3]);
        assert!(select(&points, 10).len() == 6);
    }
}
