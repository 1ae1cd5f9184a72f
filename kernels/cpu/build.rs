//! Hashes the sources of this crate, its vectors and its threads.

#[path = "../source_hash.rs"]
mod source_hash;

fn main() {
    source_hash::emit(&["src", "../simd/src", "../base/src/threads"]);
}
