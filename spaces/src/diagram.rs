//! Decision diagram of the valid configurations of a space: the chain of trees of BaCO (Hellsten et
//! al., ASPLOS 2023) with equal subtrees shared and independent parts kept apart.
//!
//! A *decision* node fixes one parameter; a *product* node joins parts that do not depend on each
//! other. Every path can be completed, so walking down never fails. Partial assignments that leave
//! the same remaining formulas share one node.
//!
//! The solver first decides global choices such as the backend or the number of threads, after
//! which the layers of a network fall apart into products. In a part with many parameters, it picks
//! the parameter without which the largest part is smallest ([`crate::separator`]). In a small
//! part, it picks the parameter that occurs in most of the remaining formulas.

use std::collections::HashMap;

use crate::count::{Count, cumulative};
use crate::residual::{Constant, Formulas, Id};
use crate::separator::largest_without;
use crate::space::{Space, SpaceError, place_of};

/// Value index of a parameter that does not exist in a configuration.
pub const INACTIVE: u16 = u16::MAX;

/// Number of nodes and formulas beyond which a space is refused; it takes some gigabytes.
const MAX_STATES: usize = 6_000_000;

/// Number of parameters up to which a part is decided without a search for a separating parameter.
const SMALL_PART_PARAMETERS: usize = 64;

/// Index of a node in a [`Diagram`].
pub(crate) type NodeId = u32;

/// Node at which no parameter is left to choose.
pub(crate) const DONE: NodeId = 0;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Edge {
    /// Index into the domain, or [`INACTIVE`].
    pub(crate) value: u16,
    pub(crate) child: NodeId,
}

#[derive(Clone, Debug)]
pub(crate) enum Node {
    Done,
    Product(Box<[NodeId]>),
    Decision {
        parameter: u16,
        edges: Box<[Edge]>,
        /// Running sums of the numbers of configurations; all are scaled down if the total needs
        /// more than 128 bits.
        cumulative: Box<[u128]>,
    },
}

#[derive(PartialEq, Eq, Hash)]
enum Key {
    Product(Box<[NodeId]>),
    Decision(u16, Box<[Edge]>),
}

/// Nodes of the diagram, children before parents.
pub(crate) struct Diagram {
    pub(crate) nodes: Vec<Node>,
    pub(crate) counts: Vec<Count>,
    known: HashMap<Key, NodeId>,
}

impl Diagram {
    pub(crate) fn new() -> Diagram {
        Diagram { nodes: vec![Node::Done], counts: vec![Count::ONE], known: HashMap::new() }
    }

    pub(crate) fn decision(&mut self, parameter: u16, edges: Vec<Edge>) -> NodeId {
        let key = Key::Decision(parameter, edges.clone().into());
        if let Some(id) = self.known.get(&key) {
            return *id;
        }
        let counts: Vec<Count> = edges.iter().map(|e| self.counts[e.child as usize]).collect();
        let total = counts.iter().fold(Count::ZERO, |sum, c| sum.add(*c));
        let cumulative = cumulative(&counts).into();
        self.push(key, Node::Decision { parameter, edges: edges.into(), cumulative }, total)
    }

    pub(crate) fn product(&mut self, mut children: Vec<NodeId>) -> NodeId {
        children.retain(|c| *c != DONE);
        match children.as_slice() {
            [] => return DONE,
            [one] => return *one,
            _ => {}
        }
        let key = Key::Product(children.clone().into());
        if let Some(id) = self.known.get(&key) {
            return *id;
        }
        let total = children
            .iter()
            .fold(Count::ONE, |product, c| product.multiply(self.counts[*c as usize]));
        self.push(key, Node::Product(children.into()), total)
    }

    fn push(&mut self, key: Key, node: Node, count: Count) -> NodeId {
        let id = self.nodes.len() as NodeId;
        self.nodes.push(node);
        self.counts.push(count);
        self.known.insert(key, id);
        id
    }

    /// Frees the memory that only building needs.
    pub(crate) fn finish(&mut self) {
        self.known = HashMap::new();
        self.nodes.shrink_to_fit();
        self.counts.shrink_to_fit();
    }

    /// Builds the diagram of a set of rows with a value index per parameter. The rows must be
    /// sorted and distinct.
    pub(crate) fn of_rows(&mut self, rows: &[Box<[u16]>], parameter: usize) -> NodeId {
        let Some(first) = rows.first() else { return DONE };
        if parameter == first.len() {
            return DONE;
        }
        let edges = rows
            .chunk_by(|a, b| a[parameter] == b[parameter])
            .map(|rows| Edge {
                value: rows[0][parameter],
                child: self.of_rows(rows, parameter + 1),
            })
            .collect();
        self.decision(parameter as u16, edges)
    }
}

/// Part of a space that is still to be decided.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Subproblem {
    /// Parameters in ascending order, each with the remaining formula of its condition.
    open: Vec<(u32, Id)>,
    /// Constraints in ascending order, none of them settled.
    constraints: Vec<Id>,
}

/// Solver of a space, with everything that it has solved so far.
struct Solver<'a> {
    space: &'a Space,
    formulas: Formulas,
    diagram: Diagram,
    solved: HashMap<Subproblem, Option<NodeId>>,
    yes: Id,
}

/// Solves a space whose description has been checked. Returns the diagram and its root node.
pub(crate) fn solve(space: &Space) -> Result<(Diagram, NodeId), SpaceError> {
    // Hash maps serve for look-ups only, so that the result does not depend on their order.
    let names: HashMap<&str, u32> =
        space.parameters.iter().enumerate().map(|(i, p)| (p.name.as_str(), i as u32)).collect();
    let variable = |name: &str| names.get(name).copied().unwrap_or(u32::MAX);
    let whole = |p: &crate::Parameter| {
        p.domain.values().iter().all(|v| v.as_i64().is_some_and(|i| i.unsigned_abs() < 1 << 40))
    };
    let mut formulas = Formulas::new(space.parameters.iter().map(whole).collect());
    let yes = formulas.truth(true);
    let open = space
        .parameters
        .iter()
        .enumerate()
        .map(|(i, p)| (i as u32, p.condition.as_ref().map_or(yes, |c| formulas.add(c, &variable))))
        .collect();
    let mut constraints = Vec::new();
    for c in &space.constraints {
        let id = formulas.add(c, &variable);
        constraints.push(id);
    }
    let mut solver =
        Solver { space, formulas, diagram: Diagram::new(), solved: HashMap::new(), yes };
    let empty = || SpaceError::Empty(String::new());
    let constraints = solver.settle(constraints)?.ok_or_else(empty)?;
    let root = solver.subproblem(Subproblem { open, constraints })?.ok_or_else(empty)?;
    solver.diagram.finish();
    Ok((solver.diagram, root))
}

impl Solver<'_> {
    /// Drops constraints that are met and splits conjunctions. Returns `None` if a constraint is
    /// violated.
    fn settle(&mut self, constraints: Vec<Id>) -> Result<Option<Vec<Id>>, SpaceError> {
        let mut rest = Vec::with_capacity(constraints.len());
        let mut error = None;
        for id in constraints {
            let sides = self.formulas.conjuncts(id);
            let erring = |s: &Id| matches!(self.formulas.constant(*s), Some(Constant::Error(_)));
            // An operand that cannot be evaluated waits for the others, since one of them may be
            // false.
            let sides = if sides.len() > 1 && sides.iter().any(erring) { vec![id] } else { sides };
            for side in sides {
                match self.formulas.constant(side) {
                    None => rest.push(side),
                    Some(Constant::Undefined) => {}
                    Some(Constant::Value(v)) if crate::expression::truth(v) => {}
                    Some(Constant::Value(_)) => return Ok(None),
                    Some(Constant::Error(e)) => error = Some(e.clone()),
                }
            }
        }
        if let Some(error) = error {
            return Err(SpaceError::Evaluation { place: "a constraint".to_owned(), error });
        }
        rest.sort_unstable();
        rest.dedup();
        Ok(Some(rest))
    }

    /// Builds the node of a subproblem; `None` if it has no valid configuration.
    fn subproblem(&mut self, part: Subproblem) -> Result<Option<NodeId>, SpaceError> {
        if part.open.len() == 1 {
            return self.component(part);
        }
        let mut children = Vec::new();
        for part in self.parts(part) {
            match self.component(part)? {
                Some(node) => children.push(node),
                None => return Ok(None),
            }
        }
        Ok(Some(self.diagram.product(children)))
    }

    /// Splits a subproblem into parts that share no formula, in the order of their first
    /// parameters.
    fn parts(&self, part: Subproblem) -> Vec<Subproblem> {
        let position: HashMap<u32, usize> =
            part.open.iter().enumerate().map(|(i, (v, _))| (*v, i)).collect();
        let mut leader: Vec<usize> = (0..part.open.len()).collect();
        fn find(leader: &mut [usize], mut i: usize) -> usize {
            while leader[i] != i {
                leader[i] = leader[leader[i]];
                i = leader[i];
            }
            i
        }
        let mut join = |a: usize, b: usize| {
            let (a, b) = (find(&mut leader, a), find(&mut leader, b));
            leader[a.max(b)] = a.min(b);
        };
        for (i, (_, condition)) in part.open.iter().enumerate() {
            for v in self.formulas.variables(*condition).iter() {
                join(i, position[v]);
            }
        }
        for constraint in &part.constraints {
            let variables = self.formulas.variables(*constraint);
            for v in variables.iter() {
                join(position[&variables[0]], position[v]);
            }
        }
        let mut number = vec![usize::MAX; part.open.len()];
        let mut parts: Vec<Subproblem> = Vec::new();
        for (i, open) in part.open.iter().enumerate() {
            let first = find(&mut leader, i);
            if number[first] == usize::MAX {
                number[first] = parts.len();
                parts.push(Subproblem { open: Vec::new(), constraints: Vec::new() });
            }
            parts[number[first]].open.push(*open);
        }
        for constraint in part.constraints {
            let first = find(&mut leader, position[&self.formulas.variables(constraint)[0]]);
            parts[number[first]].constraints.push(constraint);
        }
        parts
    }

    /// Chooses the parameter to decide next among those whose condition is settled: one that
    /// separates a large part, else the one in most formulas.
    fn next(&self, part: &Subproblem) -> usize {
        if part.open.len() > SMALL_PART_PARAMETERS {
            let position: HashMap<u32, usize> =
                part.open.iter().enumerate().map(|(i, (v, _))| (*v, i)).collect();
            let mut formulas: Vec<Vec<usize>> = Vec::new();
            for (i, (_, condition)) in part.open.iter().enumerate() {
                let variables = self.formulas.variables(*condition);
                if !variables.is_empty() {
                    formulas.push(variables.iter().map(|v| position[v]).chain([i]).collect());
                }
            }
            let constraints = part.constraints.iter().map(|id| self.formulas.variables(*id));
            formulas.extend(
                constraints.map(|variables| variables.iter().map(|v| position[v]).collect()),
            );
            let largest = largest_without(part.open.len(), &formulas);
            let settled = (0..part.open.len())
                .filter(|&i| self.formulas.constant(part.open[i].1).is_some())
                .min_by_key(|&i| largest[i]);
            if let Some(separator) = settled.filter(|&i| 2 * largest[i] <= part.open.len()) {
                return separator;
            }
        }
        let mut uses: HashMap<u32, usize> = HashMap::new();
        let conditions = part.open.iter().map(|(_, c)| c);
        for id in part.constraints.iter().chain(conditions) {
            for v in self.formulas.variables(*id).iter() {
                *uses.entry(*v).or_default() += 1;
            }
        }
        let mut best = (0, 0);
        for (i, (v, condition)) in part.open.iter().enumerate() {
            let uses = uses.get(v).copied().unwrap_or(0) + 1;
            if uses > best.0 && self.formulas.constant(*condition).is_some() {
                best = (uses, i);
            }
        }
        best.1
    }

    fn component(&mut self, part: Subproblem) -> Result<Option<NodeId>, SpaceError> {
        if let Some(node) = self.solved.get(&part) {
            return Ok(*node);
        }
        let states = self.formulas.len() + self.diagram.nodes.len() + self.solved.len();
        if states > MAX_STATES {
            return Err(SpaceError::TooLarge(states));
        }
        let chosen = self.next(&part);
        let (parameter, condition) = part.open[chosen];
        let described = &self.space.parameters[parameter as usize];
        let active = match self.formulas.constant(condition) {
            Some(Constant::Value(v)) => crate::expression::truth(v),
            Some(Constant::Error(error)) => {
                return Err(SpaceError::Evaluation {
                    place: place_of(described),
                    error: error.clone(),
                });
            }
            _ => false,
        };
        let values: Vec<(u16, Constant)> = if active {
            let values = described.domain.values().iter();
            values.enumerate().map(|(i, v)| (i as u16, Constant::Value(v.clone()))).collect()
        } else {
            vec![(INACTIVE, Constant::Undefined)]
        };
        let mut edges = Vec::with_capacity(values.len());
        for (value, constant) in values {
            let mut put = |id: Id| self.formulas.substitute(id, parameter, value, &constant);
            let constraints = part.constraints.iter().map(|c| put(*c)).collect();
            let open: Vec<(u32, Id)> = part
                .open
                .iter()
                .filter(|(v, _)| *v != parameter)
                .map(|(v, c)| (*v, put(*c)))
                .collect();
            let Some(constraints) = self.settle(constraints)? else { continue };
            // Settled conditions have many spellings; one spelling each makes more subproblems
            // equal.
            let open = open.into_iter().map(|(v, c)| (v, self.canonical(c))).collect();
            if let Some(child) = self.subproblem(Subproblem { open, constraints })? {
                edges.push(Edge { value, child });
            }
        }
        let node = if edges.is_empty() {
            None
        } else {
            Some(self.diagram.decision(parameter as u16, edges))
        };
        self.solved.insert(part, node);
        Ok(node)
    }

    fn canonical(&mut self, condition: Id) -> Id {
        match self.formulas.constant(condition) {
            Some(Constant::Value(v)) if crate::expression::truth(v) => self.yes,
            Some(Constant::Value(_) | Constant::Undefined) => self.formulas.truth(false),
            _ => condition,
        }
    }
}
