//! Layouts as values of tunables.

use super::Layout;
use crate::hardware::Isa;
use crate::schedule::Schedule;
use crate::simd::lanes;

/// What tunables that name a layout take.
pub(super) const PLANAR: i64 = 0;
pub(super) const CHANNELS_LAST: i64 = 1;
pub(super) const BLOCKED: i64 = 2;

/// The layout that the tunable called `name` has in `schedule`.
pub(super) fn named_layout(schedule: &Schedule, name: &str, isa: Isa) -> Layout {
    match schedule.tunables.get(name) {
        Some(&PLANAR) => Layout::Planar,
        Some(&BLOCKED) => Layout::ChannelBlocked(lanes(isa)),
        _ => Layout::ChannelsLast,
    }
}
