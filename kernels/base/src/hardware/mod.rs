//! Description of the machine: instruction sets, cores, OpenCL devices, and measured ceilings.
//!
//! This module chooses nothing. Its description forms the identity under which measurements are
//! stored.

use serde::{Deserialize, Serialize};

pub(crate) mod caches;
mod cores;

pub use cores::allowed_cores;
use paretune_simd::Isa;

/// Description of a machine; measurements are valid on machines with an equal description.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hardware {
    /// Hash of all other fields.
    pub id: String,
    /// Name of the processor, for people.
    pub cpu: String,
    /// Number of cores that this process may use.
    pub cores: usize,
    /// Widest instruction set that the processor can execute.
    pub isa: Isa,
    /// Names of the OpenCL devices as `platform/device`.
    pub devices: Vec<String>,
}

impl Hardware {
    /// Looks at the machine; `devices` are the names of its OpenCL devices.
    #[must_use]
    pub fn detect(devices: Vec<String>) -> Self {
        Self::describe(cores::cpu_name(), allowed_cores().len(), Isa::detect(), devices)
    }

    /// Creates the description of a machine, with the id that follows from the other fields.
    fn describe(cpu: String, cores: usize, isa: Isa, devices: Vec<String>) -> Self {
        let mut hasher = blake3::Hasher::new();
        let mut absorb = |text: &str| {
            // The length comes first, so that different lists of texts never hash alike.
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
        let first = Hardware::detect(Vec::new());
        assert_eq!(first, Hardware::detect(Vec::new()));
        assert_eq!(first.id.len(), 16);
        assert!(first.cores >= 1);
        assert!(!first.cpu.is_empty());
    }

    #[test]
    fn every_word_enters_the_identity() {
        let describe = |cpu: &str, cores, isa, devices: &[&str]| {
            Hardware::describe(
                cpu.into(),
                cores,
                isa,
                devices.iter().map(|d| (*d).into()).collect(),
            )
            .id
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
