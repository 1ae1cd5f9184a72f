//! A solved space: counting, numbering, sampling, and the passage between configurations and points.

use std::fmt;
use std::ops::{Deref, DerefMut};

use rand::{Rng, RngExt};

use crate::diagram::{Diagram, Edge, INACTIVE, Node, NodeId, solve};
use crate::space::{Parameter, Space, SpaceError};
use crate::{Configuration, Value};

/// A configuration in compact form: per parameter the index of its value, or [`INACTIVE`].
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Point(pub(crate) Box<[u16]>);

impl Point {
    /// Per parameter the index of its value, or [`INACTIVE`]. Whether it is valid is for
    /// [`CompiledSpace::contains`] to say.
    #[must_use]
    pub fn new(values: Vec<u16>) -> Point {
        Point(values.into())
    }
}

impl Deref for Point {
    type Target = [u16];
    fn deref(&self) -> &[u16] {
        &self.0
    }
}

impl DerefMut for Point {
    fn deref_mut(&mut self) -> &mut [u16] {
        &mut self.0
    }
}

impl fmt::Debug for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|v| if *v == INACTIVE { -1 } else { i32::from(*v) }))
            .finish()
    }
}

/// Why a configuration is not part of a space.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum EncodeError {
    /// The space has no such parameter.
    #[error("there is no parameter `{0}` in this space")]
    Unknown(String),
    /// The parameter's condition does not hold.
    #[error("`{name}` does not exist here: it needs {condition}")]
    Inactive {
        /// The parameter.
        name: String,
        /// Its condition.
        condition: String,
    },
    /// An active parameter has no value.
    #[error("`{0}` needs a value")]
    Missing(String),
    /// The value is not one of the parameter's.
    #[error("`{name}` cannot be {value}; its values are {allowed}")]
    Value {
        /// The parameter.
        name: String,
        /// What was asked for.
        value: String,
        /// The domain.
        allowed: String,
    },
    /// A constraint is violated.
    #[error("this violates `{0}`")]
    Constraint(String),
    /// The space lists its configurations, and this is none of them.
    #[error("this is not one of the {0} configurations that the space lists")]
    Unlisted(u128),
}

/// A space whose conditions and constraints are solved.
pub struct CompiledSpace {
    space: Space,
    pub(crate) diagram: Diagram,
    pub(crate) root: NodeId,
    groups: Vec<Vec<usize>>,
    /// Per parameter the group that it belongs to.
    pub(crate) group_of: Vec<usize>,
    /// Per group its node.
    pub(crate) group_roots: Vec<NodeId>,
    /// Per parameter the positions of its sizes; empty where it has none.
    positions: Vec<Vec<f64>>,
}

impl fmt::Debug for CompiledSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (parameters, nodes) = (self.space.parameters.len(), self.diagram.nodes.len());
        write!(f, "CompiledSpace({parameters} parameters, 1e{:.1}, {nodes} nodes)", self.log10_len())
    }
}

impl CompiledSpace {
    pub(crate) fn new(space: Space) -> Result<CompiledSpace, SpaceError> {
        space.check()?;
        let (diagram, root) = solve(&space)?;
        Ok(Self::assemble(space, diagram, root))
    }

    /// A space that consists of listed configurations only: `rows` hold an index into the domain per
    /// parameter. Conditions and constraints of `space` are not looked at. Doubles count once.
    ///
    /// # Errors
    /// Where the description is inconsistent, there is no row, or a row does not fit the parameters.
    pub fn from_rows(mut space: Space, mut rows: Vec<Point>) -> Result<CompiledSpace, SpaceError> {
        space.constraints.clear();
        space.parameters.iter_mut().for_each(|p| p.condition = None);
        space.check()?;
        for (number, row) in rows.iter().enumerate() {
            let fits = row.len() == space.parameters.len()
                && row.iter().zip(&space.parameters).all(|(v, p)| usize::from(*v) < p.domain.values().len());
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
            // Every configuration of a group decides the same parameters, so any one tells which they are.
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

    /// Walks down from `node`; `choose` gets the parameter, its edges and their running counts.
    pub(crate) fn walk(&self, node: NodeId, mut choose: impl FnMut(usize, &[Edge], &[u128]) -> usize) {
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

    /// The description.
    #[must_use]
    pub fn space(&self) -> &Space {
        &self.space
    }

    /// The parameters, in the order of the values of a [`Point`].
    #[must_use]
    pub fn parameters(&self) -> &[Parameter] {
        &self.space.parameters
    }

    /// Returns the positions of a parameter's sizes from 0 to 1 (see [`Domain::positions`](crate::Domain));
    /// empty where its values have no distances.
    #[must_use]
    pub fn positions(&self, parameter: usize) -> &[f64] {
        &self.positions[parameter]
    }

    /// Parameters that depend on each other through conditions or constraints, by index; independent of
    /// all other groups.
    #[must_use]
    pub fn groups(&self) -> &[Vec<usize>] {
        &self.groups
    }

    /// The number of configurations, where 128 bits hold it.
    #[must_use]
    pub fn len(&self) -> Option<u128> {
        self.diagram.counts[self.root as usize].exact()
    }

    /// Never: a space without configurations does not compile.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Decimal logarithm of the number of configurations.
    #[must_use]
    pub fn log10_len(&self) -> f64 {
        self.diagram.counts[self.root as usize].log10()
    }

    /// How many nodes the solved form has: a measure of its memory.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.diagram.nodes.len()
    }

    /// A configuration, every one with the same probability.
    pub fn sample<R: Rng + ?Sized>(&self, rng: &mut R) -> Point {
        let mut point = self.blank();
        self.walk(self.root, |parameter, edges, cumulative| {
            let chosen = weighted(cumulative, rng);
            point.0[parameter] = edges[chosen].value;
            chosen
        });
        point
    }

    /// A configuration for which every decision is drawn evenly among the values that are still possible:
    /// unlike [`CompiledSpace::sample`], branches with few configurations are seen as often as those with many.
    pub fn sample_by_choice<R: Rng + ?Sized>(&self, rng: &mut R) -> Point {
        let mut point = self.blank();
        self.walk(self.root, |parameter, edges, _| {
            let chosen = if edges.len() == 1 { 0 } else { rng.random_range(0..edges.len()) };
            point.0[parameter] = edges[chosen].value;
            chosen
        });
        point
    }

    /// A configuration by decisions from outside: `decide` gets a parameter and, per value that is still possible, the
    /// running share of configurations up to it (ending at 1), and returns which one to take. Parameters without a
    /// choice are not asked for.
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

    /// Whether the point is a configuration of this space.
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

    /// The number of a valid point, from 0 to [`CompiledSpace::len`]; `None` where the point is not valid or
    /// the space too large.
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

    /// The point with number `index`; `None` beyond the end or where the space is too large.
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
                    open.push((edges[at].child, index - if at == 0 { 0 } else { cumulative[at - 1] }));
                }
            }
        }
        Some(point)
    }

    /// The values of active parameters by name.
    #[must_use]
    pub fn decode(&self, point: &Point) -> Configuration {
        self.space
            .parameters
            .iter()
            .zip(point.iter())
            .filter_map(|(p, v)| Some((p.name.clone(), p.domain.values().get(usize::from(*v))?.clone())))
            .collect()
    }

    /// The point of a configuration.
    ///
    /// # Errors
    /// Where it is none of this space, saying why.
    pub fn encode(&self, config: &Configuration) -> Result<Point, EncodeError> {
        let parameters = &self.space.parameters;
        if let Some((name, _)) = config.iter().find(|(n, _)| self.space.parameter(n).is_none()) {
            return Err(EncodeError::Unknown(name.clone()));
        }
        // Formulas see the domain's own spelling of a value.
        let mut canonical = Configuration::new();
        let mut point = self.blank();
        for (i, p) in parameters.iter().enumerate() {
            let Some(value) = config.get(&p.name) else { continue };
            let Some(index) = p.domain.index_of(value) else {
                let allowed: Vec<String> = p.domain.values().iter().map(Value::to_string).collect();
                return Err(EncodeError::Value {
                    name: p.name.clone(),
                    value: value.to_string(),
                    allowed: allowed.join(", "),
                });
            };
            point.0[i] = index as u16;
            canonical.insert(p.name.clone(), p.domain.values()[index].clone());
        }
        if self.contains(&point) {
            return Ok(point);
        }
        Err(self.explain(&canonical))
    }

    fn explain(&self, config: &Configuration) -> EncodeError {
        let lookup = |name: &str| config.get(name).cloned();
        for p in &self.space.parameters {
            let present = config.get(&p.name).is_some();
            match &p.condition {
                Some(condition) if present && !condition.holds(&lookup).unwrap_or(false) => {
                    return EncodeError::Inactive { name: p.name.clone(), condition: condition.to_string() };
                }
                Some(condition) if !present && condition.holds(&lookup).unwrap_or(false) => {
                    return EncodeError::Missing(p.name.clone());
                }
                None if !present => return EncodeError::Missing(p.name.clone()),
                _ => {}
            }
        }
        match self.space.constraints.iter().find(|c| !c.met(&lookup).unwrap_or(false)) {
            Some(constraint) => EncodeError::Constraint(constraint.to_string()),
            None => EncodeError::Unlisted(self.len().unwrap_or(u128::MAX)),
        }
    }
}

/// An index drawn in proportion to what `cumulative` grows by.
pub(crate) fn weighted<R: Rng + ?Sized>(cumulative: &[u128], rng: &mut R) -> usize {
    match cumulative {
        [] | [_] => 0,
        [.., total] => {
            let ticket = rng.random_range(0..*total);
            cumulative.partition_point(|c| *c <= ticket)
        }
    }
}
