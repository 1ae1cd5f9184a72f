//! What the machine is: instruction sets, cores, memory, OpenCL devices, and its measured ceilings.

use serde::{Deserialize, Serialize};

/// The families of vector instructions that kernels are written for, narrowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Isa {
    /// Plain Rust, for any processor.
    Portable,
    /// 64-bit Arm vectors.
    Neon,
    /// x86-64 with AVX2 and FMA.
    Avx2,
    /// x86-64 with AVX-512 F, BW, DQ and VL.
    Avx512,
    /// The same with VNNI.
    Avx512Vnni,
}

impl Isa {
    /// The widest set of this machine.
    #[must_use]
    pub fn detect() -> Self {
        todo!()
    }

    /// Every set that this machine can execute, narrowest first; tests run all of them.
    #[must_use]
    pub fn available() -> Vec<Self> {
        todo!()
    }
}

/// The machine in the words that tell whether a measurement made on it holds elsewhere.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hardware {
    /// Hash of everything below that changes speed.
    pub id: String,
    /// Processor name.
    pub cpu: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// Widest instruction set.
    pub isa: Isa,
    /// OpenCL devices as `platform/device`.
    pub devices: Vec<String>,
}

impl Hardware {
    /// Looks at the machine.
    #[must_use]
    pub fn detect() -> Self {
        todo!()
    }
}
