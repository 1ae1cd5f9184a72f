//! Bundles: two bytes tell where `plan.bin` ends and `weights.bin` begins. The checksum is made
//! right, so that the parser behind it is reached.
#![no_main]

use libfuzzer_sys::fuzz_target;
use paretune_fuzz::with_files;
use paretune_kernels::bundle::Bundle;

/// Bytes of `plan.bin` before its body: magic, version, form, checksum.
const HEADER: usize = 8 + 2 + 2 + 32;

fuzz_target!(|bytes: &[u8]| {
    let Some((length, rest)) = bytes.split_first_chunk::<2>() else { return };
    let (plan, weights) = rest.split_at(rest.len().min(usize::from(u16::from_le_bytes(*length))));
    let mut plan = plan.to_vec();
    if plan.len() >= HEADER {
        let body = plan[HEADER..].to_vec();
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(body.len() as u64).to_le_bytes()).update(&body).update(weights);
        plan[HEADER - 32..HEADER].copy_from_slice(hasher.finalize().as_bytes());
    }
    with_files(&[("plan.bin", &plan), ("weights.bin", weights)], |folder| {
        let _ = Bundle::read(folder);
    });
});
