//! Moves between valid points: neighbors, mutation, crossover and completion. None of them leaves
//! the space.

use std::collections::HashMap;

use rand::{Rng, RngExt};

use crate::compiled::{CompiledSpace, weighted};
use crate::diagram::{Edge, INACTIVE, Node, NodeId};
use crate::point::Point;
use crate::{Configuration, Kind, Value};

/// Number of nodes that a single completion visits before it gives up.
const MAX_COMPLETION_NODES: usize = 20_000;
/// Distance of unlike values. Distances are integers, so that sums do not depend on their order.
const UNLIKE: f64 = 1_000.0;

/// List of nodes that are still to be walked. Shared tails make backtracking cheap.
struct PendingNodes<'a> {
    node: NodeId,
    next: Option<&'a PendingNodes<'a>>,
}

/// Change that a completion makes, and the values that it tries to keep.
struct Change<'a> {
    from: &'a Point,
    parameter: usize,
    value: u16,
    /// Value that a parameter tries first if it was inactive before.
    preferred: &'a dyn Fn(usize) -> u16,
}

impl CompiledSpace {
    /// Returns the point that differs from `from` in `parameter`, which gets the value with index
    /// `value`; `None` if no valid point does. Parameters that become active take their default or,
    /// if that is impossible, another value. Parameters that become inactive are dropped, and all
    /// others stay.
    #[must_use]
    pub fn with(&self, from: &Point, parameter: usize, value: u16) -> Option<Point> {
        let default = |p: usize| self.parameters()[p].default as u16;
        self.changed(&Change { from, parameter, value, preferred: &default })
    }

    /// Returns the point that differs from `from` in `parameter`, as [`CompiledSpace::with`] does,
    /// but with random values for parameters that become active.
    pub fn with_random<R: Rng + ?Sized>(
        &self,
        from: &Point,
        parameter: usize,
        value: u16,
        rng: &mut R,
    ) -> Option<Point> {
        let salt: u64 = rng.random();
        let preferred = |p: usize| {
            let mixed = (salt ^ (p as u64 + 1)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mixed = (mixed ^ (mixed >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
            ((mixed >> 32) % self.parameters()[p].domain.values().len() as u64) as u16
        };
        self.changed(&Change { from, parameter, value, preferred: &preferred })
    }

    fn changed(&self, change: &Change) -> Option<Point> {
        let root = self.group_roots[*self.group_of.get(change.parameter)?];
        let mut point = change.from.clone();
        let mut nodes_left = MAX_COMPLETION_NODES;
        self.complete_below(
            Some(&PendingNodes { node: root, next: None }),
            change,
            &mut point,
            &mut nodes_left,
        )
        .then_some(point)
    }

    fn complete_below(
        &self,
        open: Option<&PendingNodes>,
        change: &Change,
        point: &mut Point,
        nodes_left: &mut usize,
    ) -> bool {
        let Some(PendingNodes { node, next }) = open else { return true };
        if *nodes_left == 0 {
            return false;
        }
        *nodes_left -= 1;
        match &self.diagram.nodes[*node as usize] {
            Node::Done => self.complete_below(*next, change, point, nodes_left),
            Node::Product(children) => {
                self.complete_product(children, *next, change, point, nodes_left)
            }
            Node::Decision { parameter, edges, .. } => {
                let p = usize::from(*parameter);
                let mut take = |edge: &Edge, nodes_left: &mut usize| {
                    point.0[p] = edge.value;
                    self.complete_below(
                        Some(&PendingNodes { node: edge.child, next: *next }),
                        change,
                        point,
                        nodes_left,
                    )
                };
                if edges[0].value == INACTIVE {
                    return p != change.parameter && take(&edges[0], nodes_left);
                }
                let before = change.from[p];
                let fixed = if p == change.parameter { Some(change.value) } else { None };
                if let Some(value) = fixed.or((before != INACTIVE).then_some(before)) {
                    return edges
                        .iter()
                        .find(|e| e.value == value)
                        .is_some_and(|e| take(e, nodes_left));
                }
                let preferred = (change.preferred)(p);
                let first = edges.iter().position(|e| e.value >= preferred).unwrap_or(0);
                (0..edges.len()).any(|i| take(&edges[(first + i) % edges.len()], nodes_left))
            }
        }
    }

    fn complete_product(
        &self,
        children: &[NodeId],
        next: Option<&PendingNodes>,
        change: &Change,
        point: &mut Point,
        nodes_left: &mut usize,
    ) -> bool {
        match children {
            [] => self.complete_below(next, change, point, nodes_left),
            [first @ .., last] => {
                let next = PendingNodes { node: *last, next };
                self.complete_product(first, Some(&next), change, point, nodes_left)
            }
        }
    }

    /// Returns all points that differ from `point` in one parameter and in the parameters that
    /// exist only because of it.
    #[must_use]
    pub fn neighbors(&self, point: &Point) -> Vec<Point> {
        let mut found = Vec::new();
        for (p, parameter) in self.parameters().iter().enumerate() {
            let now = point[p];
            if now != INACTIVE {
                let others =
                    (0..parameter.domain.values().len() as u16).filter(|value| *value != now);
                found.extend(others.filter_map(|value| self.with(point, p, value)));
            }
        }
        found
    }

    /// Returns the points that differ from `point` in one parameter, as
    /// [`CompiledSpace::neighbors`] does, except that sizes move only to the nearest valid size on
    /// either side.
    #[must_use]
    pub fn adjacent(&self, point: &Point) -> Vec<Point> {
        let mut found = Vec::new();
        for (p, parameter) in self.parameters().iter().enumerate() {
            let now = point[p];
            if now == INACTIVE {
                continue;
            }
            let len = parameter.domain.values().len() as u16;
            if parameter.domain.kind() == Kind::Sizes {
                found.extend((0..now).rev().find_map(|v| self.with(point, p, v)));
                found.extend((now + 1..len).find_map(|v| self.with(point, p, v)));
            } else {
                found.extend((0..len).filter(|v| *v != now).filter_map(|v| self.with(point, p, v)));
            }
        }
        found
    }

    /// Draws a valid point near `from`. Every active parameter changes with probability `rate`, and
    /// wherever its old value is no longer possible: switches flip, sizes mostly move to sizes
    /// close by, and choices are drawn evenly. At least one parameter changes if the space has
    /// another point.
    pub fn mutate<R: Rng + ?Sized>(&self, from: &Point, rng: &mut R, rate: f64) -> Point {
        let rate = rate.clamp(0.0, 1.0);
        for attempt in 0..16 {
            // A rate that changes nothing is useless: it is raised until something moves.
            let rate = (rate * (1.0 + f64::from(attempt) / 2.0)).clamp(1e-3, 1.0);
            let point = self.blend(rng, |p, _| from[p], rate);
            if point != *from {
                return point;
            }
        }
        let any: Vec<usize> = (0..from.len()).filter(|p| from[*p] != INACTIVE).collect();
        let start = if any.is_empty() { 0 } else { rng.random_range(0..any.len()) };
        for i in 0..any.len() {
            let p = any[(start + i) % any.len()];
            let len = self.parameters()[p].domain.values().len() as u16;
            let shift = rng.random_range(0..len);
            let others = (0..len).map(|v| (v + shift) % len).filter(|v| *v != from[p]);
            if let Some(point) = others.into_iter().find_map(|v| self.with_random(from, p, v, rng))
            {
                return point;
            }
        }
        self.sample(rng)
    }

    /// Combines two points into a valid one that takes each parameter from one or the other. Groups
    /// of parameters that depend on each other mostly come from one parent.
    pub fn crossover<R: Rng + ?Sized>(&self, a: &Point, b: &Point, rng: &mut R) -> Point {
        let sides: Vec<f64> =
            self.group_roots.iter().map(|_| if rng.random_bool(0.5) { 0.9 } else { 0.1 }).collect();
        // A single group must mix within itself.
        let single = self.group_roots.len() == 1;
        self.blend(
            rng,
            |p, coin| {
                let share = if single { 0.5 } else { sides[self.group_of[p]] };
                let (first, second) = if coin < share { (a[p], b[p]) } else { (b[p], a[p]) };
                if first == INACTIVE { second } else { first }
            },
            0.0,
        )
    }

    /// Walks down and takes the value `wanted` (given a random number from 0 to 1) if it is
    /// possible, else a close one. With probability `rate` it takes another value on purpose.
    fn blend<R: Rng + ?Sized>(
        &self,
        rng: &mut R,
        wanted: impl Fn(usize, f64) -> u16,
        rate: f64,
    ) -> Point {
        let mut point = self.blank();
        self.walk(self.root, |p, edges, cumulative| {
            let chosen = if edges.len() == 1 {
                0
            } else {
                let value = wanted(p, rng.random());
                let kept = edges.iter().position(|e| e.value == value);
                let kind = self.parameters()[p].domain.kind();
                match kept {
                    Some(at) if rate == 0.0 || !rng.random_bool(rate) => at,
                    // Both branches flip a switch, which has but one other value.
                    Some(at) if kind != Kind::Choice && rng.random_bool(0.7) => {
                        step(at, edges.len(), rng)
                    }
                    Some(at) => (at + rng.random_range(1..edges.len())) % edges.len(),
                    None if kind != Kind::Choice && value != INACTIVE => closest(edges, value, rng),
                    None => weighted(cumulative, rng),
                }
            };
            point.0[p] = edges[chosen].value;
            chosen
        });
        point
    }

    /// Returns the valid point that contradicts as few values of `wanted` as possible and is near
    /// the defaults elsewhere, as far as constraints allow. A number that a domain of sizes lacks
    /// counts as its nearest size; other values that the space does not have are ignored.
    #[must_use]
    pub fn closest(&self, wanted: &Configuration) -> Point {
        let wanted: Vec<Option<u16>> = self
            .parameters()
            .iter()
            .map(|p| {
                wanted.get(&p.name).and_then(|v: &Value| p.domain.nearest(v)).map(|i| i as u16)
            })
            .collect();
        let mut costs = HashMap::new();
        self.cost(self.root, &wanted, &mut costs);
        let mut point = self.blank();
        self.walk(self.root, |p, edges, _| {
            let total = |e: &Edge| {
                add(self.edge_cost(p, e, &wanted), costs.get(&e.child).copied().unwrap_or((0, 0)))
            };
            let chosen = (0..edges.len()).min_by_key(|i| total(&edges[*i])).unwrap_or(0);
            point.0[p] = edges[chosen].value;
            chosen
        });
        point
    }

    /// Returns the point with every default, or the valid point closest to it.
    #[must_use]
    pub fn default_point(&self) -> Point {
        self.closest(&Configuration::new())
    }

    /// Returns the number of contradicted values, then the distance from wanted values and
    /// defaults.
    fn edge_cost(&self, p: usize, edge: &Edge, wanted: &[Option<u16>]) -> (u64, u64) {
        match (wanted[p], edge.value) {
            (Some(_), INACTIVE) => (1, 0),
            (None, INACTIVE) => (0, 0),
            (Some(w), v) => (u64::from(w != v), self.distance(p, w, v)),
            (None, v) => (0, self.distance(p, self.parameters()[p].default as u16, v)),
        }
    }

    /// Returns the distance between two values of a parameter: [`UNLIKE`] for unlike values, and on
    /// average [`UNLIKE`] from a size to the next.
    fn distance(&self, p: usize, a: u16, b: u16) -> u64 {
        let positions = self.positions(p);
        if a == b {
            0
        } else if positions.is_empty() {
            UNLIKE as u64
        } else {
            let apart = (positions[usize::from(a)] - positions[usize::from(b)]).abs();
            (apart * (positions.len() - 1) as f64 * UNLIKE) as u64
        }
    }

    fn cost(
        &self,
        node: NodeId,
        wanted: &[Option<u16>],
        costs: &mut HashMap<NodeId, (u64, u64)>,
    ) -> (u64, u64) {
        if let Some(known) = costs.get(&node) {
            return *known;
        }
        let cost = match &self.diagram.nodes[node as usize] {
            Node::Done => (0, 0),
            Node::Product(children) => {
                children.iter().fold((0, 0), |sum, c| add(sum, self.cost(*c, wanted, costs)))
            }
            Node::Decision { parameter, edges, .. } => edges
                .iter()
                .map(|e| {
                    add(
                        self.edge_cost(usize::from(*parameter), e, wanted),
                        self.cost(e.child, wanted, costs),
                    )
                })
                .min()
                .unwrap_or((0, 0)),
        };
        costs.insert(node, cost);
        cost
    }
}

fn add(a: (u64, u64), b: (u64, u64)) -> (u64, u64) {
    (a.0 + b.0, a.1 + b.1)
}

/// Draws an index a few steps above or below `at`, small steps more likely; never `at` itself.
fn step<R: Rng + ?Sized>(at: usize, len: usize, rng: &mut R) -> usize {
    let mut size = 1;
    while size < len && rng.random_bool(0.3) {
        size += 1;
    }
    let up = at + size < len;
    let down = at >= size;
    match (up, down) {
        (true, true) => {
            if rng.random_bool(0.5) {
                at + size
            } else {
                at - size
            }
        }
        (true, false) => at + size,
        (false, true) => at - size,
        (false, false) => (at + rng.random_range(1..len)) % len,
    }
}

/// Returns the index of the edge whose size is the fewest sizes away. Ties are drawn.
fn closest<R: Rng + ?Sized>(edges: &[Edge], value: u16, rng: &mut R) -> usize {
    let coin = rng.random_bool(0.5);
    (0..edges.len())
        .min_by_key(|i| (edges[*i].value.abs_diff(value), (edges[*i].value > value) == coin))
        .unwrap_or(0)
}
