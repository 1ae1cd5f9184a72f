//! Passes over the graph that change its steps and never its function.
//!
//! One file per pass, each a function that takes a plan and says whether it changed it. What a
//! convolution can absorb (batch normalization, activations, residual additions, padding) is merged
//! into it here, so that everything downstream sees layers, not the habits of an exporter.

use paretune_kernels::Plan;

mod activations;
mod affine;
mod constants;
mod dead;
mod graph;
mod names;
mod noops;
mod padding;
mod residual;
mod subnormals;

pub use activations::fuse_activations;
pub use affine::fold_affine;
pub use constants::fold_constant_operands;
pub use dead::remove_dead;
pub use names::shorten_names;
pub use noops::remove_noops;
pub use padding::fold_padding;
pub use residual::fuse_residuals;
pub use subnormals::clear_subnormals;

/// A pass.
pub type Pass = fn(&mut Plan) -> bool;

/// All passes in the order in which [`simplify`] repeats them.
pub const PASSES: &[(&str, Pass)] = &[
    ("fold_constant_operands", fold_constant_operands),
    ("remove_noops", remove_noops),
    ("fold_padding", fold_padding),
    ("fold_affine", fold_affine),
    ("fuse_activations", fuse_activations),
];

/// Applies all passes until nothing changes.
pub fn simplify(plan: &mut Plan) {
    // Readers that nobody needs would stand in the way.
    remove_dead(plan);
    // Every round merges at least one step; real networks need three or four.
    for _ in 0..32 {
        let mut changed = false;
        for (_, pass) in PASSES {
            changed |= pass(plan);
        }
        if !changed {
            break;
        }
    }
    // Late: what is folded into a convolution must be, before a residual closes it.
    fuse_residuals(plan);
    fuse_activations(plan);
    remove_dead(plan);
    clear_subnormals(plan);
    shorten_names(plan);
}
