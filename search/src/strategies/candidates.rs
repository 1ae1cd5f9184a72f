//! Candidates for the next trial: the best points so far, their neighbors, and points from
//! everywhere.

use paretune_spaces::{CompiledSpace, INACTIVE, Point};
use rand::{Rng, RngExt};

use crate::history::{History, Trial};
use crate::model::Features;

/// Passes candidates to `consider`: points from everywhere, and points around the best ones.
pub(super) fn explore(history: &History, rng: &mut dyn Rng, consider: &mut dyn FnMut(Point)) {
    let space = history.space();
    let leaders = leaders(history, 10);
    for _ in 0..240 {
        consider(space.sample(rng));
    }
    for _ in 0..120 {
        consider(space.sample_by_choice(rng));
    }
    for leader in &leaders {
        some_neighbors(space, leader, 30, rng).into_iter().for_each(&mut *consider);
        for _ in 0..6 {
            let other = &leaders[rng.random_range(0..leaders.len())];
            consider(space.crossover(leader, other, rng));
            consider(space.mutate(leader, rng, 0.2));
        }
    }
}

/// Returns the best `count` points, best first.
pub(super) fn top(scored: &mut [(f64, Point)], count: usize) -> Vec<Point> {
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    scored.iter().take(count).map(|(_, p)| p.clone()).collect()
}

/// Returns the best points so far: the front, or the points that are nearest to being feasible.
pub(super) fn leaders(history: &History, count: usize) -> Vec<Point> {
    let mut order: Vec<(&Trial, f64, f64)> = Vec::new();
    let single = history.problem().objectives().len() == 1;
    let front = history.archive().front();
    if !single && !front.is_empty() {
        let step = (front.len() as f64 / count as f64).max(1.0);
        return (0..front.len().min(count))
            .map(|i| front[(i as f64 * step) as usize].point.clone())
            .collect();
    }
    for trial in history.trials() {
        if let Some(s) = &trial.standing {
            order.push((trial, s.violation, s.objectives[0]));
        }
    }
    order.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.2.total_cmp(&b.2)));
    order.into_iter().take(count.div_ceil(2)).map(|(t, ..)| t.point.clone()).collect()
}

/// Returns about `count` neighbors at most, or all of them if there are few.
pub(super) fn some_neighbors(
    space: &CompiledSpace,
    point: &Point,
    count: usize,
    rng: &mut dyn Rng,
) -> Vec<Point> {
    let steps: Vec<(usize, u16)> = space
        .parameters()
        .iter()
        .enumerate()
        .filter(|(p, _)| point[*p] != INACTIVE)
        .flat_map(|(p, parameter)| (0..parameter.domain.values().len() as u16).map(move |v| (p, v)))
        .filter(|(p, v)| point[*p] != *v)
        .collect();
    if steps.len() <= count {
        return steps.into_iter().filter_map(|(p, v)| space.with(point, p, v)).collect();
    }
    (0..count)
        .filter_map(|_| {
            let (p, v) = steps[rng.random_range(0..steps.len())];
            space.with_random(point, p, v, rng)
        })
        .collect()
}

/// Returns the distance of two points: the number of relevant parameters that differ, in which
/// sizes count by their distance on their scale.
pub(super) fn distance(features: &Features, a: &Point, b: &Point) -> f64 {
    let differ = |p: &usize| {
        let (x, y) = (a[*p], b[*p]);
        if x == y {
            0.0
        } else if features.has_distances(*p) && x != INACTIVE && y != INACTIVE {
            0.3 + 0.7 * f64::from(x.abs_diff(y)) / f64::from(features.sizes[*p] - 1)
        } else {
            1.0
        }
    };
    features.relevant.iter().map(differ).sum()
}
