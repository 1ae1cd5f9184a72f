//! Hashes the sources of this crate.

#[path = "../source_hash.rs"]
mod source_hash;

fn main() {
    source_hash::emit(&["src"]);
}
