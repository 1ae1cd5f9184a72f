//! Extremely randomized regression trees (Geurts, Ernst and Wehenkel, 2006) over mixed, conditional
//! parameters. It is the model for spaces with many parameters, with which its cost hardly grows.
//!
//! Trees split sizes at a threshold and choices by a random subset of values; the two values of a
//! switch are parted. Inactive parameters go to a random side. The uncertainty is the variance
//! between trees plus the variance inside their leaves (Hutter, Xu, Hoos and Leyton-Brown, 2014).

use paretune_spaces::{INACTIVE, Point};
use rand::{Rng, RngExt};

use super::{Features, Model, Prediction};

/// Number of trees in a forest.
const TREES: usize = 40;
/// Number of points below which a node is not split.
const LEAF: usize = 3;

#[derive(Clone, Debug)]
enum Node {
    Leaf {
        mean: f64,
        variance: f64,
    },
    Split {
        parameter: usize,
        /// Per value, with inactive last, whether it goes to the second child.
        second: Box<[bool]>,
        children: [u32; 2],
    },
}

/// Forest that is fitted to data.
#[derive(Clone, Debug)]
pub struct Forest {
    trees: Vec<Vec<Node>>,
    /// Variance that even pure leaves have, a fraction of the variance of the data.
    floor: f64,
}

struct Grower<'a> {
    features: &'a Features,
    points: &'a [&'a Point],
    values: &'a [f64],
    nodes: Vec<Node>,
}

impl Forest {
    /// Fits a forest to data; `None` if there are none.
    pub fn fit(
        features: &Features,
        points: &[&Point],
        values: &[f64],
        rng: &mut dyn Rng,
    ) -> Option<Forest> {
        if points.is_empty() {
            return None;
        }
        let spread = moments(values.iter().copied()).1;
        let trees = (0..TREES)
            .map(|_| {
                let mut grower = Grower { features, points, values, nodes: Vec::new() };
                // A resampled set per tree makes trees disagree where data are few.
                let mut rows: Vec<usize> =
                    (0..points.len()).map(|_| rng.random_range(0..points.len())).collect();
                rows.sort_unstable();
                grower.grow(rows, rng);
                grower.nodes
            })
            .collect();
        Some(Forest { trees, floor: 1e-4 * spread })
    }
}

fn moments(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let n = values.clone().count().max(1) as f64;
    let mean = values.clone().sum::<f64>() / n;
    (mean, values.map(|v| (v - mean).powi(2)).sum::<f64>() / n)
}

impl Grower<'_> {
    fn grow(&mut self, rows: Vec<usize>, rng: &mut dyn Rng) -> u32 {
        let id = self.nodes.len() as u32;
        let (mean, variance) = moments(rows.iter().map(|r| self.values[*r]));
        self.nodes.push(Node::Leaf { mean, variance });
        if rows.len() < LEAF || variance <= 0.0 {
            return id;
        }
        let relevant = &self.features.relevant;
        let tries = (relevant.len() * 2 / 3).clamp(1, 24);
        let mut best: Option<(f64, usize, Box<[bool]>)> = None;
        for _ in 0..tries {
            let parameter = relevant[rng.random_range(0..relevant.len())];
            let Some(second) = self.cut(&rows, parameter, rng) else { continue };
            let side = |r: &usize| second[self.features.slot(self.points[*r], parameter)];
            let (mut sums, mut counts) = ([0.0; 2], [0.0; 2]);
            for r in &rows {
                let at = usize::from(side(r));
                sums[at] += self.values[*r] - mean;
                counts[at] += 1.0;
            }
            let gain: f64 = (0..2).map(|i| sums[i] * sums[i] / f64::max(counts[i], 1.0)).sum();
            if best.as_ref().is_none_or(|(g, ..)| gain > *g) {
                best = Some((gain, parameter, second));
            }
        }
        let Some((_, parameter, second)) = best else { return id };
        let (two, one): (Vec<usize>, Vec<usize>) =
            rows.into_iter().partition(|r| second[self.features.slot(self.points[*r], parameter)]);
        let children = [self.grow(one, rng), self.grow(two, rng)];
        self.nodes[id as usize] = Node::Split { parameter, second, children };
        id
    }

    /// Draws a division of the values that occur, with at least one value on both sides.
    fn cut(&self, rows: &[usize], parameter: usize, rng: &mut dyn Rng) -> Option<Box<[bool]>> {
        let inactive = usize::from(self.features.sizes[parameter]);
        let mut present = vec![false; inactive + 1];
        rows.iter().for_each(|r| present[self.features.slot(self.points[*r], parameter)] = true);
        let values: Vec<usize> = (0..=inactive).filter(|v| present[*v]).collect();
        if values.len() < 2 {
            return None;
        }
        let mut second: Box<[bool]> = (0..=inactive).map(|_| rng.random_bool(0.5)).collect();
        if self.features.has_distances(parameter) {
            let active: Vec<usize> = values.iter().copied().filter(|v| *v != inactive).collect();
            let factors_of_two = &self.features.factors_of_two[parameter];
            if !factors_of_two.is_empty() && !active.is_empty() && rng.random_bool(0.3) {
                let bound = factors_of_two[active[rng.random_range(0..active.len())]];
                (0..inactive).for_each(|v| second[v] = factors_of_two[v] >= bound);
                if values.iter().any(|v| second[*v] != second[values[0]]) {
                    return Some(second);
                }
            }
            if active.len() >= 2 {
                let threshold = rng.random_range(active[0] + 1..=active[active.len() - 1]);
                (0..inactive).for_each(|v| second[v] = v >= threshold);
                return Some(second);
            }
        }
        if values.iter().all(|v| second[*v] == second[values[0]]) {
            let odd = values[rng.random_range(0..values.len())];
            second[odd] = !second[odd];
        }
        Some(second)
    }
}

impl Model for Forest {
    fn predict(&self, point: &Point) -> Prediction {
        let (mut sum, mut squares, mut inside) = (0.0, 0.0, 0.0);
        for tree in &self.trees {
            let mut at = 0;
            loop {
                match &tree[at] {
                    Node::Leaf { mean, variance } => {
                        sum += mean;
                        squares += mean * mean;
                        inside += variance;
                        break;
                    }
                    Node::Split { parameter, second, children } => {
                        let value = point[*parameter];
                        let slot =
                            if value == INACTIVE { second.len() - 1 } else { usize::from(value) };
                        at = children[usize::from(second[slot])] as usize;
                    }
                }
            }
        }
        let n = self.trees.len() as f64;
        let mean = sum / n;
        let variance = (squares / n - mean * mean).max(0.0) + inside / n + self.floor;
        Prediction { mean, deviation: variance.sqrt() }
    }
}

#[cfg(test)]
mod tests {
    use paretune_spaces::{Domain, Parameter, Space};
    use rand::SeedableRng;
    use rand_xoshiro::Xoshiro256PlusPlus;

    use super::*;

    #[test]
    fn sees_conditions_order_and_kinds() {
        let mut space = Space::new();
        space.parameters.push(Parameter::new("kind", Domain::choice(["a", "b", "c", "d"])));
        let tile = Parameter::new("tile", Domain::sizes([1, 2, 4, 8, 16]));
        space.parameters.push(tile.when("kind != 'a'".parse().unwrap()));
        for i in 0..20 {
            space.parameters.push(Parameter::new(format!("noise{i}"), Domain::switch()));
        }
        let space = space.compile().unwrap();
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(5);
        let value = |p: &Point| {
            if p[1] == INACTIVE {
                20.0
            } else {
                f64::from(p[1]) + if p[0] == 2 { 5.0 } else { 0.0 }
            }
        };
        let points: Vec<Point> = (0..300).map(|_| space.sample(&mut rng)).collect();
        let values: Vec<f64> = points.iter().map(value).collect();
        let train: Vec<&Point> = points[..200].iter().collect();
        let forest = Forest::fit(&Features::of(&space), &train, &values[..200], &mut rng).unwrap();
        let (_, spread) = moments(values.iter().copied());
        let error: f64 =
            (200..300).map(|i| (forest.predict(&points[i]).mean - values[i]).powi(2)).sum::<f64>()
                / 100.0;
        assert!(error < 0.15 * spread, "{error} of {spread}");
        assert!(points.iter().all(|p| forest.predict(p).deviation > 0.0));
    }
}
