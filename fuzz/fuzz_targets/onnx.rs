//! Network files: whatever the bytes, the importer returns a network or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use paretune_model::Network;

fuzz_target!(|bytes: &[u8]| {
    let _ = Network::from_bytes("fuzz", bytes, None);
});
