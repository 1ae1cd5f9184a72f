//! The name of the processor, and the cores that this process may use.

use std::sync::OnceLock;

/// Returns the indices of the cores that this process may use: one per physical core first, their
/// hyper-threads last, so that the first *n* are the best for *n* threads. The list is determined
/// once, before any thread is pinned, and is never empty.
#[must_use]
pub fn allowed_cores() -> &'static [usize] {
    static CORES: OnceLock<Vec<usize>> = OnceLock::new();
    CORES.get_or_init(|| {
        let mut cores = affinity();
        if cores.is_empty() {
            cores = (0..std::thread::available_parallelism().map_or(1, usize::from)).collect();
        }
        physical_first(cores)
    })
}

#[cfg(target_os = "linux")]
fn affinity() -> Vec<usize> {
    use nix::sched::{CpuSet, sched_getaffinity};
    use nix::unistd::Pid;

    let Ok(set) = sched_getaffinity(Pid::from_raw(0)) else { return Vec::new() };
    (0..CpuSet::count()).filter(|&core| set.is_set(core).unwrap_or(false)).collect()
}

#[cfg(not(target_os = "linux"))]
fn affinity() -> Vec<usize> {
    Vec::new()
}

/// Partitions cores stably: those that are the first allowed thread of their physical core, then
/// the rest.
fn physical_first(cores: Vec<usize>) -> Vec<usize> {
    let mut seen = std::collections::HashSet::new();
    let (mut first, mut rest) = (Vec::new(), Vec::new());
    for core in cores {
        let path = format!("/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list");
        match std::fs::read_to_string(path) {
            Ok(siblings) if !seen.insert(siblings.trim().to_owned()) => rest.push(core),
            _ => first.push(core),
        }
    }
    first.extend(rest);
    first
}

/// Returns the processor's name, as reported by itself or by the system.
pub(super) fn cpu_name() -> String {
    brand().or_else(from_proc).unwrap_or_else(|| format!("unknown {}", std::env::consts::ARCH))
}

#[cfg(target_arch = "x86_64")]
fn brand() -> Option<String> {
    use std::arch::x86_64::__cpuid;

    if __cpuid(0x8000_0000).eax < 0x8000_0004 {
        return None;
    }
    let mut bytes = Vec::with_capacity(48);
    for leaf in 0x8000_0002..=0x8000_0004 {
        let part = __cpuid(leaf);
        for register in [part.eax, part.ebx, part.ecx, part.edx] {
            bytes.extend_from_slice(&register.to_le_bytes());
        }
    }
    let text: String = bytes
        .iter()
        .take_while(|&&b| b != 0)
        .map(|&b| if b.is_ascii() { b as char } else { '?' })
        .collect();
    tidy(&text)
}

#[cfg(not(target_arch = "x86_64"))]
fn brand() -> Option<String> {
    None
}

/// Reads the name from `/proc/cpuinfo`; on Arm only part numbers may be available.
fn from_proc() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let field = |wanted: &str| {
        text.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            (name.trim() == wanted).then(|| value.trim().to_owned())
        })
    };
    field("model name").or_else(|| field("Model")).and_then(|name| tidy(&name)).or_else(|| {
        Some(format!("implementer {} part {}", field("CPU implementer")?, field("CPU part")?))
    })
}

/// Collapses white space to single spaces; returns `None` for blank text.
fn tidy(text: &str) -> Option<String> {
    let tidy = text.split_whitespace().collect::<Vec<_>>().join(" ");
    (!tidy.is_empty()).then_some(tidy)
}
