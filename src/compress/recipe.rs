//! Recipes of compression as plain data. The study chooses them.

use std::collections::BTreeMap;

use paretune_kernels::weights::{Numbers, Pattern};
use serde::{Deserialize, Serialize};

use super::error::CompressError;

/// Compression of a whole network. The default is the baseline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Recipe {
    /// Fraction of the channels that is kept, above 0 and at most 1, by name of the channel group.
    pub channels: BTreeMap<String, f64>,
    /// Compression of each layer's weights, by name of the step.
    pub layers: BTreeMap<String, LayerRecipe>,
    /// Criterion by which channels are ranked.
    pub criterion: ChannelCriterion,
    /// Method that chooses the weights of layers.
    pub method: Method,
    /// Whether biases and scales compensate for the mean change that pruning and rounding cause.
    /// This costs nothing at run time.
    #[serde(alias = "repair")]
    pub recalibrate: bool,
}

impl Default for Recipe {
    fn default() -> Self {
        Self {
            channels: BTreeMap::new(),
            layers: BTreeMap::new(),
            criterion: ChannelCriterion::default(),
            method: Method::default(),
            recalibrate: true,
        }
    }
}

/// Compression of the weights of one layer. The default leaves them as they are.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LayerRecipe {
    /// Fraction of the weights that becomes zero, at least 0 and below 1, among those that channel
    /// pruning leaves.
    pub sparsity: f64,
    /// Pattern of the weights that become zero.
    pub pattern: Pattern,
    /// Weight type. Layers with integer weights run with 8-bit activations.
    pub numbers: Numbers,
}

impl Default for LayerRecipe {
    fn default() -> Self {
        Self { sparsity: 0.0, pattern: Pattern::Unstructured, numbers: Numbers::F32 }
    }
}

/// Method that prunes or rounds the weights of a layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Sets the smallest weights to zero and rounds others to the nearest: the techniques of Turner
    /// et al., "Characterising Across-Stack Optimisations for Deep Convolutional Neural Networks"
    /// (IISWC 2018), without retraining.
    OneShot,
    /// Lets the remaining weights compensate for removed and rounded ones, using the covariance of
    /// the layer's inputs on calibration images (see [`crate::Database`]). Dense 8-bit weights, and
    /// large layers that also lose channels, are treated as with [`Method::OneShot`].
    #[default]
    Reconstructed,
}

/// Criterion that ranks the channels of a group before the last ones are removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChannelCriterion {
    /// Sum of the absolute weights that produce a channel, normalized per producer and summed over
    /// the group (Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017).
    #[default]
    Magnitude,
    /// Mean error of the consumers when a channel is replaced by its mean: the variance of the
    /// channel on calibration images times the squared weights that read it, relative to the
    /// variance of the consumer's output.
    Variance,
    /// Second-order loss of the network's output distribution, estimated as Fisher information by
    /// backpropagation (Theis et al., "Faster gaze prediction with dense networks and Fisher
    /// pruning", 2018). Needs [`super::Calibration::measure_information`].
    Fisher,
}

impl Recipe {
    /// Checks the numeric ranges. Names are checked against the network when the recipe is applied.
    ///
    /// # Errors
    ///
    /// Fails if a number is not a number or outside its range.
    pub fn validate(&self) -> Result<(), CompressError> {
        for (group, &fraction) in &self.channels {
            if !(fraction > 0.0 && fraction <= 1.0) {
                return Err(CompressError::Recipe(format!(
                    "fraction {fraction} of channel group `{group}` is not above 0 and at most 1"
                )));
            }
        }
        for (layer, recipe) in &self.layers {
            if !(recipe.sparsity >= 0.0 && recipe.sparsity < 1.0) {
                return Err(CompressError::Recipe(format!(
                    "sparsity {} of layer `{layer}` is not at least 0 and below 1",
                    recipe.sparsity
                )));
            }
            if let Pattern::NofM { n, m } = recipe.pattern {
                let fraction = 1.0 - f64::from(n) / f64::from(m.max(1));
                if (recipe.sparsity - fraction).abs() > 1e-6 {
                    return Err(CompressError::Recipe(format!(
                        "layer `{layer}`: {} leaves a fraction of {fraction} zeros, not {}",
                        recipe.pattern, recipe.sparsity
                    )));
                }
            }
            if recipe.pattern == Pattern::Dense && recipe.sparsity > 0.0 {
                return Err(CompressError::Recipe(format!(
                    "layer `{layer}` has the dense pattern and a sparsity above 0"
                )));
            }
        }
        Ok(())
    }

    /// Returns the recipe of the layer `step`, or the default if it has none.
    #[must_use]
    pub fn layer(&self, step: &str) -> LayerRecipe {
        self.layers.get(step).copied().unwrap_or_default()
    }

    /// Returns whether this recipe reconstructs the weights of a layer with recipe `layer`.
    #[must_use]
    pub fn reconstructs(&self, layer: &LayerRecipe) -> bool {
        self.method == Method::Reconstructed && (layer.sparsity > 0.0 || layer.numbers.bits() < 8.0)
    }

    /// Returns whether this recipe leaves the network as it is.
    #[must_use]
    pub fn is_baseline(&self) -> bool {
        self.channels.values().all(|&fraction| fraction == 1.0)
            && self.layers.values().all(|&layer| layer == LayerRecipe::default())
    }

    /// Returns whether the recipe removes any channel.
    #[must_use]
    pub fn removes_channels(&self) -> bool {
        self.channels.values().any(|&fraction| fraction < 1.0)
    }

    /// Returns whether the recipe removes enough to make re-estimating statistics worthwhile.
    #[must_use]
    pub fn needs_recalibration(&self) -> bool {
        self.removes_channels()
            || self.layers.values().any(|layer| layer.sparsity > 0.0 || layer.numbers.bits() < 8.0)
    }
}
