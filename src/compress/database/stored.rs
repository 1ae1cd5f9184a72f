//! Stored form of compressed layers.

use std::sync::Arc;

use paretune_kernels::weights::Pattern;
use paretune_kernels::{WeightValues, Weights};
use serde::{Deserialize, Serialize};

use crate::error::CompressError;
use crate::layers::LayerInfo;
use crate::reconstruct::Reconstruction;

/// Stored form of a variant, with zeros as bits.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Stored {
    pub(super) error: f64,
    bias: Option<Arc<[f32]>>,
    weights: StoredWeights,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum StoredWeights {
    /// Bit mask of the nonzero weights, eight to a byte, and their values.
    Sparse { kept: Vec<u8>, values: Vec<f32> },
    /// Integer weights on a grid.
    Integer(paretune_kernels::weights::IntegerWeights),
}

impl Stored {
    pub(super) fn new(reconstruction: Reconstruction) -> Result<Self, CompressError> {
        let weights = match &reconstruction.weights.values {
            WeightValues::Integer(integer) => StoredWeights::Integer(integer.clone()),
            WeightValues::F32(values) | WeightValues::Bf16(values) | WeightValues::Fp16(values) => {
                StoredWeights::Sparse {
                    kept: values
                        .chunks(8)
                        .map(|chunk| {
                            chunk
                                .iter()
                                .enumerate()
                                .map(|(bit, &x)| u8::from(x != 0.0) << bit)
                                .sum::<u8>()
                        })
                        .collect(),
                    values: values.iter().copied().filter(|&x| x != 0.0).collect(),
                }
            }
        };
        Ok(Self { error: reconstruction.error, bias: reconstruction.weights.bias, weights })
    }

    /// Decodes the weights of `layer`, if their number is right.
    pub(super) fn weights(
        &self,
        layer: &LayerInfo,
        pattern: Pattern,
    ) -> Result<Weights, CompressError> {
        let mismatch = || {
            CompressError::Database(format!(
                "a variant does not fit layer `{}`; remove it",
                layer.step
            ))
        };
        let values = match &self.weights {
            StoredWeights::Integer(integer) => WeightValues::Integer(integer.clone()),
            StoredWeights::Sparse { kept, values } => {
                if kept.len() != layer.weights.div_ceil(8) {
                    return Err(mismatch());
                }
                let mut next = values.iter().copied();
                let all = (0..layer.weights).map(|index| {
                    let zero = kept[index / 8] >> (index % 8) & 1 == 0;
                    if zero { Some(0.0) } else { next.next() }
                });
                WeightValues::F32(all.collect::<Option<Arc<[f32]>>>().ok_or_else(mismatch)?)
            }
        };
        if values.len() != layer.weights {
            return Err(mismatch());
        }
        Ok(Weights { dims: layer.dims, values, pattern, bias: self.bias.clone() })
    }
}
