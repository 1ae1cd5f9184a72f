//! Compresses networks by changing their weights.
//!
//! A [`Recipe`] sets how many channels of each [`ChannelGroup`] stay, how many weights of each
//! layer become zero and which layers run on 8-bit integers. [`apply`] turns a single-precision
//! plan into the compressed one, with activation statistics from a [`Calibration`]. The study
//! chooses recipes and schedules layers.

#![forbid(unsafe_code)]

mod apply;
mod calibration;
mod channel_budget;
mod channels;
mod database;
mod error;
mod gradient;
mod groups;
mod layers;
mod layerwise;
mod least_squares;
mod linalg;
mod mask;
mod quantize;
mod recalibrate;
mod recipe;
mod reconstruct;
mod sparsity;
mod spdy;
mod statistics;
#[cfg(test)]
mod tests;

pub use apply::{apply, apply_recalibrated, channel_mask};
pub use calibration::Calibration;
pub use channel_budget::{allocate_channels, channel_costs};
pub use database::{Database, ProgressFn, SPARSITIES, Variant, seconds_to_prepare};
pub use error::CompressError;
pub use gradient::{Distillation, DistillationProgress, distill, trainable};
pub use groups::{ChannelGroup, channel_groups};
pub use layers::{LayerInfo, layers};
pub use least_squares::BaselineOutputs;
pub use mask::ChannelMask;
pub use recipe::{ChannelCriterion, LayerRecipe, Method, Recipe};
pub use spdy::{Level, allocate_levels};
pub use statistics::{Histogram, Moments, ValueStatistics};
