//! The threads of a pool, and the fast path by which a job reaches them.
//!
//! The caller is thread 0; the others are the threads of a rayon pool. Waking a sleeping thread
//! takes tens of microseconds, as long as a small network takes to run. A thread that has finished
//! a job therefore lingers for a moment. A job that arrives in this time is handed over through
//! memory, without a system call, an allocation or a contended lock. Only threads that sleep again
//! are woken by a rayon broadcast.

use std::any::Any;
use std::hint::spin_loop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::float_mode;
use super::pinning::{Pinning, pin};
use super::work_queue::WorkQueue;
use crate::error::KernelError;
use crate::hardware::allowed_cores;

/// Time that a thread lingers after a job. The next run of a benchmark comes within a microsecond.
const LINGER: Duration = Duration::from_micros(200);
/// Number of polls before a lingering or waiting thread starts to yield.
const POLLS_BEFORE_YIELD: u32 = 1_000;

/// The thread sleeps in rayon's pool.
const ASLEEP: u32 = 0;
/// The thread waits for a job.
const LINGERS: u32 = 1;
/// The thread has a job, or will find it when it wakes up.
const HAS_JOB: u32 = 2;

/// The function that all threads of a run execute, each with its index.
type Job<'a> = &'a (dyn Fn(usize) + Sync);

/// The threads shared by all pools of one size.
pub(super) struct SharedThreads {
    pool: rayon::ThreadPool,
    shared: Arc<Shared>,
    pinned: bool,
    /// Held during a run: the threads serve one caller at a time.
    running: Mutex<()>,
    /// The work queue of the current run.
    queue: WorkQueue,
}

struct Shared {
    /// State of each thread of the rayon pool.
    slots: Box<[Slot]>,
    /// Pointer to the [`Job`] of the current run.
    job: AtomicPtr<()>,
    /// Number of threads that have not finished the job.
    remaining: AtomicUsize,
}

/// State of a thread, on its own cache line.
#[repr(align(128))]
struct Slot(AtomicU32);

impl SharedThreads {
    /// Starts the threads that serve a caller in a pool of `count` threads, at least 2.
    pub fn new(count: usize) -> Result<Self, KernelError> {
        let cores = allowed_cores();
        // With more threads than cores, the operating system's scheduling is better than pinning.
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
            .map_err(|error| {
                KernelError::System(format!("cannot start {count} threads: {error}"))
            })?;
        let shared = Shared {
            slots: (1..count).map(|_| Slot(AtomicU32::new(ASLEEP))).collect(),
            job: AtomicPtr::new(std::ptr::null_mut()),
            remaining: AtomicUsize::new(0),
        };
        let (running, queue) = (Mutex::new(()), WorkQueue::new(count));
        Ok(Self { pool, shared: Arc::new(shared), pinned, running, queue })
    }

    /// Returns the work queue of the current run.
    pub fn queue(&self) -> &WorkQueue {
        &self.queue
    }

    /// Makes every thread call `job` with its index, the caller with index 0, and returns when all
    /// are done. Panics of `job` on other threads are swallowed here; a panic on the caller's
    /// thread is returned.
    pub fn run(&self, job: Job<'_>) -> Result<(), Box<dyn Any + Send>> {
        // A panic cannot leave inconsistent state while the lock is held.
        let _running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let _place = self.pinned.then(Pinning::away_from_workers);
        self.queue.reset();
        let shared = &*self.shared;
        let job_place: *const Job<'_> = &raw const job;
        shared.job.store(job_place.cast_mut().cast(), Ordering::Relaxed);
        shared.remaining.store(shared.slots.len(), Ordering::Relaxed);
        let mut asleep = false;
        for Slot(state) in &shared.slots {
            // Release: a thread that sees the new state also sees the job.
            asleep |= state.swap(HAS_JOB, Ordering::AcqRel) == ASLEEP;
        }
        if asleep {
            // Threads that are awake find nothing to do in this broadcast later.
            let shared = Arc::clone(&self.shared);
            self.pool.spawn_broadcast(move |context| shared.serve(context.index()));
        }
        let result = catch_unwind(AssertUnwindSafe(|| job(0)));
        // The job lives on this stack: no thread may still execute it when this function returns.
        let mut polls = 0;
        while shared.remaining.load(Ordering::Acquire) > 0 {
            relax(&mut polls);
        }
        result
    }
}

impl Shared {
    /// Executes jobs on a thread of the pool from its wake-up until no job arrives any more.
    fn serve(&self, index: usize) {
        let Slot(state) = &self.slots[index];
        while state.load(Ordering::Acquire) == HAS_JOB {
            let job: *const Job<'_> = self.job.load(Ordering::Relaxed).cast_const().cast();
            // SAFETY: the pointer was stored before the state that was seen with Acquire, by a
            // `run` that does not return, and so keeps the reference and what it refers to alive,
            // until `remaining` is decremented below.
            let job: Job<'_> = unsafe { *job };
            // A job reports its panics itself (`ThreadPool::run`); they must not end the thread
            // here.
            let _ = catch_unwind(AssertUnwindSafe(|| job(index + 1)));
            // This must precede the decrement, after which the caller may hand out the next job.
            state.store(LINGERS, Ordering::Release);
            self.remaining.fetch_sub(1, Ordering::Release);
            self.linger(state);
        }
    }

    /// Waits for a job until the lingering time has passed.
    fn linger(&self, state: &AtomicU32) {
        let start = Instant::now();
        let mut polls = 0;
        while state.load(Ordering::Acquire) == LINGERS {
            relax(&mut polls);
            if polls % 64 == 0 && start.elapsed() > LINGER {
                // Fails if a job has arrived in this very moment.
                let _ =
                    state.compare_exchange(LINGERS, ASLEEP, Ordering::AcqRel, Ordering::Acquire);
                return;
            }
        }
    }
}

/// Performs one poll of a waiting thread.
fn relax(polls: &mut u32) {
    *polls = polls.wrapping_add(1);
    if *polls < POLLS_BEFORE_YIELD {
        spin_loop();
    } else {
        std::thread::yield_now();
    }
}
