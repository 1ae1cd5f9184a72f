//! The threads behind a team, and how a job reaches them fast.
//!
//! The caller is worker 0; the others are the threads of a rayon pool. Waking a sleeping thread takes
//! tens of microseconds, as long as a small network takes to run, so a worker that has finished a job
//! lingers for a moment: a job that comes by then is handed over through memory, without a system call,
//! an allocation or a lock that anyone waits for. Only workers that have gone back to sleep are woken
//! by a rayon broadcast.

use std::any::Any;
use std::hint::spin_loop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::float_mode;
use super::ledger::Ledger;
use super::pinning::{Pinning, pin};
use crate::error::KernelError;
use crate::hardware::allowed_cores;

/// How long a worker lingers after a job. A benchmark's next run comes within a microsecond.
const LINGER: Duration = Duration::from_micros(200);
/// Polls after which a lingering or waiting thread gives way to others.
const POLLS_BEFORE_YIELD: u32 = 1_000;

/// The worker is in rayon's hands.
const ASLEEP: u32 = 0;
/// The worker waits for a job.
const LINGERS: u32 = 1;
/// The worker has a job, or will find it when it wakes up.
const HAS_JOB: u32 = 2;

/// What all workers of a run execute, with their index.
type Job<'a> = &'a (dyn Fn(usize) + Sync);

/// The threads of all teams of one size.
pub(super) struct Crew {
    pool: rayon::ThreadPool,
    shared: Arc<Shared>,
    pinned: bool,
    /// Held during a run: the threads can serve one caller at a time.
    running: Mutex<()>,
    /// Of the run.
    ledger: Ledger,
}

struct Shared {
    /// One per thread of the pool.
    slots: Box<[Slot]>,
    /// The [`Job`] of the current run, by reference.
    job: AtomicPtr<()>,
    /// Threads that have not finished it.
    remaining: AtomicUsize,
}

/// A thread's state, on a cache line of its own.
#[repr(align(128))]
struct Slot(AtomicU32);

impl Crew {
    /// Starts the threads that serve a caller in a team of `count`, at least 2.
    pub fn new(count: usize) -> Result<Self, KernelError> {
        let cores = allowed_cores();
        // With more workers than cores the system spreads them better than we could.
        let pinned = count <= cores.len();
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(count - 1)
            .thread_name(move |index| format!("paretune-{}/{count}", index + 1))
            .start_handler(move |index| {
                float_mode::flush_denormals();
                if pinned {
                    pin(cores[index + 1]);
                }
            })
            .build()
            .map_err(|error| KernelError::System(format!("cannot start {count} threads: {error}")))?;
        let shared = Shared {
            slots: (1..count).map(|_| Slot(AtomicU32::new(ASLEEP))).collect(),
            job: AtomicPtr::new(std::ptr::null_mut()),
            remaining: AtomicUsize::new(0),
        };
        let (running, ledger) = (Mutex::new(()), Ledger::new(count));
        Ok(Self { pool, shared: Arc::new(shared), pinned, running, ledger })
    }

    /// What is left of the present run's work.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Has every worker call `job` with its index, the caller being 0; returns when all are done.
    /// Panics of `job` on other threads are its own affair: they are swallowed here. One on the
    /// caller's thread is returned.
    pub fn run(&self, job: Job<'_>) -> Result<(), Box<dyn Any + Send>> {
        // Nothing can be left half done by a panic while the lock is held.
        let _running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let _place = self.pinned.then(Pinning::away_from_workers);
        self.ledger.reset();
        let shared = &*self.shared;
        let job_place: *const Job<'_> = &raw const job;
        shared.job.store(job_place.cast_mut().cast(), Ordering::Relaxed);
        shared.remaining.store(shared.slots.len(), Ordering::Relaxed);
        let mut asleep = false;
        for Slot(state) in &shared.slots {
            // Release: whoever sees the new state sees the job.
            asleep |= state.swap(HAS_JOB, Ordering::AcqRel) == ASLEEP;
        }
        if asleep {
            // Those who are awake will find nothing to do in it, later.
            let shared = Arc::clone(&self.shared);
            self.pool.spawn_broadcast(move |context| shared.serve(context.index()));
        }
        let result = catch_unwind(AssertUnwindSafe(|| job(0)));
        // The job lives on this stack: nobody may still be at it when this function returns.
        let mut polls = 0;
        while shared.remaining.load(Ordering::Acquire) > 0 {
            relax(&mut polls);
        }
        result
    }
}

impl Shared {
    /// What a thread of the pool does when rayon has woken it: jobs, until none comes any more.
    fn serve(&self, index: usize) {
        let Slot(state) = &self.slots[index];
        while state.load(Ordering::Acquire) == HAS_JOB {
            let job: *const Job<'_> = self.job.load(Ordering::Relaxed).cast_const().cast();
            // SAFETY: the pointer was stored before the state that was seen with Acquire, by a `run`
            // that does not return, and so keeps the reference and what it refers to alive, until
            // `remaining` is decremented below.
            let job: Job<'_> = unsafe { *job };
            // A job reports its panics itself (`Team::run`); here they only must not end the thread.
            let _ = catch_unwind(AssertUnwindSafe(|| job(index + 1)));
            // Before the caller can go on and hand out the next job.
            state.store(LINGERS, Ordering::Release);
            self.remaining.fetch_sub(1, Ordering::Release);
            self.linger(state);
        }
    }

    /// Waits for a job or the end of patience.
    fn linger(&self, state: &AtomicU32) {
        let start = Instant::now();
        let mut polls = 0;
        while state.load(Ordering::Acquire) == LINGERS {
            relax(&mut polls);
            if polls % 64 == 0 && start.elapsed() > LINGER {
                // Unless a job has come in this very moment.
                let _ = state.compare_exchange(LINGERS, ASLEEP, Ordering::AcqRel, Ordering::Acquire);
                return;
            }
        }
    }
}

/// One poll of a waiting thread.
fn relax(polls: &mut u32) {
    *polls = polls.wrapping_add(1);
    if *polls < POLLS_BEFORE_YIELD {
        spin_loop();
    } else {
        std::thread::yield_now();
    }
}
