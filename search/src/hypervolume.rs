//! Exact hypervolume: the volume that a set of points dominates below a reference point. All
//! coordinates are minimized.
//!
//! Two dimensions are sorted, and three are swept over a staircase (Fonseca, Paquete and
//! López-Ibáñez, 2006). More are sliced along the last coordinate, where each point adds its
//! exclusive volume (While, Bradstreet and Barone, 2012): the other points are clipped to the box
//! of the new one, which leaves few.

use std::collections::BTreeMap;

/// Real number with a total order; never NaN here.
#[derive(Clone, Copy, PartialEq)]
struct Key(f64);

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// Returns the volume that `points` dominate below `reference`. Points add nothing unless they are
/// finite and strictly below the reference in every coordinate.
///
/// # Panics
/// Panics if a point has fewer coordinates than the reference.
#[must_use]
pub fn hypervolume<P: AsRef<[f64]>>(points: &[P], reference: &[f64]) -> f64 {
    let inside = |p: &&[f64]| p.iter().zip(reference).all(|(x, r)| x.is_finite() && x < r);
    let points: Vec<&[f64]> =
        points.iter().map(|p| &p.as_ref()[..reference.len()]).filter(inside).collect();
    volume(points, reference)
}

/// Returns the volume that `point` would add to that of `points`.
#[must_use]
pub fn contribution<P: AsRef<[f64]>>(points: &[P], point: &[f64], reference: &[f64]) -> f64 {
    if !point.iter().zip(reference).all(|(x, r)| x.is_finite() && x < r) {
        return 0.0;
    }
    let own: f64 = point.iter().zip(reference).map(|(x, r)| r - x).product();
    // The part of the point's box that others dominate is dominated by their projections into it.
    let limited: Vec<Vec<f64>> = points
        .iter()
        .map(|p| p.as_ref().iter().zip(point).map(|(x, y)| x.max(*y)).collect::<Vec<f64>>())
        .filter(|p| p.iter().zip(reference).all(|(x, r)| x.is_finite() && x < r))
        .collect();
    (own - volume(limited.iter().map(Vec::as_slice).collect(), reference)).max(0.0)
}

fn volume(mut points: Vec<&[f64]>, reference: &[f64]) -> f64 {
    match reference.len() {
        0 => 0.0,
        1 => points.iter().map(|p| reference[0] - p[0]).fold(0.0, f64::max),
        2 => {
            points.sort_unstable_by(|a, b| a[0].total_cmp(&b[0]).then(a[1].total_cmp(&b[1])));
            let mut height = reference[1];
            let mut area = 0.0;
            for p in points {
                if p[1] < height {
                    area += (reference[0] - p[0]) * (height - p[1]);
                    height = p[1];
                }
            }
            area
        }
        3 => sweep(points, reference),
        _ => slices(points, reference),
    }
}

/// Computes three dimensions: a staircase of the first two coordinates grows along the third.
fn sweep(mut points: Vec<&[f64]>, reference: &[f64]) -> f64 {
    points.sort_unstable_by(|a, b| a[2].total_cmp(&b[2]));
    // Maps first to second coordinates; falling, and bounded by the reference on both sides.
    let mut stairs: BTreeMap<Key, f64> = BTreeMap::new();
    let (mut area, mut total, mut depth) = (0.0, 0.0, f64::NEG_INFINITY);
    for p in points {
        if depth.is_finite() {
            total += area * (p[2] - depth);
        }
        depth = p[2];
        let (x, y) = (p[0], p[1]);
        let left = stairs.range(..=Key(x)).next_back().map(|(_, y)| *y);
        if left.is_some_and(|before| before <= y) {
            continue;
        }
        // Removes the steps that the new one covers, strip by strip.
        let mut from = x;
        let mut height = left.unwrap_or(reference[1]);
        let covered: Vec<(Key, f64)> = stairs
            .range(Key(x)..)
            .take_while(|(_, other)| **other >= y)
            .map(|(k, v)| (*k, *v))
            .collect();
        for (step, level) in covered {
            area += (step.0 - from) * (height - y);
            (from, height) = (step.0, level);
            stairs.remove(&step);
        }
        let end = stairs.range(Key(x)..).next().map_or(reference[0], |(k, _)| k.0);
        area += (end - from) * (height - y);
        stairs.insert(Key(x), y);
    }
    if depth.is_finite() { total + area * (reference[2] - depth) } else { 0.0 }
}

/// Computes four and more dimensions as slices: between two values of the last coordinate lies a
/// volume of one dimension less.
fn slices(mut points: Vec<&[f64]>, reference: &[f64]) -> f64 {
    let last = reference.len() - 1;
    points.sort_unstable_by(|a, b| a[last].total_cmp(&b[last]));
    let below = &reference[..last];
    let mut front: Vec<&[f64]> = Vec::new();
    let (mut base, mut total, mut depth) = (0.0, 0.0, f64::NEG_INFINITY);
    for p in points {
        if depth.is_finite() {
            total += base * (p[last] - depth);
        }
        depth = p[last];
        let p = &p[..last];
        if front.iter().any(|q| q.iter().zip(p).all(|(a, b)| a <= b)) {
            continue;
        }
        base += exclusive(&front, p, below);
        front.retain(|q| !q.iter().zip(p).all(|(a, b)| b <= a));
        front.push(p);
    }
    if depth.is_finite() { total + base * (reference[last] - depth) } else { 0.0 }
}

fn exclusive(front: &[&[f64]], point: &[f64], reference: &[f64]) -> f64 {
    let own: f64 = point.iter().zip(reference).map(|(x, r)| r - x).product();
    let limited: Vec<Vec<f64>> =
        front.iter().map(|q| q.iter().zip(point).map(|(a, b)| a.max(*b)).collect()).collect();
    own - volume(limited.iter().map(Vec::as_slice).collect(), reference)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Computes the volume by inclusion and exclusion over all subsets.
    fn brute(points: &[Vec<f64>], reference: &[f64]) -> f64 {
        (1u32..1 << points.len())
            .map(|set| {
                let chosen = points.iter().enumerate().filter(|(i, _)| set >> i & 1 == 1);
                let mut corner = vec![f64::NEG_INFINITY; reference.len()];
                chosen
                    .for_each(|(_, p)| corner.iter_mut().zip(p).for_each(|(c, x)| *c = c.max(*x)));
                let box_: f64 =
                    corner.iter().zip(reference).map(|(c, r)| (r - c).max(0.0)).product();
                if set.count_ones() % 2 == 1 { box_ } else { -box_ }
            })
            .sum()
    }

    #[test]
    fn known_values() {
        let unit = |p: &[Vec<f64>], d: usize| hypervolume(p, &vec![1.0; d]);
        assert_eq!(unit(&[], 3), 0.0);
        assert_eq!(unit(&[vec![0.25]], 1), 0.75);
        assert_eq!(unit(&[vec![0.0, 0.5], vec![0.5, 0.0]], 2), 0.75);
        assert_eq!(unit(&[vec![0.0, 0.0, 0.5], vec![0.5, 0.0, 0.0]], 3), 0.75);
        assert_eq!(unit(&[vec![0.0, 1.0], vec![f64::NAN, 0.0], vec![2.0, -9.0]], 2), 0.0);
        // The complements of the unit vectors form a corner staircase in four dimensions.
        let four: Vec<Vec<f64>> =
            (0..4).map(|i| (0..4).map(|j| if i == j { 0.5 } else { 0.0 }).collect()).collect();
        assert!((unit(&four, 4) - brute(&four, &[1.0; 4])).abs() < 1e-12);
    }

    #[test]
    fn thousands_of_points_in_every_dimension() {
        // Points on a plane do not dominate each other.
        let mut state = 1u64;
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f64 / (1u64 << 24) as f64
        };
        for d in 2..=3 {
            let points: Vec<Vec<f64>> = (0..3000)
                .map(|_| {
                    let raw: Vec<f64> = (0..d).map(|_| -next().max(1e-9).ln()).collect();
                    let sum: f64 = raw.iter().sum();
                    raw.iter().map(|x| x / sum).collect()
                })
                .collect();
            let volume = hypervolume(&points, &vec![1.0; d]);
            let simplex = 1.0 - 1.0 / (1..=d).product::<usize>() as f64;
            assert!((volume - simplex).abs() < 0.02, "{d}: {volume} against {simplex}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]
        #[test]
        fn equals_inclusion_and_exclusion(
            d in 1usize..6,
            raw in prop::collection::vec(prop::collection::vec(0u8..9, 5), 1..9),
        ) {
            // A coarse grid makes ties common.
            let points: Vec<Vec<f64>> =
                raw.iter().map(|p| p[..d].iter().map(|x| f64::from(*x) / 8.0).collect()).collect();
            let reference = vec![1.0; d];
            let expected = brute(&points, &reference);
            prop_assert!((hypervolume(&points, &reference) - expected).abs() < 1e-9);
            let (first, rest) = points.split_first().unwrap();
            let added = contribution(rest, first, &reference);
            prop_assert!((hypervolume(rest, &reference) + added - expected).abs() < 1e-9);
        }
    }
}
