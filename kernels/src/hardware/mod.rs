//! What the machine is: instruction sets, cores, OpenCL devices, and its measured ceilings.
//!
//! Nothing here chooses anything; the words it finds become the identity under which measurements are
//! stored.

use serde::{Deserialize, Serialize};

mod caches;
mod ceilings;
mod cores;
mod isa;
mod peak;
mod probe;

pub use ceilings::{Ceilings, LevelCeilings, ThreadCeilings, ceilings};
pub use cores::allowed_cores;
pub use isa::Isa;
pub use probe::SpeedProbe;

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
        Self::describe(cores::cpu_name(), allowed_cores().len(), Isa::detect(), crate::opencl::names())
    }

    /// A machine in these words, with the id that follows from them.
    fn describe(cpu: String, cores: usize, isa: Isa, devices: Vec<String>) -> Self {
        let mut hasher = blake3::Hasher::new();
        let mut absorb = |text: &str| {
            // Length first, so that no two lists of words hash alike.
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        };
        absorb(&cpu);
        absorb(&cores.to_string());
        absorb(isa.name());
        for device in &devices {
            absorb(device);
        }
        let id = hasher.finalize().to_hex()[..16].to_string();
        Self { id, cpu, cores, isa, devices }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_has_a_stable_identity() {
        let first = Hardware::detect();
        assert_eq!(first, Hardware::detect());
        assert_eq!(first.id.len(), 16);
        assert!(first.cores >= 1);
        assert!(!first.cpu.is_empty());
    }

    #[test]
    fn every_word_enters_the_identity() {
        let describe = |cpu: &str, cores, isa, devices: &[&str]| {
            Hardware::describe(cpu.into(), cores, isa, devices.iter().map(|d| (*d).into()).collect()).id
        };
        let base = describe("a", 2, Isa::Portable, &["p/d"]);
        for other in [
            describe("b", 2, Isa::Portable, &["p/d"]),
            describe("a", 4, Isa::Portable, &["p/d"]),
            describe("a", 2, Isa::Neon, &["p/d"]),
            describe("a", 2, Isa::Portable, &[]),
            describe("a", 2, Isa::Portable, &["p/", "d"]),
        ] {
            assert_ne!(base, other);
        }
    }
}
