//! Store of measurements, so that nothing is measured twice.
//!
//! A [`Record`] is the answer to one measurement, or the reason why there is none. It is filed
//! under a [`Key`] that hashes everything the answer depends on. The [`Store`] keeps records in
//! sled: small, checksummed and flushed one by one, so that a killed process loses at most the
//! record that it was writing. The store knows nothing of networks or spaces: whoever measures
//! names the dependencies of an answer in [`KeyParts`].
//!
//! A damaged folder can make sled panic or hang. The store therefore opens sled under a watchdog
//! and reads everything once. A folder that fails this check is set aside, and every record that
//! still has a right checksum is recovered from its bytes. One process owns a store at a time.

#![forbid(unsafe_code)]

mod codec;
mod error;
mod guard;
mod key;
mod lock;
mod open;
mod record;
mod salvage;
mod store;
mod transfer;

#[cfg(test)]
mod tests;

pub use error::StoreError;
pub use key::{HARDWARE, Key, KeyParts};
pub use record::{MAX_SAMPLES, Outcome, Record, thin};
pub use store::{Compacted, Records, Stats, Store, Verified};
pub use transfer::{Imported, MAX_LINE_BYTES};
