//! Findings about the layers and channel groups of a network.

use std::collections::BTreeMap;

use paretune_kernels::schedule::TunableValue;
use paretune_kernels::weights::Numbers;
use paretune_names::numbers;
use serde::{Deserialize, Serialize};

/// Results of the survey of a network.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Survey {
    /// Number of threads that schedules were timed on.
    pub threads: i64,
    /// Backend that schedules were timed on: the fastest of the offered ones.
    #[serde(default)]
    pub backend: String,
    /// Seconds of all steps that belong to no layer.
    pub other_seconds: f64,
    /// Layers of the network in execution order.
    pub layers: Vec<LayerSurvey>,
    /// Channel groups in execution order.
    pub groups: Vec<GroupSurvey>,
    /// Networks with a fraction of the work, pruned by one threshold over all channels.
    #[serde(default)]
    pub thinned: Vec<Thinned>,
    /// The best partitions of the network between two backends, judged by default schedules without
    /// transfers.
    #[serde(default)]
    pub mixed: Vec<Mixed>,
}

/// A network that is partitioned between two backends.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Mixed {
    /// Value of the parameter that names both backends.
    pub backend: String,
    /// Schedule of each layer on the backend that runs it.
    pub schedules: Vec<LayerSchedule>,
}

impl Survey {
    /// Returns whether the loss of some reconstructed layer is known, which implies that others can
    /// be reconstructed soon.
    #[must_use]
    pub fn has_reconstructed(&self) -> bool {
        let losses = self.layers.iter().flat_map(|layer| &layer.losses);
        losses.into_iter().any(|loss| loss.sparsity > 0.0 || loss.numbers.bits() < 8.0)
    }
}

/// A network whose channels were all pruned by one threshold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Thinned {
    /// Approximate fraction of the multiply-adds that is left.
    pub work: f64,
    /// Kept fraction of the channels by group; groups that are not listed keep all.
    pub shares: BTreeMap<String, f64>,
}

/// Results of the survey of one layer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LayerSurvey {
    /// Name of the layer's step in the plan.
    pub name: String,
    /// Number of weights in the layer.
    pub weights: usize,
    /// Number of output channels of the layer.
    pub outputs: usize,
    /// Number of input values of the layer.
    pub inputs: usize,
    /// Whether each output channel is computed from one input channel (depthwise).
    pub depthwise: bool,
    /// Index of the channel group that it reads, if that can be pruned.
    pub reads: Option<usize>,
    /// Index of the channel group that it writes, if that can be pruned.
    pub writes: Option<usize>,
    /// Measured schedules of the layer.
    pub schedules: Vec<ScheduleTime>,
    /// Losses by number type and sparsity. Combinations that are not listed are not worth trying.
    pub losses: Vec<LayerLoss>,
}

/// Algorithm and tunables of one layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerSchedule {
    /// 8 for algorithms on integers of any number of bits, 16 for algorithms on 16-bit weights,
    /// else 32.
    pub bits: i64,
    /// Fraction of the weights that is zero, for sparse algorithms. It is 0 for dense algorithms,
    /// whose time does not depend on it.
    #[serde(default)]
    pub sparsity: f64,
    /// Name of the algorithm that computes the layer.
    pub algorithm: String,
    /// Values of its tunables. Tunables that a request does not name have their defaults.
    pub tunables: BTreeMap<String, TunableValue>,
}

/// A schedule with its measured time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScheduleTime {
    /// The schedule with all its tunables.
    #[serde(flatten)]
    pub schedule: LayerSchedule,
    /// Seconds of the layer with all its channels.
    pub seconds: f64,
}

/// Loss of a layer under one compression.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerLoss {
    /// Number type of the weights.
    #[serde(rename = "bits", with = "numbers::named")]
    pub numbers: Numbers,
    /// Fraction of the weights that is zero.
    pub sparsity: f64,
    /// Loss in nats per image.
    pub loss: f64,
}

/// Results of the survey of one channel group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GroupSurvey {
    /// Name of the group in the space.
    pub name: String,
    /// Number of channels in the group.
    pub width: usize,
    /// Kept fractions in ascending order, each with its loss in nats per image. The last one keeps
    /// all channels.
    pub shares: Vec<(f64, f64)>,
}
