//! The convolution algorithms, one in each file; [`super::registry`] lists them.

pub(crate) mod bsr_gemm;
pub(crate) mod bsr_gemm_i8;
pub(crate) mod csr_naive;
pub(crate) mod depthwise;
pub(crate) mod depthwise_i8;
pub(crate) mod depthwise_nchw;
pub(crate) mod direct_nchw;
pub(crate) mod direct_nchwc;
pub(crate) mod im2col_gemm;
pub(crate) mod implicit_gemm;
pub(crate) mod implicit_gemm_bf16;
pub(crate) mod implicit_gemm_i8;
pub(crate) mod implicit_gemm_wfp16;
pub(crate) mod naive;
pub(crate) mod spmm_nchw;
pub(crate) mod winograd;
pub(crate) mod winograd_i8;
