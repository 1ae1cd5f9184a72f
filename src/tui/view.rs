//! The user's choices about the screens, and the points in the order that they result in.

use std::collections::BTreeSet;

use paretune_record::front::FrontPoint;
use paretune_record::limit;
use paretune_record::metric::Metric;
use ratatui::layout::Rect;

use super::dialog::Overlay;
use super::state::State;
use super::theme::Theme;

/// The screens of the terminal UI.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tab {
    /// Scatter plot of two metrics.
    #[default]
    Front,
    /// Table of the front or all trials.
    Archive,
    /// The layers of the selected point.
    Network,
    /// Budget, failures and hypervolume over time.
    Progress,
}

impl Tab {
    /// All tabs in their order.
    pub const ALL: [Self; 4] = [Self::Front, Self::Archive, Self::Network, Self::Progress];

    /// Returns the text on the tab.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Front => "Front",
            Self::Archive => "Archive",
            Self::Network => "Network",
            Self::Progress => "Progress",
        }
    }
}

/// The user's choices, which do not depend on the search.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// The screen that is shown.
    pub tab: Tab,
    /// Metric of the horizontal axis.
    pub x: Metric,
    /// Metric of the vertical axis.
    pub y: Metric,
    /// Metric by which the archive is sorted.
    pub sort: Metric,
    /// Whether the archive is sorted with the worst point first.
    pub reverse: bool,
    /// Whether the archive also lists trials that are not on the front.
    pub all: bool,
    /// Filter of the archive, as typed.
    pub filter: String,
    /// Ids of the points that the user wants to keep.
    pub marked: BTreeSet<String>,
    /// Id of the selected point; `None` for the best one.
    pub selected: Option<String>,
    /// Index of the first layer that the network screen shows.
    pub scroll: usize,
    /// The overlay on the screen.
    pub overlay: Overlay,
    /// Ids of the points whose layers the search was inspection_requests to time.
    pub inspection_requests: BTreeSet<String>,
    /// Latest message in reply to a key, shown until the next key.
    pub message: Option<String>,
    /// Number of exports that are running.
    pub exporting: usize,
    /// Whether the user has paused the search.
    pub paused: bool,
    /// Whether the user has inspection_requests the search to end.
    pub stopping: bool,
    /// Whether the search thread disconnected without a `Finished` event.
    pub disconnected: bool,
    /// Wall-clock seconds since this session began, without pauses.
    pub clock: f64,
    /// Area of the terminal in the last frame, needed to locate clicks.
    pub area: Rect,
    /// Styles of all drawn elements.
    pub theme: Theme,
}

impl Default for View {
    fn default() -> Self {
        Self {
            tab: Tab::Front,
            x: Metric::Latency,
            y: Metric::Accuracy,
            sort: Metric::Accuracy,
            reverse: false,
            all: false,
            filter: String::new(),
            marked: BTreeSet::new(),
            selected: None,
            scroll: 0,
            overlay: Overlay::None,
            inspection_requests: BTreeSet::new(),
            message: None,
            exporting: 0,
            paused: false,
            stopping: false,
            disconnected: false,
            clock: 0.0,
            area: Rect::new(0, 0, 80, 24),
            theme: Theme { color: true },
        }
    }
}

impl View {
    /// Returns the selected point: the chosen one while it is known, else the best one, else the
    /// nearest miss.
    #[must_use]
    pub fn selected<'a>(&self, state: &'a State) -> Option<&'a FrontPoint> {
        let chosen =
            self.selected.as_ref().and_then(|id| state.points().find(|point| point.id == *id));
        chosen.or_else(|| state.best()).or_else(|| {
            let nearest = state.nearest_miss()?;
            state.front.iter().find(|point| point.id == nearest.id)
        })
    }

    /// Returns the points in the order of the selection: the front along the horizontal axis, or
    /// the sorted table.
    #[must_use]
    pub fn ordered<'a>(&self, state: &'a State) -> Vec<&'a FrontPoint> {
        let table = self.tab == Tab::Archive;
        let mut points: Vec<_> = if table && self.all {
            state.points().filter(|point| self.matches_filter(point, state)).collect()
        } else {
            state.front.iter().filter(|point| !table || self.matches_filter(point, state)).collect()
        };
        let (metric, downwards) = if table {
            (self.sort, (self.sort.is_maximized()) != self.reverse)
        } else {
            (self.x, false)
        };
        let value = |point: &FrontPoint| point.metrics.get(metric).unwrap_or(f64::NAN);
        points.sort_by(|a, b| {
            let order = value(a).total_cmp(&value(b));
            if downwards { order.reverse() } else { order }.then_with(|| a.id.cmp(&b.id))
        });
        points
    }

    /// Returns whether the filter accepts a point. All comma-separated parts must hold. A part is a
    /// comparison as in limits, `feasible`, `marked`, or a text that the id, the origin or a
    /// parameter contains.
    fn matches_filter(&self, point: &FrontPoint, state: &State) -> bool {
        self.filter.split(',').map(str::trim).filter(|part| !part.is_empty()).all(|part| {
            if let Ok(bounds) = limit::parse(part) {
                return bounds.iter().all(|bound| {
                    let value = point.metrics.against(bound.metric, state.baseline.as_ref());
                    value.is_some_and(|value| bound.excess(value) < 0.0)
                });
            }
            match part {
                "feasible" => point.feasible,
                "marked" => self.marked.contains(&point.id),
                text => {
                    let parameter = || {
                        point.config.iter().any(|(name, value)| {
                            format!("{name}={}", paretune_report::setting(value)).contains(text)
                        })
                    };
                    point.id.contains(text) || point.origin.contains(text) || parameter()
                }
            }
        })
    }

    /// Returns the wall-clock seconds since the study began; after its end, its duration.
    #[must_use]
    pub fn seconds(&self, state: &State) -> f64 {
        let resumed = state.started.as_ref().map_or(0.0, |started| started.resumed_seconds);
        if state.ending.is_some() { state.elapsed } else { state.elapsed.max(resumed + self.clock) }
    }

    /// Returns the points that would be exported.
    pub(super) fn points_to_export<'a>(&self, state: &'a State) -> Vec<&'a FrontPoint> {
        let marked: Vec<_> =
            state.front.iter().filter(|point| self.marked.contains(&point.id)).collect();
        if marked.is_empty() {
            let id = self.selected(state).map(|point| &point.id);
            return state.front.iter().filter(|point| Some(&point.id) == id).collect();
        }
        marked
    }
}
