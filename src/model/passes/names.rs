//! Shortens the names of steps, which become names of parameters.

use std::collections::{HashMap, HashSet};

use paretune_kernels::Plan;

use crate::onnx::OPERATORS;

/// Drops the operator from the end of names (`body.0.a.Conv` becomes `body.0.a`) if they stay
/// unique.
pub fn shorten_names(plan: &mut Plan) -> bool {
    let short = |name: &str| match name.rsplit_once('.') {
        Some((rest, last)) if OPERATORS.contains(&last) => rest.to_string(),
        _ => name.to_string(),
    };
    let mut count: HashMap<String, usize> = HashMap::new();
    for step in &plan.steps {
        *count.entry(short(&step.name)).or_default() += 1;
    }
    let full: HashSet<String> = plan.steps.iter().map(|step| step.name.clone()).collect();
    let mut changed = false;
    for step in &mut plan.steps {
        let name = short(&step.name);
        if !full.contains(&name) && count[&name] == 1 {
            step.name = name;
            changed = true;
        }
    }
    changed
}
