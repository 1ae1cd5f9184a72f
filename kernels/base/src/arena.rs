//! Places all buffers of a program in one block of memory, the arena.

use crate::memory::block::ALIGNMENT;

/// Size of a buffer in bytes, and the indices of the first and the last step that use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// Length of the piece in bytes.
    pub bytes: usize,
    /// The first step that touches it.
    pub first: usize,
    /// The last step that touches it.
    pub last: usize,
}

impl Lifetime {
    fn meets(&self, other: &Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// Returns an offset for each buffer, and the size of the block that holds them all. Buffers with
/// overlapping lifetimes never overlap in memory.
///
/// Uses "greedy by size" (Pisarchyk and Lee, "Efficient memory management for deep neural net
/// inference", 2020): the largest buffer first, each into the smallest sufficient gap between the
/// buffers already placed. Placing in order of first use is tried too, and the smaller result is
/// returned.
pub fn place(buffers: &[Lifetime]) -> (Vec<usize>, usize) {
    let mut by_size: Vec<usize> = (0..buffers.len()).collect();
    by_size.sort_by_key(|&i| (std::cmp::Reverse(buffers[i].bytes), buffers[i].first));
    let mut by_time: Vec<usize> = (0..buffers.len()).collect();
    by_time.sort_by_key(|&i| (buffers[i].first, std::cmp::Reverse(buffers[i].bytes)));
    let (sized, timed) = (place_in(buffers, &by_size), place_in(buffers, &by_time));
    if timed.1 < sized.1 { timed } else { sized }
}

fn place_in(buffers: &[Lifetime], order: &[usize]) -> (Vec<usize>, usize) {
    let mut offsets = vec![0; buffers.len()];
    let mut total = 0;
    // Placed buffers, sorted by offset.
    let mut placed: Vec<usize> = Vec::new();
    for &index in order {
        let bytes = buffers[index].bytes.next_multiple_of(ALIGNMENT);
        let mut best: Option<(usize, usize)> = None;
        let mut end = 0;
        for &other in placed.iter().filter(|&&other| buffers[other].meets(&buffers[index])) {
            let start: usize = offsets[other];
            if let Some(gap) = start.checked_sub(end)
                && gap >= bytes
                && best.is_none_or(|(smallest, _)| gap < smallest)
            {
                best = Some((gap, end));
            }
            end = end.max(start + buffers[other].bytes.next_multiple_of(ALIGNMENT));
        }
        offsets[index] = best.map_or(end, |(_, offset)| offset);
        total = total.max(offsets[index] + bytes);
        let at = placed.partition_point(|&other| offsets[other] <= offsets[index]);
        placed.insert(at, index);
    }
    (offsets, total)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn buffers_that_live_together_never_overlap(
            raw in prop::collection::vec((1_usize..2000, 0_usize..30, 0_usize..8), 0..40)
        ) {
            let buffers: Vec<_> = raw
                .into_iter()
                .map(|(bytes, first, span)| Lifetime { bytes, first, last: first + span })
                .collect();
            let (offsets, total) = place(&buffers);
            for (i, a) in buffers.iter().enumerate() {
                prop_assert_eq!(offsets[i] % ALIGNMENT, 0);
                prop_assert!(offsets[i] + a.bytes <= total);
                for (j, b) in buffers.iter().enumerate().skip(i + 1) {
                    let (end_a, end_b) = (offsets[i] + a.bytes, offsets[j] + b.bytes);
                    let apart = end_a <= offsets[j] || end_b <= offsets[i];
                    prop_assert!(!a.meets(b) || apart, "{i} and {j} overlap");
                }
            }
            // Never larger than without reuse, never smaller than the live buffers at the busiest
            // time.
            let padded = |b: &Lifetime| b.bytes.next_multiple_of(ALIGNMENT);
            prop_assert!(total <= buffers.iter().map(padded).sum());
            for time in 0..40 {
                let live = buffers.iter().filter(|b| b.first <= time && time <= b.last).map(padded);
                prop_assert!(live.sum::<usize>() <= total);
            }
        }
    }

    #[test]
    fn a_chain_needs_its_two_largest_neighbors_only() {
        let chain: Vec<_> =
            (0..10).map(|i| Lifetime { bytes: 640, first: i, last: i + 1 }).collect();
        assert_eq!(place(&chain).1, 1280);
    }
}
