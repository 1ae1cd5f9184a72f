//! Reconstruction must beat plain pruning and rounding on layers with correlated inputs.

use paretune_kernels::operator::{ConvProblem, Window};
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::*;

/// Builds a 3x3 layer of 16 output and 6 input channels with smooth images.
fn layer() -> (Weights, Inputs) {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(7);
    let window = Window { kernel: [3, 3], stride: [1, 1], dilation: [1, 1], padding: [1; 4] };
    let problem = ConvProblem {
        batch: 24,
        in_channels: 6,
        out_channels: 16,
        groups: 1,
        input: [8, 8],
        window,
    };
    let mut input = vec![0.0f32; 24 * 6 * 64];
    let mut last = 0.0;
    for x in &mut input {
        last = 0.8 * last + random.random_range(-1.0..1.0f32);
        *x = last.max(0.0);
    }
    let values = (0..16 * 54).map(|_| random.random_range(-1.0..1.0f32)).collect();
    (Weights::dense([16, 6, 3, 3], values, None), Inputs::collect(&problem, &input).unwrap())
}

fn zeros(weights: &Weights) -> usize {
    f32_weights("", weights).unwrap().iter().filter(|x| **x == 0.0).count()
}

/// Returns the error of other weights, relative to the variance of the output.
fn error(layer: &Layer<'_>, values: Vec<f32>) -> f64 {
    layer
        .with_compensated_bias(&values.clone(), WeightValues::F32(values.into()), Pattern::Dense)
        .error
}

#[test]
fn zeros_cost_less_where_others_make_up_for_them() {
    let (weights, inputs) = layer();
    let layer = Layer::new("layer", &weights, &inputs).unwrap();
    let found = layer.pruned(Pattern::Unstructured, &[0.5, 0.75]).unwrap();
    assert_eq!(found.iter().map(|found| zeros(&found.weights)).collect::<Vec<_>>(), [432, 648]);
    let mut sizes: Vec<f32> = layer.values.iter().map(|x| x.abs()).collect();
    sizes.sort_by(f32::total_cmp);
    for (found, limit) in found.iter().zip([sizes[432], sizes[648]]) {
        let plain = layer.values.iter().map(|&x| if x.abs() < limit { 0.0 } else { x }).collect();
        let plain = error(&layer, plain);
        assert!(found.error < 0.6 * plain, "{} is not much less than {plain}", found.error);
    }
    // ADMM comes close to exact elimination.
    let [quadratic] = &layer.quadratics[..] else { panic!("one group") };
    let units = Units::new(Pattern::Unstructured, 6, 9).unwrap();
    for (other, found) in
        admm::prune(quadratic, layer.values, &units, &[0.5, 0.75]).unwrap().into_iter().zip(&found)
    {
        let other = error(&layer, other);
        assert!(other < 1.4 * found.error, "{other} is far above {}", found.error);
    }
}

#[test]
fn patterns_are_kept() {
    let (weights, inputs) = layer();
    let layer = Layer::new("layer", &weights, &inputs).unwrap();
    let blocks =
        layer.pruned(Pattern::Blocks { outputs: 8, inputs: 2 }, &[0.5]).unwrap().swap_remove(0);
    let values = f32_weights("", &blocks.weights).unwrap();
    assert_eq!(zeros(&blocks.weights), 432);
    for band in 0..2 {
        for pair in 0..3 {
            for tap in 0..9 {
                let block = (0..8).flat_map(|row| {
                    [0, 1].map(|c| ((band * 8 + row) * 6 + pair * 2 + c) * 9 + tap)
                });
                let empty: Vec<bool> = block.map(|index| values[index] == 0.0).collect();
                assert!(empty.iter().all(|x| *x == empty[0]));
            }
        }
    }
    let grouped = layer.pruned(Pattern::NofM { n: 1, m: 3 }, &[2.0 / 3.0]).unwrap().swap_remove(0);
    let values = f32_weights("", &grouped.weights).unwrap();
    for first in (0..16 * 2).map(|run| run * 27) {
        for tap in 0..9 {
            let kept = (0..3).filter(|channel| values[first + channel * 9 + tap] != 0.0).count();
            assert!(kept <= 1, "{kept} of 3 stay");
        }
    }
}

#[test]
fn rounding_makes_up_for_what_it_breaks() {
    let (weights, inputs) = layer();
    let layer = Layer::new("layer", &weights, &inputs).unwrap();
    let ones = vec![1.0; 54];
    for grid in Grid::ALL {
        let (low, high) = grid.levels();
        let plain = layer.values.chunks(54).flat_map(|row| {
            let scale = clipped_scale(row, None, &ones, grid);
            row.iter().map(move |x| (x / scale).round().clamp(low.into(), high.into()) * scale)
        });
        let plain = error(&layer, plain.collect());
        let found = layer.rounded(grid, None).unwrap();
        assert!(
            found.error < 0.7 * plain,
            "{grid:?}: {} is not much less than {plain}",
            found.error
        );
        let WeightValues::Integer(integer) = &found.weights.values else { panic!("integers") };
        assert!(integer.values.iter().all(|q| (low..=high).contains(q)));
    }
    let sparse = layer.pruned(Pattern::Unstructured, &[0.5]).unwrap().swap_remove(0).weights;
    let both = layer.rounded(Grid::Bits4, Some(&sparse)).unwrap();
    let WeightValues::Integer(integer) = &both.weights.values else { panic!("integers") };
    let zero = f32_weights("", &sparse).unwrap().iter().map(|&x| x == 0.0);
    assert!(integer.values.iter().zip(zero).all(|(&q, zero)| !zero || q == 0));
}

#[test]
fn the_bias_makes_up_for_the_mean_error() {
    let (weights, inputs) = layer();
    let layer = Layer::new("layer", &weights, &inputs).unwrap();
    let found = layer.rounded(Grid::Ternary, None).unwrap().weights;
    let WeightValues::Integer(integer) = &found.values else { panic!("integers") };
    let mean = &inputs.groups[0].mean;
    for row in 0..16 {
        let before: f64 = (0..54).map(|c| f64::from(layer.values[row * 54 + c]) * mean[c]).sum();
        let now: f64 = (0..54)
            .map(|c| {
                f64::from(integer.values[row * 54 + c]) * f64::from(integer.scales[row]) * mean[c]
            })
            .sum();
        let bias = f64::from(found.bias.as_ref().unwrap()[row]);
        assert!((before - now - bias).abs() < 1e-4, "row {row}: {before} {now} {bias}");
    }
}
