//! The valid configurations of a space as a decision diagram: the chain of trees of BaCO (Hellsten et al.,
//! ASPLOS 2023) with equal subtrees shared and independent parts kept apart.
//!
//! A *decision* node fixes one parameter, a *product* node joins parts that no longer depend on each other.
//! Every path can be completed, so walking down never fails. A global choice such as the backend or the number of
//! threads is made first, after which layers fall apart into products: of many parameters, the solver picks the one
//! without which the largest part is smallest ([`crate::separator`]), of few the one that occurs in most of what remains. Partial assignments that leave the same remaining formulas share one node.

use std::collections::HashMap;

use crate::count::{Count, cumulative};
use crate::residual::{Constant, Formulas, Id};
use crate::separator::largest_without;
use crate::space::{Space, SpaceError, place_of};

/// The value number of a parameter that does not exist in a configuration.
pub const INACTIVE: u16 = u16::MAX;

/// Nodes and formulas beyond this are refused: some gigabytes.
const MAX_STATES: usize = 6_000_000;

/// Parameters of a part that is decided without looking for what separates it.
const FEW: usize = 64;

/// Names one node of a [`Diagram`].
pub(crate) type NodeId = u32;

/// The node with nothing left to choose.
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
        /// Running numbers of configurations; scaled down together where the total needs more than 128 bits.
        cumulative: Box<[u128]>,
    },
}

#[derive(PartialEq, Eq, Hash)]
enum Key {
    Product(Box<[NodeId]>),
    Decision(u16, Box<[Edge]>),
}

/// Nodes, children before parents.
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
        let total = children.iter().fold(Count::ONE, |product, c| product.multiply(self.counts[*c as usize]));
        self.push(key, Node::Product(children.into()), total)
    }

    fn push(&mut self, key: Key, node: Node, count: Count) -> NodeId {
        let id = self.nodes.len() as NodeId;
        self.nodes.push(node);
        self.counts.push(count);
        self.known.insert(key, id);
        id
    }

    /// Frees what is only needed for building.
    pub(crate) fn finish(&mut self) {
        self.known = HashMap::new();
        self.nodes.shrink_to_fit();
        self.counts.shrink_to_fit();
    }

    /// The diagram of a set of rows, each a value number per parameter; rows are sorted and without doubles.
    pub(crate) fn of_rows(&mut self, rows: &[Box<[u16]>], parameter: usize) -> NodeId {
        let Some(first) = rows.first() else { return DONE };
        if parameter == first.len() {
            return DONE;
        }
        let edges = rows
            .chunk_by(|a, b| a[parameter] == b[parameter])
            .map(|rows| Edge { value: rows[0][parameter], child: self.of_rows(rows, parameter + 1) })
            .collect();
        self.decision(parameter as u16, edges)
    }
}

/// Part of a space that is still to be decided.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Rest {
    /// Ascending parameters, each with what remains of its condition.
    open: Vec<(u32, Id)>,
    /// Ascending, none settled.
    constraints: Vec<Id>,
}

/// The values of every parameter as constants for the solver.
struct Solver<'a> {
    space: &'a Space,
    formulas: Formulas,
    diagram: Diagram,
    solved: HashMap<Rest, Option<NodeId>>,
    yes: Id,
}

/// Solves a space whose description has been checked. Also returns the root node.
pub(crate) fn solve(space: &Space) -> Result<(Diagram, NodeId), SpaceError> {
    // Hash maps serve for look-ups only: the result does not depend on their order.
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
    let mut solver = Solver { space, formulas, diagram: Diagram::new(), solved: HashMap::new(), yes };
    let empty = || SpaceError::Empty(String::new());
    let constraints = solver.settle(constraints)?.ok_or_else(empty)?;
    let root = solver.rest(Rest { open, constraints })?.ok_or_else(empty)?;
    solver.diagram.finish();
    Ok((solver.diagram, root))
}

impl Solver<'_> {
    /// Drops constraints that are met and splits conjunctions; `None` where one is violated.
    fn settle(&mut self, constraints: Vec<Id>) -> Result<Option<Vec<Id>>, SpaceError> {
        let mut rest = Vec::with_capacity(constraints.len());
        let mut error = None;
        for id in constraints {
            let sides = self.formulas.conjuncts(id);
            let erring = |s: &Id| matches!(self.formulas.constant(*s), Some(Constant::Error(_)));
            // A side that cannot be evaluated waits for the others: one of them may be false.
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

    /// The node of everything that is open; `None` where nothing valid remains.
    fn rest(&mut self, rest: Rest) -> Result<Option<NodeId>, SpaceError> {
        if rest.open.len() == 1 {
            return self.component(rest);
        }
        let mut children = Vec::new();
        for part in self.parts(rest) {
            match self.component(part)? {
                Some(node) => children.push(node),
                None => return Ok(None),
            }
        }
        Ok(Some(self.diagram.product(children)))
    }

    /// Splits into parts that share no formula, in the order of their first parameters.
    fn parts(&self, rest: Rest) -> Vec<Rest> {
        let position: HashMap<u32, usize> = rest.open.iter().enumerate().map(|(i, (v, _))| (*v, i)).collect();
        let mut leader: Vec<usize> = (0..rest.open.len()).collect();
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
        for (i, (_, condition)) in rest.open.iter().enumerate() {
            for v in self.formulas.variables(*condition).iter() {
                join(i, position[v]);
            }
        }
        for constraint in &rest.constraints {
            let variables = self.formulas.variables(*constraint);
            for v in variables.iter() {
                join(position[&variables[0]], position[v]);
            }
        }
        let mut number = vec![usize::MAX; rest.open.len()];
        let mut parts: Vec<Rest> = Vec::new();
        for (i, open) in rest.open.iter().enumerate() {
            let first = find(&mut leader, i);
            if number[first] == usize::MAX {
                number[first] = parts.len();
                parts.push(Rest { open: Vec::new(), constraints: Vec::new() });
            }
            parts[number[first]].open.push(*open);
        }
        for constraint in rest.constraints {
            let first = find(&mut leader, position[&self.formulas.variables(constraint)[0]]);
            parts[number[first]].constraints.push(constraint);
        }
        parts
    }

    /// The parameter to decide next, among those whose condition is settled: one that separates much, else the one in
    /// most formulas.
    fn next(&self, rest: &Rest) -> usize {
        if rest.open.len() > FEW {
            let position: HashMap<u32, usize> =
                rest.open.iter().enumerate().map(|(i, (v, _))| (*v, i)).collect();
            let mut formulas: Vec<Vec<usize>> = Vec::new();
            for (i, (_, condition)) in rest.open.iter().enumerate() {
                let variables = self.formulas.variables(*condition);
                if !variables.is_empty() {
                    formulas.push(variables.iter().map(|v| position[v]).chain([i]).collect());
                }
            }
            let constraints = rest.constraints.iter().map(|id| self.formulas.variables(*id));
            formulas.extend(constraints.map(|variables| variables.iter().map(|v| position[v]).collect()));
            let largest = largest_without(rest.open.len(), &formulas);
            let settled = (0..rest.open.len())
                .filter(|&i| self.formulas.constant(rest.open[i].1).is_some())
                .min_by_key(|&i| largest[i]);
            if let Some(separator) = settled.filter(|&i| 2 * largest[i] <= rest.open.len()) {
                return separator;
            }
        }
        let mut uses: HashMap<u32, usize> = HashMap::new();
        let conditions = rest.open.iter().map(|(_, c)| c);
        for id in rest.constraints.iter().chain(conditions) {
            for v in self.formulas.variables(*id).iter() {
                *uses.entry(*v).or_default() += 1;
            }
        }
        let mut best = (0, 0);
        for (i, (v, condition)) in rest.open.iter().enumerate() {
            let uses = uses.get(v).copied().unwrap_or(0) + 1;
            if uses > best.0 && self.formulas.constant(*condition).is_some() {
                best = (uses, i);
            }
        }
        best.1
    }

    fn component(&mut self, rest: Rest) -> Result<Option<NodeId>, SpaceError> {
        if let Some(node) = self.solved.get(&rest) {
            return Ok(*node);
        }
        let states = self.formulas.len() + self.diagram.nodes.len() + self.solved.len();
        if states > MAX_STATES {
            return Err(SpaceError::TooLarge(states));
        }
        let chosen = self.next(&rest);
        let (parameter, condition) = rest.open[chosen];
        let described = &self.space.parameters[parameter as usize];
        let active = match self.formulas.constant(condition) {
            Some(Constant::Value(v)) => crate::expression::truth(v),
            Some(Constant::Error(error)) => {
                return Err(SpaceError::Evaluation { place: place_of(described), error: error.clone() });
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
            let constraints = rest.constraints.iter().map(|c| put(*c)).collect();
            let open: Vec<(u32, Id)> =
                rest.open.iter().filter(|(v, _)| *v != parameter).map(|(v, c)| (*v, put(*c))).collect();
            let Some(constraints) = self.settle(constraints)? else { continue };
            // Settled conditions come in many spellings; one each is enough.
            let open = open.into_iter().map(|(v, c)| (v, self.canonical(c))).collect();
            if let Some(child) = self.rest(Rest { open, constraints })? {
                edges.push(Edge { value, child });
            }
        }
        let node = if edges.is_empty() { None } else { Some(self.diagram.decision(parameter as u16, edges)) };
        self.solved.insert(rest, node);
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
