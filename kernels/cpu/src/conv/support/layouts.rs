//! Encoding of layouts as values of tunables.

use paretune_base::plan::layout::Layout;
use paretune_base::plan::schedule::Schedule;
use paretune_simd::Isa;
use paretune_simd::lanes;

/// Values of the tunables that name a layout.
pub(crate) const PLANAR: i64 = 0;
pub(crate) const CHANNELS_LAST: i64 = 1;
pub(crate) const BLOCKED: i64 = 2;

/// Returns the layout that the tunable `name` selects in `schedule`.
pub(crate) fn named_layout(schedule: &Schedule, name: &str, isa: Isa) -> Layout {
    match schedule.tunables.get(name) {
        Some(&PLANAR) => Layout::Planar,
        Some(&BLOCKED) => Layout::ChannelBlocked(lanes(isa)),
        _ => Layout::ChannelsLast,
    }
}
