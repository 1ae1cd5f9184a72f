//! Sets subnormal numbers to zero: they contribute nothing, and processors may take a hundred times
//! longer over them.

use std::sync::Arc;

use paretune_kernels::{Plan, WeightValues};

/// Clears subnormals from weights, biases and constants.
pub fn clear_subnormals(plan: &mut Plan) -> bool {
    let mut changed = false;
    for weights in &mut plan.weights {
        match &mut weights.values {
            WeightValues::F32(values) | WeightValues::Bf16(values) | WeightValues::Fp16(values) => {
                changed |= clear(values);
            }
            // Scales must not become zero; the code that computes them ensures that they are
            // normal.
            WeightValues::Integer(_) => {}
        }
        if let Some(bias) = &mut weights.bias {
            changed |= clear(bias);
        }
    }
    for constant in &mut plan.constants {
        changed |= clear(constant);
    }
    changed
}

fn clear(values: &mut Arc<[f32]>) -> bool {
    if !values.iter().any(|value| value.is_subnormal()) {
        return false;
    }
    *values = values.iter().map(|&value| if value.is_subnormal() { 0.0 } else { value }).collect();
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clears() {
        let mut values: Arc<[f32]> = [1.0, 1e-40, -1e-39, f32::MIN_POSITIVE, 0.0].into();
        assert!(clear(&mut values));
        assert_eq!(*values, [1.0, 0.0, 0.0, f32::MIN_POSITIVE, 0.0]);
        assert!(!clear(&mut values));
    }
}
