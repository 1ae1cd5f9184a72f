//! Channel masks: the channels of a network that pruning keeps.

use paretune_kernels::{Plan, ValueId};

/// Channel mask: the coordinates of each value's first axis that are kept.
#[derive(Clone, Debug, PartialEq)]
pub struct ChannelMask {
    values: Vec<Vec<bool>>,
}

impl ChannelMask {
    /// Creates a mask that keeps every channel of `plan`.
    pub(super) fn full(plan: &Plan) -> Self {
        let values = plan
            .values
            .iter()
            .map(|value| vec![true; value.dims.first().copied().unwrap_or(0)])
            .collect();
        Self { values }
    }

    /// Returns the mask of the channels of `value`.
    pub(super) fn of(&self, value: ValueId) -> &[bool] {
        &self.values[value]
    }

    /// Returns whether `small` has exactly the channels that the mask keeps from `plan`.
    pub(super) fn fits(&self, plan: &Plan, small: &Plan) -> bool {
        let count = |value: ValueId| self.of(value).iter().filter(|&&keep| keep).count();
        let same = |value: ValueId| {
            let (before, after) = (&plan.values[value].dims, &small.values[value].dims);
            before.get(1..) == after.get(1..)
                && after.first().is_none_or(|&channels| channels == count(value))
        };
        let counts = [self.values.len(), plan.values.len(), small.values.len()];
        counts.iter().all(|&count| count == counts[0]) && (0..counts[0]).all(same)
    }

    /// Removes one channel of a group at all its places.
    pub(super) fn remove(&mut self, places: &[(ValueId, usize)]) {
        for &(value, index) in places {
            self.values[value][index] = false;
        }
    }

    /// Returns whether all channels of `value` are kept.
    pub(super) fn is_full(&self, value: ValueId) -> bool {
        self.values[value].iter().all(|&keep| keep)
    }
}
