//! The ground floor of the inference runtime: words that every backend shares, and what each of
//! them needs of the machine. It computes no network.
//!
//! - [`plan`]: plans, operators, shapes, weights and schedules as plain data
//! - [`hardware`]: detection of cores and caches
//! - [`roofline`]: measured ceilings of arithmetic and memory
//! - [`threads`]: the thread pool
//! - [`mod@file`]: bounded reads of regular files
//! - [`memory`]: counted allocations, aligned blocks, mapped files
//! - [`execution`] and [`arena`]: what executors of all backends share

pub mod arena;
pub mod clock;
pub mod error;
pub mod execution;
pub mod file;
pub mod hardware;
pub mod memory;
pub mod plan;
pub mod registry;
pub mod roofline;
pub mod threads;
