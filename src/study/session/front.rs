//! The front of a running session: entering points, displaced points, and the stop criteria that
//! follow from it.

use paretune_evaluate::protocol::{Ceilings, Rival};
use paretune_record::archive;
use paretune_record::front::{FrontPoint, Metrics};

use super::super::bounds;
use super::super::trial::Hopeless;
use super::Session;

impl Session<'_> {
    /// Returns the stop criteria for the next candidate: the feasible points of the front and, once
    /// there are some, the limits.
    pub(super) fn hopeless(&self) -> Hopeless {
        let limits = &self.request.limits;
        let feasible = self.front.iter().any(|point| point.feasible);
        let ceilings = if feasible { bounds::ceilings(limits) } else { Ceilings::default() };
        Hopeless { ceilings, rivals: self.rivals(), floors: bounds::floors(limits) }
    }

    /// Lists the incumbents: points that end the scoring of a candidate if they surely beat it.
    fn rivals(&self) -> Vec<Rival> {
        let wanted = |name: &str| self.request.objectives.iter().any(|objective| objective == name);
        if !wanted("accuracy") {
            return Vec::new();
        }
        let feasible = || self.front.iter().filter(|point| point.feasible);
        let limits = &self.request.limits;
        let borders = if feasible().next().is_some() { bounds::borders(limits) } else { Vec::new() };
        feasible()
            .map(|point| Rival {
                accuracy: point.spread.get("accuracy").map_or(0.0, |interval| interval[0]),
                latency: if wanted("latency") {
                    point.spread.get("latency").map_or(point.metrics.latency, |interval| interval[1])
                } else {
                    0.0
                },
                size: if wanted("size") { point.metrics.size } else { 0.0 },
                memory: if wanted("memory") { point.metrics.memory } else { 0.0 },
            })
            .chain(borders)
            .collect()
    }

    /// Adds a point to the front unless another point there dominates it. Returns whether it
    /// entered, and the ids of the points that it displaced.
    pub(super) fn enter(&mut self, point: Option<FrontPoint>) -> (bool, Vec<String>) {
        let Some(point) = point else { return (false, Vec::new()) };
        let objectives = &self.request.objectives;
        let beats = |left: &FrontPoint, right: &FrontPoint| match (left.feasible, right.feasible) {
            (true, false) => true,
            (false, true) => false,
            (true, true) => archive::dominates(&left.metrics, &right.metrics, objectives),
            (false, false) => {
                archive::total_violation(left) <= archive::total_violation(right)
                    && archive::dominates(&left.metrics, &right.metrics, objectives)
            }
        };
        if self.front.iter().any(|other| beats(other, &point)) {
            return (false, Vec::new());
        }
        let alike = |other: &FrontPoint| {
            other.feasible
                && !beats(&point, other)
                && archive::covers(&other.metrics, &point.metrics, objectives)
        };
        if point.feasible && self.front.iter().any(alike) {
            return (false, Vec::new());
        }
        let (displaced, kept) = self.front.drain(..).partition(|other| beats(&point, other));
        self.front = kept;
        self.front.push(point);
        let displaced: Vec<FrontPoint> = displaced;
        (true, displaced.into_iter().map(|point| point.id).collect())
    }

    /// Returns the id of the point that would be exported now.
    pub(super) fn best(&self) -> Option<String> {
        let feasible: Vec<&FrontPoint> = self.front.iter().filter(|point| point.feasible).collect();
        let request = &self.request;
        archive::preferred(&feasible, &request.prefer, &request.objectives).map(|point| point.id.clone())
    }

    /// Returns the hypervolume of the feasible part of the front, on the scale of
    /// [`archive::hypervolume`].
    pub(super) fn hypervolume(&self) -> f64 {
        let Some(untouched) = &self.untouched else { return 0.0 };
        let feasible: Vec<Metrics> =
            self.front.iter().filter(|point| point.feasible).map(|point| point.metrics).collect();
        archive::hypervolume(&feasible, &untouched.metrics, &self.request.objectives)
    }
}
