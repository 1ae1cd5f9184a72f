//! Tests of the operators other than convolution.

mod activation;
mod binary;
mod convert;
mod folded;
mod mean;
