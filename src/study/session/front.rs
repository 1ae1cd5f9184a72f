//! The front of a running session: entering points, displaced points, and the stop criteria that
//! follow from it.

use paretune_evaluate::stop::{Incumbent, StopCriteria, UpperBounds};
use paretune_record::archive;
use paretune_record::front::FrontPoint;
use paretune_record::metric::{Metric, Metrics};

use super::super::bounds;
use super::Session;

impl Session<'_> {
    /// Returns the stop criteria for the next candidate: the feasible points of the front and, once
    /// there are some, the limits.
    pub(super) fn criteria(&self) -> StopCriteria {
        let limits = &self.request.limits;
        let feasible = self.front.iter().any(|point| point.feasible);
        let upper = if feasible { bounds::upper_bounds(limits) } else { UpperBounds::default() };
        StopCriteria { upper, incumbents: self.incumbents(), accuracy: bounds::accuracy_bounds(limits) }
    }

    /// Lists the incumbents: points that end the scoring of a candidate if they surely beat it.
    fn incumbents(&self) -> Vec<Incumbent> {
        let objectives = &self.request.objectives;
        if !objectives.contains(&Metric::Accuracy) {
            return Vec::new();
        }
        let costs = |point: &FrontPoint| -> Metrics {
            let others = objectives.iter().copied().filter(|&metric| metric != Metric::Accuracy);
            let upper_end = |metric: Metric| {
                let upper = point.spread.get(&metric).map(|[low, high]| match metric.is_maximized() {
                    true => *low,
                    false => *high,
                });
                Some((metric, upper.or(point.metrics.get(metric))?))
            };
            others.filter_map(upper_end).collect()
        };
        let lower_end = |point: &FrontPoint| point.spread.get(&Metric::Accuracy).map_or(0.0, |[low, _]| *low);
        let feasible = || self.front.iter().filter(|point| point.feasible);
        let limits = &self.request.limits;
        let beyond = if feasible().next().is_some() { bounds::limit_incumbents(limits) } else { Vec::new() };
        feasible()
            .map(|point| Incumbent { accuracy: lower_end(point), costs: costs(point) })
            .chain(beyond)
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
        archive::preferred(&feasible, request.prefer, &request.objectives).map(|point| point.id.clone())
    }

    /// Returns the hypervolume of the feasible part of the front, on the scale of
    /// [`archive::hypervolume`].
    pub(super) fn hypervolume(&self) -> f64 {
        let Some(baseline) = &self.baseline else { return 0.0 };
        let feasible: Vec<Metrics> =
            self.front.iter().filter(|point| point.feasible).map(|point| point.metrics).collect();
        archive::hypervolume(&feasible, &baseline.metrics, &self.request.objectives)
    }
}
