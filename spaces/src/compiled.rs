//! Solved space: counting, numbering and sampling of its configurations.

use std::fmt;

use rand::{Rng, RngExt};

use crate::diagram::{Diagram, Edge, INACTIVE, Node, NodeId, solve};
use crate::point::Point;
use crate::space::{Parameter, Space, SpaceError};

/// Space whose conditions and constraints are solved.
pub struct CompiledSpace {
    space: Space,
    pub(crate) diagram: Diagram,
    pub(crate) root: NodeId,
    groups: Vec<Vec<usize>>,
    /// Per parameter, the index of its group.
    pub(crate) group_of: Vec<usize>,
    /// Root node of each group.
    pub(crate) group_roots: Vec<NodeId>,
    /// Positions of each parameter's sizes; empty if it has none.
    positions: Vec<Vec<f64>>,
}

impl fmt::Debug for CompiledSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (parameters, nodes) = (self.space.parameters.len(), self.diagram.nodes.len());
        write!(
            f,
            "CompiledSpace({parameters} parameters, 1e{:.1}, {nodes} nodes)",
            self.log10_len()
        )
    }
}

impl CompiledSpace {
    pub(crate) fn new(space: Space) -> Result<CompiledSpace, SpaceError> {
        space.check()?;
        let (diagram, root) = solve(&space)?;
        Ok(Self::assemble(space, diagram, root))
    }

    /// Builds a space that consists of listed configurations only. `rows` hold an index into the
    /// domain per parameter; duplicates count once. Conditions and constraints of `space` are
    /// ignored.
    ///
    /// # Errors
    /// Returns an error if the description is inconsistent, there is no row, or a row does not fit
    /// the parameters.
    pub fn from_rows(mut space: Space, mut rows: Vec<Point>) -> Result<CompiledSpace, SpaceError> {
        space.constraints.clear();
        space.parameters.iter_mut().for_each(|p| p.condition = None);
        space.check()?;
        for (number, row) in rows.iter().enumerate() {
            let fits = row.len() == space.parameters.len()
                && row
                    .iter()
                    .zip(&space.parameters)
                    .all(|(v, p)| usize::from(*v) < p.domain.values().len());
            if !fits {
                let problem = "does not fit the parameters".to_owned();
                return Err(SpaceError::Entry { entry: format!("row {}", number + 1), problem });
            }
        }
        rows.sort_unstable();
        rows.dedup();
        if rows.is_empty() {
            return Err(SpaceError::Empty(": none is listed".to_owned()));
        }
        let rows: Vec<Box<[u16]>> = rows.into_iter().map(|p| p.0).collect();
        let mut diagram = Diagram::new();
        let root = diagram.of_rows(&rows, 0);
        diagram.finish();
        Ok(Self::assemble(space, diagram, root))
    }

    fn assemble(space: Space, diagram: Diagram, root: NodeId) -> CompiledSpace {
        let group_roots: Vec<NodeId> = match &diagram.nodes[root as usize] {
            Node::Product(children) => children.to_vec(),
            _ => vec![root],
        };
        let positions = space.parameters.iter().map(|p| p.domain.positions().unwrap_or_default());
        let mut compiled = CompiledSpace {
            positions: positions.collect(),
            groups: Vec::new(),
            group_of: vec![0; space.parameters.len()],
            space,
            diagram,
            root,
            group_roots,
        };
        for (number, node) in compiled.group_roots.clone().into_iter().enumerate() {
            // Every configuration of a group decides the same parameters, so the first one tells
            // them.
            let mut members = Vec::new();
            compiled.walk(node, |parameter, _, _| {
                members.push(parameter);
                0
            });
            members.sort_unstable();
            members.iter().for_each(|p| compiled.group_of[*p] = number);
            compiled.groups.push(members);
        }
        compiled
    }

    /// Walks down from `node`. The function `choose` gets the parameter, its edges and their
    /// running counts, and returns the index of an edge.
    pub(crate) fn walk(
        &self,
        node: NodeId,
        mut choose: impl FnMut(usize, &[Edge], &[u128]) -> usize,
    ) {
        let mut open = vec![node];
        while let Some(node) = open.pop() {
            match &self.diagram.nodes[node as usize] {
                Node::Done => {}
                Node::Product(children) => open.extend(children.iter().rev()),
                Node::Decision { parameter, edges, cumulative } => {
                    let chosen = choose(usize::from(*parameter), edges, cumulative);
                    open.push(edges[chosen].child);
                }
            }
        }
    }

    pub(crate) fn blank(&self) -> Point {
        Point(vec![INACTIVE; self.space.parameters.len()].into())
    }

    /// Returns the description of the space.
    #[must_use]
    pub fn space(&self) -> &Space {
        &self.space
    }

    /// Returns the parameters in the order of the values of a [`Point`].
    #[must_use]
    pub fn parameters(&self) -> &[Parameter] {
        &self.space.parameters
    }

    /// Returns the positions of a parameter's sizes from 0 to 1 (see
    /// [`Domain::positions`](crate::Domain)); empty if its values have no distances.
    #[must_use]
    pub fn positions(&self, parameter: usize) -> &[f64] {
        &self.positions[parameter]
    }

    /// Returns the groups of parameters, by index. Parameters of a group depend on each other
    /// through conditions or constraints, and on no other group.
    #[must_use]
    pub fn groups(&self) -> &[Vec<usize>] {
        &self.groups
    }

    /// Returns the number of configurations, if 128 bits hold it.
    #[must_use]
    pub fn len(&self) -> Option<u128> {
        self.diagram.counts[self.root as usize].exact()
    }

    /// Returns false: a space without configurations does not compile.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Returns the decimal logarithm of the number of configurations.
    #[must_use]
    pub fn log10_len(&self) -> f64 {
        self.diagram.counts[self.root as usize].log10()
    }

    /// Returns the number of nodes of the solved form, a measure of its memory.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.diagram.nodes.len()
    }

    /// Draws a configuration, each with the same probability.
    pub fn sample<R: Rng + ?Sized>(&self, rng: &mut R) -> Point {
        let mut point = self.blank();
        self.walk(self.root, |parameter, edges, cumulative| {
            let chosen = weighted(cumulative, rng);
            point.0[parameter] = edges[chosen].value;
            chosen
        });
        point
    }

    /// Draws a configuration by drawing every decision evenly among the values that are still
    /// possible. Unlike [`CompiledSpace::sample`], it visits branches with few configurations as
    /// often as those with many.
    pub fn sample_by_choice<R: Rng + ?Sized>(&self, rng: &mut R) -> Point {
        let mut point = self.blank();
        self.walk(self.root, |parameter, edges, _| {
            let chosen = if edges.len() == 1 { 0 } else { rng.random_range(0..edges.len()) };
            point.0[parameter] = edges[chosen].value;
            chosen
        });
        point
    }

    /// Builds a configuration from decisions of the caller. The function `decide` gets a parameter
    /// and, per value that is still possible, the running fraction of configurations up to it
    /// (ending at 1). It returns the index of the value to take. Parameters with a single value are
    /// not asked for.
    pub fn choose(&self, mut decide: impl FnMut(usize, &[f64]) -> usize) -> Point {
        let mut point = self.blank();
        let mut shares = Vec::new();
        self.walk(self.root, |parameter, edges, cumulative| {
            let chosen = if edges.len() == 1 {
                0
            } else {
                let total = cumulative.last().map_or(1.0, |t| *t as f64);
                shares.clear();
                shares.extend(cumulative.iter().map(|c| *c as f64 / total));
                decide(parameter, &shares).min(edges.len() - 1)
            };
            point.0[parameter] = edges[chosen].value;
            chosen
        });
        point
    }

    /// Returns whether the point is a configuration of this space.
    #[must_use]
    pub fn contains(&self, point: &Point) -> bool {
        if point.len() != self.space.parameters.len() {
            return false;
        }
        let mut valid = true;
        self.walk(self.root, |parameter, edges, _| {
            let found = edges.iter().position(|e| e.value == point[parameter]);
            valid &= found.is_some();
            found.unwrap_or(0)
        });
        valid
    }

    /// Returns the number of a valid point, from 0 to [`CompiledSpace::len`]; `None` if the point
    /// is not valid or the space is too large.
    #[must_use]
    pub fn index(&self, point: &Point) -> Option<u128> {
        self.len()?;
        if point.len() != self.space.parameters.len() {
            return None;
        }
        self.index_below(self.root, point)
    }

    fn index_below(&self, node: NodeId, point: &Point) -> Option<u128> {
        match &self.diagram.nodes[node as usize] {
            Node::Done => Some(0),
            Node::Product(children) => children.iter().try_fold(0, |index, child| {
                let size = self.diagram.counts[*child as usize].exact()?;
                Some(index * size + self.index_below(*child, point)?)
            }),
            Node::Decision { parameter, edges, cumulative } => {
                let at = edges.iter().position(|e| e.value == point[usize::from(*parameter)])?;
                let before = if at == 0 { 0 } else { cumulative[at - 1] };
                Some(before + self.index_below(edges[at].child, point)?)
            }
        }
    }

    /// Returns the point with number `index`; `None` beyond the end or if the space is too large.
    #[must_use]
    pub fn at(&self, index: u128) -> Option<Point> {
        if index >= self.len()? {
            return None;
        }
        let mut point = self.blank();
        let mut open = vec![(self.root, index)];
        while let Some((node, mut index)) = open.pop() {
            match &self.diagram.nodes[node as usize] {
                Node::Done => {}
                Node::Product(children) => {
                    for child in children.iter().rev() {
                        let size = self.diagram.counts[*child as usize].exact()?;
                        open.push((*child, index % size));
                        index /= size;
                    }
                }
                Node::Decision { parameter, edges, cumulative } => {
                    let at = cumulative.partition_point(|c| *c <= index);
                    point.0[usize::from(*parameter)] = edges[at].value;
                    open.push((
                        edges[at].child,
                        index - if at == 0 { 0 } else { cumulative[at - 1] },
                    ));
                }
            }
        }
        Some(point)
    }
}

/// Draws an index in proportion to the increments of `cumulative`.
pub(crate) fn weighted<R: Rng + ?Sized>(cumulative: &[u128], rng: &mut R) -> usize {
    match cumulative {
        [] | [_] => 0,
        [.., total] => {
            let ticket = rng.random_range(0..*total);
            cumulative.partition_point(|c| *c <= ticket)
        }
    }
}
