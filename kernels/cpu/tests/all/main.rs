//! Tests of the processor's backend, as one program beside the library: test programs of the
//! library itself would generate all microkernels a second time.

mod conv;
mod operators;
