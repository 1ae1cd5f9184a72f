//! Encoding of layouts as values of tunables.

use super::Layout;
use crate::hardware::Isa;
use crate::schedule::Schedule;
use crate::simd::lanes;

/// Values of the tunables that name a layout.
pub(super) const PLANAR: i64 = 0;
pub(super) const CHANNELS_LAST: i64 = 1;
pub(super) const BLOCKED: i64 = 2;

/// Returns the layout that the tunable `name` selects in `schedule`.
pub(super) fn named_layout(schedule: &Schedule, name: &str, isa: Isa) -> Layout {
    match schedule.tunables.get(name) {
        Some(&PLANAR) => Layout::Planar,
        Some(&BLOCKED) => Layout::ChannelBlocked(lanes(isa)),
        _ => Layout::ChannelsLast,
    }
}
