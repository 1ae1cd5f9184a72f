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

pub mod numbers;

/// Name of the parameter that selects the backend.
pub const BACKEND: &str = "backend";

/// Name of the parameter that selects the number of threads.
pub const THREADS: &str = "threads";

/// Name of the parameter that gives the seconds of fine-tuning. The search never proposes it; it is
/// set for finalists.
pub const FINETUNE: &str = "finetune";

/// Prefix of the parameters that select the kept fraction of a group's channels.
pub const CHANNELS: &str = "channels.";

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
