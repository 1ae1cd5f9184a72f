//! Grammar of configurations: the names of a network's parameters and their meaning.
//!
//! | parameter | meaning |
//! | --- | --- |
//! | `backend` | `cpu`, `opencl` or `opencl:PLATFORM/DEVICE`; or two of them, see [`Partition`] |
//! | `threads` | number of CPU threads for the whole network |
//! | `finetune` | seconds of distillation from the baseline; 0 or absent: none |
//! | `channels.GROUP` | kept fraction of a group's channels |
//! | `LAYER.bits` | 32: single precision; 16: see `half`; fewer: integers, 1.58: ternary |
//! | `LAYER.half` | 16-bit type: `bf16` (also if it is absent) or `fp16` |
//! | `LAYER.sparsity` | fraction of the weights that is zero |
//! | `LAYER.pattern` | pattern of the zeros: `unstructured`, `blocks_16x1`, `2_of_4` |
//! | `LAYER.algorithm` | convolution algorithm |
//! | `LAYER.ALGORITHM.TUNABLE` | a tunable of that algorithm |

use std::collections::BTreeSet;

pub mod numbers;

use numbers::{BITS, HALF};

/// Name of the parameter that selects the backend.
pub const BACKEND: &str = "backend";

/// Name of the parameter that selects the number of threads.
pub const THREADS: &str = "threads";

/// Name of the parameter that gives the seconds of fine-tuning. The search never proposes it; it is
/// set for finalists.
pub const FINETUNE: &str = "finetune";

/// Prefix of the parameters that select the kept fraction of a group's channels.
pub const CHANNELS: &str = "channels.";

/// Last part of the name of a layer's parameter for the fraction of zeros.
pub const SPARSITY: &str = "sparsity";

/// Last part of the name of a layer's parameter for the pattern of its zeros.
pub const PATTERN: &str = "pattern";

/// Last part of the name of a layer's parameter for its algorithm.
pub const ALGORITHM: &str = "algorithm";

/// Name of a parameter, parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name<'n> {
    /// The backend, or two of them.
    Backend,
    /// Number of threads of the processor.
    Threads,
    /// Duration of fine-tuning in seconds.
    Finetune,
    /// The kept fraction of a group of channels.
    Channels(&'n str),
    /// A part of the configuration of a layer.
    Layer(&'n str, LayerPart<'n>),
}

/// A part of the configuration of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerPart<'n> {
    /// Number of bits of the weights.
    Bits,
    /// The 16-bit type of the weights.
    Half,
    /// Fraction of the weights that is zero.
    Sparsity,
    /// Pattern in which zeros may stand.
    Pattern,
    /// Name of the layer's convolution algorithm.
    Algorithm,
    /// A tunable of an algorithm.
    Tunable {
        /// Name of the algorithm that has the tunable.
        algorithm: &'n str,
        /// Name of the tunable within its algorithm.
        tunable: &'n str,
    },
}

impl LayerPart<'_> {
    /// Returns whether the part changes the numbers of the weights, and not only the speed.
    #[must_use]
    pub fn is_compression(self) -> bool {
        matches!(self, Self::Bits | Self::Half | Self::Sparsity | Self::Pattern)
    }
}

impl<'n> Name<'n> {
    /// Parses the name of a parameter of a network with these `layers`. Of several layers whose
    /// names are dotted prefixes, the longest is meant.
    #[must_use]
    pub fn parse(name: &'n str, layers: &BTreeSet<&str>) -> Option<Self> {
        match name {
            BACKEND => return Some(Self::Backend),
            THREADS => return Some(Self::Threads),
            FINETUNE => return Some(Self::Finetune),
            _ => {}
        }
        if let Some(group) = name.strip_prefix(CHANNELS) {
            return Some(Self::Channels(group));
        }
        let (layer, rest) = name
            .rmatch_indices('.')
            .map(|(dot, _)| (&name[..dot], &name[dot + 1..]))
            .find(|(layer, _)| layers.contains(layer))?;
        let part = match rest {
            BITS => LayerPart::Bits,
            HALF => LayerPart::Half,
            SPARSITY => LayerPart::Sparsity,
            PATTERN => LayerPart::Pattern,
            ALGORITHM => LayerPart::Algorithm,
            rest => {
                let (algorithm, tunable) = rest.split_once('.')?;
                LayerPart::Tunable { algorithm, tunable }
            }
        };
        Some(Self::Layer(layer, part))
    }
}

/// Returns the layers that parameters called `names` speak of.
#[must_use]
pub fn layers_of<'n>(names: impl IntoIterator<Item = &'n str>) -> BTreeSet<&'n str> {
    let own = [BITS, SPARSITY, PATTERN, ALGORITHM];
    let layer = |name: &'n str| name.rsplit_once('.').filter(|(_, part)| own.contains(part));
    names.into_iter().filter_map(layer).map(|(layer, _)| layer).collect()
}

/// Partition of a network between two backends, as a value of [`BACKEND`]. `cpu then opencl at 3`
/// starts on the processor and continues on the device from layer 3 (counted from 0). `cpu then
/// opencl at 3 to 7` returns to the processor at layer 7. A single parameter holds the partition,
/// so that the layers of a space stay independent once it has a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition<'t> {
    /// Backend of the first layers.
    pub first: &'t str,
    /// Backend after the first cut point.
    pub second: &'t str,
    /// The first layer on the second backend.
    pub at: usize,
    /// The first layer that is back on the first backend, if there is one.
    pub back: Option<usize>,
}

impl<'t> Partition<'t> {
    /// Parses a value of [`BACKEND`]; `None` if it names a single backend.
    #[must_use]
    pub fn read(text: &'t str) -> Option<Self> {
        let (first, rest) = text.split_once(" then ")?;
        let (second, places) = rest.rsplit_once(" at ")?;
        let (at, back) = match places.split_once(" to ") {
            Some((at, back)) => (at, Some(back.parse().ok()?)),
            None => (places, None),
        };
        Some(Self { first, second, at: at.parse().ok()?, back })
    }

    /// Returns whether the second backend runs layer `number`.
    #[must_use]
    pub fn is_second(&self, number: usize) -> bool {
        number >= self.at && self.back.is_none_or(|back| number < back)
    }
}

impl std::fmt::Display for Partition<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} then {} at {}", self.first, self.second, self.at)?;
        self.back.map_or(Ok(()), |back| write!(f, " to {back}"))
    }
}

/// Returns the name of a layer's parameter.
#[must_use]
pub fn layer_parameter(layer: &str, parameter: &str) -> String {
    format!("{layer}.{parameter}")
}

/// Returns the name of a tunable of a layer's algorithm.
#[must_use]
pub fn tunable_parameter(layer: &str, algorithm: &str, tunable: &str) -> String {
    format!("{layer}.{algorithm}.{tunable}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parsed_by_their_layers() {
        let names = ["a.bits", "a.b.algorithm", "a.b.direct.half", "threads", "channels.x.bits"];
        let layers = layers_of(names);
        let parse = |name| Name::parse(name, &layers);
        assert_eq!(parse("a.bits"), Some(Name::Layer("a", LayerPart::Bits)));
        assert_eq!(parse("a.half"), Some(Name::Layer("a", LayerPart::Half)));
        let tunable = LayerPart::Tunable { algorithm: "direct", tunable: "half" };
        assert_eq!(parse("a.b.direct.half"), Some(Name::Layer("a.b", tunable)));
        assert_eq!(parse("channels.x.bits"), Some(Name::Channels("x.bits")));
        assert_eq!(
            (parse("threads"), parse("backend")),
            (Some(Name::Threads), Some(Name::Backend))
        );
        assert_eq!((parse("c.bits"), parse("a.speed")), (None, None));
    }
}
