//! What has been measured, so that nothing is measured twice.
//!
//! A [`Record`] is the answer to one measurement (or the reason why there is none), filed under a [`Key`] that
//! hashes everything the answer depends on. The [`Store`] keeps records in sled: small, checksummed, flushed one by
//! one, so that a killed process loses at most the record that it was writing. It knows nothing of networks or
//! spaces: what matters for an answer is named by whoever measures, in [`KeyParts`].
//!
//! sled is trusted with little. It is opened and read through once under a watchdog, because a damaged folder can
//! make it panic or hang; such a folder is set aside, and every record that still carries a right checksum is
//! picked out of its bytes. One process owns a store at a time.

mod codec;
mod error;
mod key;
mod lock;
mod open;
mod quiet;
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
