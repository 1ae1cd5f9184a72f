//! The convolution algorithms, one in each file; [`super::registry`] lists them.

pub(crate) mod block_sparse;
pub(crate) mod csr;
pub(crate) mod depthwise;
pub(crate) mod depthwise_int8;
pub(crate) mod depthwise_planar;
pub(crate) mod direct;
pub(crate) mod direct_blocked;
pub(crate) mod im2col_gemm;
pub(crate) mod implicit_gemm;
pub(crate) mod implicit_gemm_bf16;
pub(crate) mod implicit_gemm_fp16;
pub(crate) mod implicit_gemm_int8;
pub(crate) mod naive;
pub(crate) mod sparse_planar;
pub(crate) mod streams_int8;
pub(crate) mod winograd;
pub(crate) mod winograd_int8;
