//! Results of a session: everything that was measured, and the front of it.

use paretune_evaluate::stop::{Incumbent, StopCriteria, UpperBounds};
use paretune_record::archive;
use paretune_record::front::FrontPoint;
use paretune_record::limit::Limit;
use paretune_record::measurement::Measurement;
use paretune_record::metric::{Metric, Metrics};
use paretune_record::request::StudyRequest;
use paretune_spaces::Configuration;

use crate::bounds;

/// A completely measured configuration.
struct Measured {
    configuration: Configuration,
    origin: String,
    measurement: Measurement,
}

/// Everything that a session has measured, with accuracies on the search images.
#[derive(Default)]
pub(super) struct Archive {
    measured: Vec<Measured>,
    /// Points that no other point dominates.
    pub(super) front: Vec<FrontPoint>,
    /// The baseline, once it is measured.
    pub(super) baseline: Option<FrontPoint>,
}

impl Archive {
    /// Adds a measured point. Returns whether it entered the front, and the ids of the points that
    /// it displaced.
    pub(super) fn add(
        &mut self,
        point: FrontPoint,
        measurement: Measurement,
        objectives: &[Metric],
    ) -> (bool, Vec<String>) {
        let (configuration, origin) = (point.config.clone(), point.origin.clone());
        self.measured.push(Measured { configuration, origin, measurement });
        self.enter(point, objectives)
    }

    /// Returns the measured configuration called `id`.
    pub(super) fn configuration(&self, id: &str) -> Option<&Configuration> {
        self.measured.iter().map(|measured| &measured.configuration).find(|each| each.id() == id)
    }

    /// Judges everything again under other limits or objectives.
    pub(super) fn judge_again(&mut self, limits: &[Limit], objectives: &[Metric]) {
        self.front.clear();
        let judge = |measured: &Measured| {
            archive::point(&measured.configuration, &measured.origin, &measured.measurement, limits)
        };
        let points: Vec<FrontPoint> = self.measured.iter().map(judge).collect();
        for point in points {
            if self.baseline.as_ref().is_some_and(|baseline| baseline.id == point.id) {
                self.baseline = Some(point.clone());
            }
            self.enter(point, objectives);
        }
    }

    /// Forgets all configurations that `keep` does not accept. The front must be judged again.
    pub(super) fn retain(&mut self, keep: impl Fn(&Configuration) -> bool) {
        self.measured.retain(|measured| keep(&measured.configuration));
        self.baseline = self.baseline.take().filter(|point| keep(&point.config));
    }

    /// Returns the stop criteria for the next candidate: the feasible points of the front and, once
    /// there are some, the limits.
    pub(super) fn stop_criteria(&self, request: &StudyRequest) -> StopCriteria {
        let limits = &request.limits;
        let feasible = self.front.iter().any(|point| point.feasible);
        let upper = if feasible { bounds::upper_bounds(limits) } else { UpperBounds::default() };
        let accuracy = bounds::accuracy_bounds(limits);
        StopCriteria { upper, incumbents: self.incumbents(request), accuracy }
    }

    /// Lists the incumbents: points that end the scoring of a candidate if they surely beat it.
    fn incumbents(&self, request: &StudyRequest) -> Vec<Incumbent> {
        let objectives = &request.objectives;
        if !objectives.contains(&Metric::Accuracy) {
            return Vec::new();
        }
        let costs = |point: &FrontPoint| -> Metrics {
            let others = objectives.iter().copied().filter(|&metric| metric != Metric::Accuracy);
            let upper_end = |metric: Metric| {
                let upper =
                    point.spread.get(&metric).map(|[low, high]| match metric.is_maximized() {
                        true => *low,
                        false => *high,
                    });
                Some((metric, upper.or(point.metrics.get(metric))?))
            };
            others.filter_map(upper_end).collect()
        };
        let lower_end =
            |point: &FrontPoint| point.spread.get(&Metric::Accuracy).map_or(0.0, |[low, _]| *low);
        let feasible = || self.front.iter().filter(|point| point.feasible);
        let limits = &request.limits;
        let beyond =
            if feasible().next().is_some() { bounds::limit_incumbents(limits) } else { Vec::new() };
        feasible()
            .map(|point| Incumbent { accuracy: lower_end(point), costs: costs(point) })
            .chain(beyond)
            .collect()
    }

    /// Adds a point to the front unless another point there dominates it. Returns whether it
    /// entered, and the ids of the points that it displaced.
    fn enter(&mut self, point: FrontPoint, objectives: &[Metric]) -> (bool, Vec<String>) {
        let (entered, displaced) = archive::enter(&mut self.front, point, objectives);
        (entered, displaced.into_iter().map(|point| point.id).collect())
    }

    /// Returns the id of the point that would be exported now.
    pub(super) fn best(&self, request: &StudyRequest) -> Option<String> {
        let feasible: Vec<&FrontPoint> = self.front.iter().filter(|point| point.feasible).collect();
        archive::preferred(&feasible, request.prefer, &request.objectives)
            .map(|point| point.id.clone())
    }

    /// Returns the hypervolume of the feasible part of the front, on the scale of
    /// [`archive::hypervolume`].
    pub(super) fn hypervolume(&self, objectives: &[Metric]) -> f64 {
        let Some(baseline) = &self.baseline else { return 0.0 };
        let feasible: Vec<Metrics> =
            self.front.iter().filter(|point| point.feasible).map(|point| point.metrics).collect();
        archive::hypervolume(&feasible, &baseline.metrics, objectives)
    }
}
