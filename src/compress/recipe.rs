//! What is to be done to a network, as plain data. Who chooses it is the study's business.

use std::collections::BTreeMap;

use paretune_kernels::weights::{Numbers, Pattern};
use serde::{Deserialize, Serialize};

use super::error::CompressError;

/// A compression of a whole network. The default leaves it untouched.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Recipe {
    /// By the name of a channel group: the share of its channels that is kept, above 0, at most 1.
    pub channels: BTreeMap<String, f64>,
    /// By the name of a step: what happens to its weights.
    pub layers: BTreeMap<String, LayerRecipe>,
    /// How channels are ranked.
    pub criterion: ChannelCriterion,
    /// How weights are chosen.
    pub method: Method,
    /// Whether biases and scales make up for what pruning and rounding change on average. Costs
    /// nothing at run time.
    pub repair: bool,
}

impl Default for Recipe {
    fn default() -> Self {
        Self {
            channels: BTreeMap::new(),
            layers: BTreeMap::new(),
            criterion: ChannelCriterion::default(),
            method: Method::default(),
            repair: true,
        }
    }
}

/// What happens to the weights of one layer. The default leaves them untouched.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LayerRecipe {
    /// Share of the weights (of those left by channel pruning) that becomes zero, at least 0, below 1.
    pub sparsity: f64,
    /// Which weights become zero.
    pub pattern: Pattern,
    /// What the weights are held as; integers run with 8-bit activations.
    pub numbers: Numbers,
}

impl Default for LayerRecipe {
    fn default() -> Self {
        Self { sparsity: 0.0, pattern: Pattern::Unstructured, numbers: Numbers::F32 }
    }
}

/// How the weights of a layer become few or coarse.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// The smallest weights become zero, others are rounded to what is nearest: the techniques of Turner et al.,
    /// "Characterising Across-Stack Optimisations for Deep Convolutional Neural Networks" (IISWC 2018), without
    /// retraining.
    OneShot,
    /// What is left makes up for what is lost, as far as calibration images tell: see [`super::database`]. Dense
    /// 8-bit weights, and large layers some of whose channels are removed, as [`Method::OneShot`].
    #[default]
    Reconstructed,
}

/// How the channels of a group are ranked before the last ones are removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChannelCriterion {
    /// Sum of the absolute weights that produce a channel (Li et al., "Pruning Filters for Efficient
    /// ConvNets", ICLR 2017), normalized per producer and added up over the group.
    #[default]
    Magnitude,
    /// What the consumers lose on average when the channel is replaced by its mean: its variance on the
    /// calibration images times the squared weights that read it, relative to the consumer's whole output.
    Variance,
    /// Fisher information: what the network's answers lose to second order, by backpropagation (Theis et al.,
    /// "Faster gaze prediction with dense networks and Fisher pruning", 2018). Needs [`super::Calibration::inform`].
    Fisher,
}

impl Recipe {
    /// Checks the numbers; names are checked against the network when the recipe is applied.
    ///
    /// # Errors
    /// Where a number is outside its range or not a number.
    pub fn validate(&self) -> Result<(), CompressError> {
        for (group, &share) in &self.channels {
            if !(share > 0.0 && share <= 1.0) {
                return Err(CompressError::Recipe(format!(
                    "share {share} of channel group `{group}` is not above 0 and at most 1"
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
            if let Pattern::Grouped { kept, of } = recipe.pattern {
                let share = 1.0 - f64::from(kept) / f64::from(of.max(1));
                if (recipe.sparsity - share).abs() > 1e-6 {
                    return Err(CompressError::Recipe(format!(
                        "layer `{layer}`: {} leaves a share of {share} zeros, not {}",
                        recipe.pattern, recipe.sparsity
                    )));
                }
            }
            if recipe.pattern == Pattern::Dense && recipe.sparsity > 0.0 {
                return Err(CompressError::Recipe(format!(
                    "layer `{layer}` is to be dense and to have zeros"
                )));
            }
        }
        Ok(())
    }

    /// The recipe of one layer.
    #[must_use]
    pub fn layer(&self, step: &str) -> LayerRecipe {
        self.layers.get(step).copied().unwrap_or_default()
    }

    /// Whether a layer's weights are reconstructed if that can be done.
    #[must_use]
    pub fn reconstructs(&self, layer: &LayerRecipe) -> bool {
        self.method == Method::Reconstructed && (layer.sparsity > 0.0 || layer.numbers.bits() < 8.0)
    }

    /// Whether nothing is asked for.
    #[must_use]
    pub fn is_untouched(&self) -> bool {
        self.channels.values().all(|&share| share == 1.0)
            && self.layers.values().all(|&layer| layer == LayerRecipe::default())
    }

    /// Whether any channel is removed.
    #[must_use]
    pub fn removes_channels(&self) -> bool {
        self.channels.values().any(|&share| share < 1.0)
    }

    /// Whether so much is removed that statistics are worth re-estimating.
    #[must_use]
    pub fn disturbs(&self) -> bool {
        self.removes_channels()
            || self.layers.values().any(|layer| layer.sparsity > 0.0 || layer.numbers.bits() < 8.0)
    }
}
