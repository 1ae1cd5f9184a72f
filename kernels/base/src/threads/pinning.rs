//! Pinning of threads to cores. If the system does not support it, threads run on any core, which
//! is slower but correct.

#[cfg(target_os = "linux")]
pub(super) use linux::{Pinning, pin};

#[cfg(not(target_os = "linux"))]
pub(super) use elsewhere::{Pinning, pin};

#[cfg(target_os = "linux")]
mod linux {
    use nix::sched::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};
    use nix::unistd::Pid;

    use crate::hardware::allowed_cores;

    /// Identifies the calling thread to the system.
    const SELF: Pid = Pid::from_raw(0);

    /// Binds the calling thread to `core` permanently.
    pub fn pin(core: usize) {
        let mut set = CpuSet::new();
        if let Err(error) = set.set(core).and_then(|()| sched_setaffinity(SELF, &set)) {
            tracing::debug!("cannot pin a worker to core {core}: {error}");
        }
    }

    /// Guard that keeps the calling thread off the cores of other threads, and restores its
    /// affinity when dropped.
    pub struct Pinning {
        before: Option<CpuSet>,
    }

    impl Pinning {
        /// Moves the calling thread to the first core, to which no pool thread is pinned. A thread
        /// that is there already is not pinned, because schedulers do not move a lone busy thread.
        pub fn away_from_workers() -> Self {
            let first = allowed_cores()[0];
            if sched_getcpu().is_ok_and(|core| core == first) {
                return Self { before: None };
            }
            let before = sched_getaffinity(SELF).ok();
            if before.is_some() {
                pin(first);
            }
            Self { before }
        }
    }

    impl Drop for Pinning {
        fn drop(&mut self) {
            if let Some(before) = &self.before
                && let Err(error) = sched_setaffinity(SELF, before)
            {
                tracing::debug!("cannot release a caller from its core: {error}");
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod elsewhere {
    /// Does nothing: threads run on any core.
    pub fn pin(_core: usize) {}

    /// Guard without effect, as threads are not pinned.
    pub struct Pinning;

    impl Pinning {
        /// Leaves the thread where it is.
        pub fn away_from_workers() -> Self {
            Self
        }
    }
}
