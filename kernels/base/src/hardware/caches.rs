//! Sizes of caches, and working sets that fit into each level.

/// Returns `(level, bytes per thread)` of working sets that stay in each level of memory while
/// `threads` threads use it together, the nearest level first.
pub(crate) fn working_sets(threads: usize) -> Vec<(&'static str, usize)> {
    let [l1, l2, l3] = sizes();
    let mut sets = vec![("L1", l1 / 2)];
    if l2 > l1 {
        sets.push(("L2", l2 / 2));
    }
    // The last level is shared, and may be little larger than the private levels together.
    let share = l3 / threads.max(1);
    if share / 2 > l2 {
        sets.push(("L3", (share / 2).min(l2 * 8)));
    }
    // All threads together exceed the last level by far, but leave a small machine enough memory.
    let far = (4 * l3.max(l2)).clamp(32 << 20, 160 << 20) / threads.max(1);
    sets.push(("DRAM", far.max(l2 * 2)));
    sets.into_iter().map(|(level, bytes)| (level, bytes.next_multiple_of(1024))).collect()
}

/// Returns the bytes of the L1, L2 and L3 data caches of the first core. Values that the system
/// does not report are replaced by common minimums.
fn sizes() -> [usize; 3] {
    let mut sizes = [32 << 10, 512 << 10, 0];
    let mut told = [0_usize; 3];
    for index in 0..8 {
        let read = |what: &str| {
            std::fs::read_to_string(format!(
                "/sys/devices/system/cpu/cpu0/cache/index{index}/{what}"
            ))
            .ok()
        };
        let (Some(level), Some(kind), Some(size)) = (read("level"), read("type"), read("size"))
        else {
            break;
        };
        let level = level.trim().parse::<usize>().unwrap_or(0);
        if kind.trim() == "Instruction" || !(1..=3).contains(&level) {
            continue;
        }
        let kib = size.trim().trim_end_matches('K').parse::<usize>().unwrap_or(0);
        told[level - 1] = kib << 10;
    }
    for (size, told) in sizes.iter_mut().zip(told) {
        if told > 0 {
            *size = told;
        }
    }
    sizes
}
