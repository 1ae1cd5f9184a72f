//! One budget for a whole network: which level each layer gets so that all together reach what is asked for and
//! lose least.

/// What can be done to a layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Level {
    /// What it saves, in whatever the budget counts.
    pub saved: f64,
    /// What it loses.
    pub loss: f64,
}

/// Parts that savings are rounded down to, so that what is asked for is really reached.
const STEPS: usize = 4000;

/// For each of `layers` the index of the level that it gets, so that at least `wanted` is saved and the sum of
/// losses is least, by dynamic programming over savings (as SPDY does: Frantar and Alistarh, ICML 2022). `None`
/// where that much cannot be saved.
#[must_use]
pub fn allocate(layers: &[Vec<Level>], wanted: f64) -> Option<Vec<usize>> {
    let most: f64 =
        layers.iter().map(|levels| levels.iter().map(|level| level.saved).fold(0.0, f64::max)).sum();
    if wanted.is_nan() || wanted > most {
        return None;
    }
    let unit = wanted / STEPS as f64;
    // Rounded down by less than a step per layer: the goal is lowered by as much, never the savings raised.
    let steps = |saved: f64| if unit > 0.0 { ((saved / unit).floor() as usize).min(STEPS) } else { STEPS };
    let goal = STEPS.saturating_sub(layers.len());
    // Least loss for at least so many steps, and the level of each layer that leads there.
    let mut least = vec![f64::INFINITY; STEPS + 1];
    least[0] = 0.0;
    let mut chosen: Vec<Vec<Option<(usize, usize)>>> = Vec::with_capacity(layers.len());
    for levels in layers {
        let mut next = vec![f64::INFINITY; STEPS + 1];
        let mut from = vec![None; STEPS + 1];
        for (before, &loss) in least.iter().enumerate().filter(|(_, loss)| loss.is_finite()) {
            for (index, level) in levels.iter().enumerate() {
                let after = (before + steps(level.saved)).min(STEPS);
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
    let mut ends: Vec<usize> = (goal..=STEPS).filter(|&end| least[end].is_finite()).collect();
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
            costs.iter().enumerate().map(|(i, &loss)| Level { saved: size * i as f64 / 2.0, loss }).collect()
        };
        let layers: Vec<Vec<Level>> = vec![
            levels([0.0, 0.1, 5.0], 100.0),
            levels([0.0, 0.3, 0.4], 100.0),
            levels([0.0, 0.0, 9.0], 20.0),
        ];
        assert_eq!(allocate(&layers, 0.0), Some(vec![0, 0, 0]));
        assert_eq!(allocate(&layers, 60.0), Some(vec![1, 0, 1]));
        assert_eq!(allocate(&layers, 150.0), Some(vec![1, 2, 0]));
        assert_eq!(allocate(&layers, 220.0), Some(vec![2, 2, 2]));
        assert_eq!(allocate(&layers, 221.0), None);
        assert_eq!(allocate(&layers, f64::NAN), None);
    }
}
