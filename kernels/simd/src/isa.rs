//! Detection of the vector instruction sets of this machine.

use serde::{Deserialize, Serialize};

use crate::IsaToken;

/// Vector instruction sets that kernels are written for, the narrowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Isa {
    /// Plain Rust, for any processor.
    Portable,
    /// 64-bit Arm with NEON: vectors of 128 bits.
    Neon,
    /// 64-bit Arm with NEON and dot products of signed bytes.
    NeonDot,
    /// x86-64 with AVX2 and FMA.
    Avx2,
    /// x86-64 with AVX2, FMA and AVX-VNNI.
    AvxVnni,
    /// x86-64 with AVX-512 F, BW, DQ and VL.
    Avx512,
    /// x86-64 with AVX-512 F, BW, DQ, VL and VNNI.
    Avx512Vnni,
    /// x86-64 with AVX-512 F, BW, DQ, VL, VNNI and BF16.
    Avx512Bf16,
}

impl Isa {
    /// All instruction sets, the narrowest first, available or not.
    pub const ALL: [Self; 8] = [
        Self::Portable,
        Self::Neon,
        Self::NeonDot,
        Self::Avx2,
        Self::AvxVnni,
        Self::Avx512,
        Self::Avx512Vnni,
        Self::Avx512Bf16,
    ];

    /// Returns the widest instruction set of this machine.
    #[must_use]
    pub fn detect() -> Self {
        Self::ALL.into_iter().rev().find(|isa| isa.is_available()).unwrap_or(Self::Portable)
    }

    /// Returns all instruction sets that this machine can execute, the narrowest first; tests run
    /// all of them.
    #[must_use]
    pub fn available() -> Vec<Self> {
        Self::ALL.into_iter().filter(|isa| isa.is_available()).collect()
    }

    /// Returns whether this machine can execute kernels of this instruction set. The standard
    /// library caches the detection, so this is cheap.
    #[must_use]
    pub fn is_available(self) -> bool {
        IsaToken::new(self).is_some()
    }

    /// Returns the `snake_case` name, for people and cache keys.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Neon => "neon",
            Self::NeonDot => "neon_dot",
            Self::Avx2 => "avx2",
            Self::AvxVnni => "avx_vnni",
            Self::Avx512 => "avx512",
            Self::Avx512Vnni => "avx512_vnni",
            Self::Avx512Bf16 => "avx512_bf16",
        }
    }
}

/// Returns the numbers per vector of `isa`, whether this machine has it or not.
#[must_use]
pub fn lanes(isa: Isa) -> usize {
    match isa {
        Isa::Portable | Isa::Neon | Isa::NeonDot => 4,
        Isa::Avx2 | Isa::AvxVnni => 8,
        Isa::Avx512 | Isa::Avx512Vnni | Isa::Avx512Bf16 => 16,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_widest_set_is_the_last_available() {
        let available = Isa::available();
        assert_eq!(available.first(), Some(&Isa::Portable));
        assert_eq!(available.last(), Some(&Isa::detect()));
        assert!(available.is_sorted());
    }
}
