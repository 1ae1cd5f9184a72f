//! Integration tests of the search crate, in one program.

mod contract;
mod replay;
