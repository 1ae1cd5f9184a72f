//! Layouts as values of tunables.

use paretune_base::plan::layout::Layout;
use paretune_base::plan::schedule::{Schedule, TunableValue};
use paretune_simd::Isa;
use paretune_simd::lanes;

/// Values of the tunables that name a layout.
pub(crate) const NCHW: &str = "nchw";
pub(crate) const NHWC: &str = "nhwc";
pub(crate) const NCHWC: &str = "nchwc";

/// Returns the layout that the tunable `name` selects in `schedule`.
pub(crate) fn named_layout(schedule: &Schedule, name: &str, isa: Isa) -> Layout {
    match schedule.tunables.get(name) {
        Some(TunableValue::Choice(NCHW)) => Layout::Nchw,
        Some(TunableValue::Choice(NCHWC)) => Layout::Nchwc(lanes(isa)),
        _ => Layout::Nhwc,
    }
}
