//! Layouts as values of tunables.

use paretune_base::plan::layout::Layout;
use paretune_base::plan::schedule::{Schedule, TunableValue};
use paretune_simd::Isa;
use paretune_simd::lanes;

/// Values of the tunables that name a layout.
pub(crate) const PLANAR: &str = "nchw";
pub(crate) const CHANNELS_LAST: &str = "nhwc";
pub(crate) const BLOCKED: &str = "nchwc";

/// Returns the layout that the tunable `name` selects in `schedule`.
pub(crate) fn named_layout(schedule: &Schedule, name: &str, isa: Isa) -> Layout {
    match schedule.tunables.get(name) {
        Some(TunableValue::Choice(PLANAR)) => Layout::Planar,
        Some(TunableValue::Choice(BLOCKED)) => Layout::ChannelBlocked(lanes(isa)),
        _ => Layout::ChannelsLast,
    }
}
