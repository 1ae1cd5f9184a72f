//! Distributes one compression budget over the layers of a network.

/// Compression level of a layer, with its savings and its loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Level {
    /// Savings in the unit of the budget.
    pub saved: f64,
    /// Loss of accuracy that the level is estimated to cause.
    pub loss: f64,
}

/// Number of steps into which the budget is divided. Savings are rounded down to whole steps, so
/// that the requested total is really reached.
const BUDGET_STEPS: usize = 4000;

/// Chooses a level for each of `layers` so that at least `wanted` is saved at the least sum of
/// losses.
///
/// Returns the index of each layer's level, or `None` if the layers cannot save that much. Dynamic
/// programming over savings, as in SPDY (Frantar and Alistarh, ICML 2022).
#[must_use]
pub fn allocate_levels(layers: &[Vec<Level>], wanted: f64) -> Option<Vec<usize>> {
    let most: f64 = layers
        .iter()
        .map(|levels| levels.iter().map(|level| level.saved).fold(0.0, f64::max))
        .sum();
    if wanted.is_nan() || wanted > most {
        return None;
    }
    let unit = wanted / BUDGET_STEPS as f64;
    // Each layer loses less than one step to rounding, so the goal is lowered by one step per
    // layer. Savings are never rounded up.
    let steps = |saved: f64| {
        if unit > 0.0 { ((saved / unit).floor() as usize).min(BUDGET_STEPS) } else { BUDGET_STEPS }
    };
    let goal = BUDGET_STEPS.saturating_sub(layers.len());
    // Least loss for at least that number of steps, and the level of each layer on the way there.
    let mut least = vec![f64::INFINITY; BUDGET_STEPS + 1];
    least[0] = 0.0;
    let mut chosen: Vec<Vec<Option<(usize, usize)>>> = Vec::with_capacity(layers.len());
    for levels in layers {
        let mut next = vec![f64::INFINITY; BUDGET_STEPS + 1];
        let mut from = vec![None; BUDGET_STEPS + 1];
        for (before, &loss) in least.iter().enumerate().filter(|(_, loss)| loss.is_finite()) {
            for (index, level) in levels.iter().enumerate() {
                let after = (before + steps(level.saved)).min(BUDGET_STEPS);
                if loss + level.loss < next[after] {
                    next[after] = loss + level.loss;
                    from[after] = Some((before, index));
                }
            }
        }
        least = next;
        chosen.push(from);
    }
    let total = |choice: &[usize]| -> f64 {
        layers.iter().zip(choice).map(|(levels, &index)| levels[index].saved).sum()
    };
    let mut ends: Vec<usize> =
        (goal..=BUDGET_STEPS).filter(|&end| least[end].is_finite()).collect();
    ends.sort_by(|&a, &b| least[a].total_cmp(&least[b]));
    for mut end in ends {
        let mut choice = vec![0; layers.len()];
        for (layer, from) in chosen.iter().enumerate().rev() {
            let (before, index) = from[end]?;
            choice[layer] = index;
            end = before;
        }
        if total(&choice) >= wanted * (1.0 - 1e-9) {
            return Some(choice);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cheapest_way_to_save_enough_is_found() {
        let levels = |costs: [f64; 3], size: f64| {
            costs
                .iter()
                .enumerate()
                .map(|(i, &loss)| Level { saved: size * i as f64 / 2.0, loss })
                .collect()
        };
        let layers: Vec<Vec<Level>> = vec![
            levels([0.0, 0.1, 5.0], 100.0),
            levels([0.0, 0.3, 0.4], 100.0),
            levels([0.0, 0.0, 9.0], 20.0),
        ];
        assert_eq!(allocate_levels(&layers, 0.0), Some(vec![0, 0, 0]));
        assert_eq!(allocate_levels(&layers, 60.0), Some(vec![1, 0, 1]));
        assert_eq!(allocate_levels(&layers, 150.0), Some(vec![1, 2, 0]));
        assert_eq!(allocate_levels(&layers, 220.0), Some(vec![2, 2, 2]));
        assert_eq!(allocate_levels(&layers, 221.0), None);
        assert_eq!(allocate_levels(&layers, f64::NAN), None);
    }
}
