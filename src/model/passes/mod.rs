//! Passes over the graph that simplify its steps without changing its function.
//!
//! Each file holds one pass, a function that takes a plan and returns whether it changed it. The
//! passes merge batch normalization, activations, residual additions and padding into convolutions,
//! so that later stages see layers instead of an exporter's habits.

use paretune_kernels::Plan;

mod activations;
mod affine;
mod constants;
mod dead;
mod graph;
mod input;
mod names;
mod noops;
mod padding;
mod residual;
mod subnormals;

pub use activations::fuse_activations;
pub use affine::fold_affine;
pub use constants::fold_constant_operands;
pub use dead::remove_dead;
pub use input::turn_input;
pub use names::shorten_names;
pub use noops::remove_noops;
pub use padding::fold_padding;
pub use residual::fuse_residuals;
pub use subnormals::clear_subnormals;

/// Function that changes a plan and returns whether it did.
pub type Pass = fn(&mut Plan) -> bool;

/// Passes in the order in which [`simplify`] repeats them.
pub const PASSES: &[(&str, Pass)] = &[
    ("fold_constant_operands", fold_constant_operands),
    ("remove_noops", remove_noops),
    ("fold_padding", fold_padding),
    ("fold_affine", fold_affine),
    ("fuse_activations", fuse_activations),
];

/// Applies all passes until nothing changes.
pub fn simplify(plan: &mut Plan) {
    // Unneeded readers would prevent merges.
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
    // Residuals come last, because they close a convolution for other foldings.
    fuse_residuals(plan);
    fuse_activations(plan);
    remove_dead(plan);
    clear_subnormals(plan);
    shorten_names(plan);
}
