//! Instruction sets and the vectors that kernels are written against.
//!
//! A *token* is a value of an instruction set, such as [`Avx512`]. It has no size,
//! and it exists only on processors that execute the set, so calculating with the methods of
//! [`Simd`] is safe. Only methods that take addresses are `unsafe`. (The idea is rten's.)
//!
//! Code comes in two forms, both generic over the token. A [`SimdOp`] is evaluated at once by
//! [`Dispatch::dispatch`], the one place that goes from an instruction set known at run time to a
//! token. A [`SimdFn`] is compiled to a function pointer, which a kernel keeps and calls later.
//! Both are inlined into one function for each instruction set that enables its target features, so
//! that intrinsics become single instructions.
//!
//! ```
//! use paretune_simd::{Dispatch, IsaToken, Simd, SimdOp};
//!
//! struct Sum<'a>(&'a [f32]);
//!
//! impl SimdOp for Sum<'_> {
//!     type Output = f32;
//!
//!     #[inline(always)]
//!     fn eval<S: Simd>(self, simd: S) -> f32 {
//!         let mut sums = simd.splat(0.0);
//!         let chunks = self.0.chunks_exact(S::LANES);
//!         let rest = chunks.remainder();
//!         for chunk in chunks {
//!             // SAFETY: the chunk has `LANES` numbers.
//!             sums = simd.add(sums, unsafe { simd.load(chunk.as_ptr()) });
//!         }
//!         simd.to_lanes(sums)[..S::LANES].iter().chain(rest).sum()
//!     }
//! }
//!
//! assert_eq!(IsaToken::detect().f32().dispatch(Sum(&[0.5; 100])), 50.0);
//! ```
//!
//! This crate knows no algorithm and no tile size.

mod activate;
mod array;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod copy;
pub mod half;
mod isa;
mod methods;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
mod token;
mod vectors;

pub use activate::Activate;
pub use array::array;
#[cfg(target_arch = "x86_64")]
pub use avx2::{Avx2, AvxVnni};
#[cfg(target_arch = "x86_64")]
pub use avx512::{Avx512, Avx512Bf16, Avx512Vnni};
pub use copy::copy_few;
pub use isa::{Isa, lanes};
#[cfg(target_arch = "aarch64")]
pub use neon::{Neon, NeonDot};
pub use portable::Portable;
pub use token::{Bf16Token, Dispatch, F32Token, IsaToken};
pub use vectors::{Simd, SimdFn, SimdOp, quartered};

#[cfg(test)]
mod tests;
