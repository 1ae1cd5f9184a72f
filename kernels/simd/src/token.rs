//! Dispatch from an instruction set that is known at run time to its token.

use std::marker::PhantomData;

#[cfg(target_arch = "x86_64")]
use crate::{Avx2, Avx512, Avx512Bf16, Avx512Vnni, AvxVnni};
use crate::{Isa, Portable, Simd, SimdFn, SimdOp};
#[cfg(target_arch = "aarch64")]
use crate::{Neon, NeonDot};

/// Choice of one token from several, made at run time.
pub trait Dispatch: Copy {
    /// Evaluates `op` with the chosen instruction set, for which it is compiled.
    fn dispatch<O: SimdOp>(self, op: O) -> O::Output;

    /// Returns a pointer to the function, compiled for the chosen instruction set. Calling it takes
    /// what [`SimdFn::call`] asks for.
    fn pointer<F: SimdFn>(self) -> for<'a> unsafe fn(F::Args<'a>) {
        struct Pointer<F>(PhantomData<F>);
        impl<F: SimdFn> SimdOp for Pointer<F> {
            type Output = for<'a> unsafe fn(F::Args<'a>);
            #[inline(always)]
            fn eval<S: Simd>(self, simd: S) -> Self::Output {
                simd.pointer::<F>()
            }
        }
        self.dispatch(Pointer::<F>(PhantomData))
    }
}

/// Token of any instruction set that this processor executes.
#[derive(Clone, Copy, Debug)]
pub enum IsaToken {
    /// Token of plain Rust, for any machine.
    Portable(Portable),
    /// Token of NEON.
    #[cfg(target_arch = "aarch64")]
    Neon(Neon),
    /// Token of NEON with dot products of bytes.
    #[cfg(target_arch = "aarch64")]
    NeonDot(NeonDot),
    /// Token of AVX2.
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    /// Token of AVX-VNNI.
    #[cfg(target_arch = "x86_64")]
    AvxVnni(AvxVnni),
    /// Token of AVX-512.
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    /// Token of AVX-512 with VNNI.
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni(Avx512Vnni),
    /// Token of AVX-512 with VNNI and BF16.
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16(Avx512Bf16),
}

impl IsaToken {
    /// Returns the token of `isa`, or `None` if this processor does not execute it.
    #[must_use]
    pub fn new(isa: Isa) -> Option<Self> {
        match isa {
            Isa::Portable => Some(Self::Portable(Portable::new())),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => Neon::new().map(Self::Neon),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonDot => NeonDot::new().map(Self::NeonDot),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => Avx2::new().map(Self::Avx2),
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni => AvxVnni::new().map(Self::AvxVnni),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => Avx512::new().map(Self::Avx512),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni => Avx512Vnni::new().map(Self::Avx512Vnni),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16 => Avx512Bf16::new().map(Self::Avx512Bf16),
            #[allow(unreachable_patterns, reason = "sets of other architectures")]
            _ => None,
        }
    }

    /// Returns the token of the widest instruction set of this machine.
    #[must_use]
    pub fn detect() -> Self {
        Self::new_or_portable(Isa::detect())
    }

    /// Returns the token of `isa`, or that of plain Rust if this processor does not execute it.
    #[must_use]
    pub fn new_or_portable(isa: Isa) -> Self {
        Self::new(isa).unwrap_or(Self::Portable(Portable::new()))
    }

    /// Returns the instruction set of the token.
    #[must_use]
    pub fn isa(self) -> Isa {
        match self {
            Self::Portable(_) => Isa::Portable,
            #[cfg(target_arch = "aarch64")]
            Self::Neon(_) => Isa::Neon,
            #[cfg(target_arch = "aarch64")]
            Self::NeonDot(_) => Isa::NeonDot,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => Isa::Avx2,
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni(_) => Isa::AvxVnni,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => Isa::Avx512,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni(_) => Isa::Avx512Vnni,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16(_) => Isa::Avx512Bf16,
        }
    }

    /// Returns the choice for code that computes in single precision only, see [`F32Token`].
    #[must_use]
    pub fn f32(self) -> F32Token {
        F32Token(self)
    }

    /// Returns the choice for code with dot products of bfloat16, or `None` if the processor has no
    /// instruction for them.
    #[must_use]
    pub fn bf16(self) -> Option<Bf16Token> {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16(simd) => Some(Bf16Token(simd)),
            _ => None,
        }
    }
}

impl Dispatch for IsaToken {
    fn dispatch<O: SimdOp>(self, op: O) -> O::Output {
        match self {
            Self::Portable(simd) => simd.vectorize(op),
            #[cfg(target_arch = "aarch64")]
            Self::Neon(simd) => simd.vectorize(op),
            #[cfg(target_arch = "aarch64")]
            Self::NeonDot(simd) => simd.vectorize(op),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(simd) => simd.vectorize(op),
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni(simd) => simd.vectorize(op),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(simd) => simd.vectorize(op),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni(simd) => simd.vectorize(op),
            // Only code for `Bf16Token` has a use for these instructions.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16(simd) => Avx512Vnni::from(simd).vectorize(op),
        }
    }
}

/// Choice for code that computes in single precision only: it is the same with and without dot
/// products of bytes, so it is compiled once for both.
#[derive(Clone, Copy, Debug)]
pub struct F32Token(IsaToken);

impl Dispatch for F32Token {
    fn dispatch<O: SimdOp>(self, op: O) -> O::Output {
        match self.0 {
            IsaToken::Portable(simd) => simd.vectorize(op),
            #[cfg(target_arch = "aarch64")]
            IsaToken::Neon(simd) => simd.vectorize(op),
            #[cfg(target_arch = "aarch64")]
            IsaToken::NeonDot(simd) => Neon::from(simd).vectorize(op),
            #[cfg(target_arch = "x86_64")]
            IsaToken::Avx2(simd) => simd.vectorize(op),
            #[cfg(target_arch = "x86_64")]
            IsaToken::AvxVnni(simd) => Avx2::from(simd).vectorize(op),
            #[cfg(target_arch = "x86_64")]
            IsaToken::Avx512(simd) => simd.vectorize(op),
            #[cfg(target_arch = "x86_64")]
            IsaToken::Avx512Vnni(simd) => Avx512::from(simd).vectorize(op),
            #[cfg(target_arch = "x86_64")]
            IsaToken::Avx512Bf16(simd) => Avx512::from(simd).vectorize(op),
        }
    }
}

/// Choice for code with dot products of bfloat16, which exists only on processors with an
/// instruction for them.
#[derive(Clone, Copy, Debug)]
pub struct Bf16Token(
    #[cfg(target_arch = "x86_64")] Avx512Bf16,
    #[cfg(not(target_arch = "x86_64"))] std::convert::Infallible,
);

impl Dispatch for Bf16Token {
    #[cfg(target_arch = "x86_64")]
    fn dispatch<O: SimdOp>(self, op: O) -> O::Output {
        self.0.vectorize(op)
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn dispatch<O: SimdOp>(self, _op: O) -> O::Output {
        match self.0 {}
    }
}
