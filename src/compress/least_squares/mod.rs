//! Least-squares fit of the remaining weights to the outputs of the baseline, layer by layer.
//!
//! After channels are removed, each convolution gets the weights with which its output comes
//! closest to the baseline's, given the inputs that the *pruned* network computes (He, Zhang and
//! Sun, "Channel Pruning for Accelerating Very Deep Neural Networks", ICCV 2017; Luo, Wu and Lin,
//! "ThiNet", ICCV 2017). Layers are fitted in execution order, each on top of the fits before it. A
//! layer with a residual also compensates for the residual's own error.
//!
//! Targets that an activation clips are fitted like others. Moving clipped targets to the fit and
//! repeating it (Zhang et al., "Accelerating Very Deep Convolutional Networks for Classification
//! and Detection", 2015) was tried and generalized worse.

mod baseline;
mod fit;
mod ridge;
mod samples;

pub use baseline::BaselineOutputs;
pub(super) use fit::fit;
