//! Search for the single parameter that holds a space together.

/// Returns, for each of `count` parameters, the size of the largest connected part without that
/// parameter. Each formula is given by its parameters and connects them; sizes are numbers of
/// parameters.
///
/// One depth-first walk over parameters and formulas finds the parts that are connected through one
/// parameter alone (Tarjan, "Depth-first search and linear graph algorithms", 1972).
pub(crate) fn largest_without(count: usize, formulas: &[Vec<usize>]) -> Vec<usize> {
    let nodes = count + formulas.len();
    let mut neighbors: Vec<Vec<usize>> = vec![Vec::new(); nodes];
    for (number, parameters) in formulas.iter().enumerate() {
        for &parameter in parameters {
            neighbors[parameter].push(count + number);
            neighbors[count + number].push(parameter);
        }
    }
    let weight = |node: usize| usize::from(node < count);
    const UNSEEN: usize = usize::MAX;
    let mut order = vec![UNSEEN; nodes];
    // Per node, the earliest node that its subtree leads back to, and the number of parameters in
    // its subtree.
    let (mut earliest, mut below) = (vec![0; nodes], vec![0; nodes]);
    // Per node, the number of parameters that would be cut off with it, and the largest part of
    // them.
    let (mut cut, mut largest) = (vec![0; nodes], vec![0; nodes]);
    let mut parts: Vec<Vec<usize>> = Vec::new();
    let mut clock = 0;
    for root in 0..count {
        if order[root] != UNSEEN {
            continue;
        }
        let mut part = Vec::new();
        // Node, its parent, and the index of its neighbor to visit next.
        let mut stack = vec![(root, root, 0)];
        while let Some((node, from, next)) = stack.pop() {
            if next == 0 {
                order[node] = clock;
                earliest[node] = clock;
                below[node] = weight(node);
                clock += 1;
                part.push(node);
            }
            let Some(&other) = neighbors[node].get(next) else {
                if node != root {
                    below[from] += below[node];
                    earliest[from] = earliest[from].min(earliest[node]);
                    if earliest[node] >= order[from] {
                        cut[from] += below[node];
                        largest[from] = largest[from].max(below[node]);
                    }
                }
                continue;
            };
            stack.push((node, from, next + 1));
            if order[other] == UNSEEN {
                stack.push((other, node, 0));
            } else if other != from {
                earliest[node] = earliest[node].min(order[other]);
            }
        }
        parts.push(part);
    }
    let sizes: Vec<usize> =
        parts.iter().map(|part| part.iter().map(|&node| weight(node)).sum()).collect();
    let mut result = vec![0; count];
    for (number, part) in parts.iter().enumerate() {
        let others =
            sizes.iter().enumerate().filter(|(other, _)| *other != number).map(|(_, size)| *size);
        let others = others.max().unwrap_or(0);
        for &node in part.iter().filter(|&&node| node < count) {
            result[node] = others.max(largest[node]).max(sizes[number] - 1 - cut[node]);
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Computes `largest_without` by removing every parameter in turn.
    fn by_trying(count: usize, formulas: &[Vec<usize>]) -> Vec<usize> {
        let without = |gone: usize| {
            let mut leader: Vec<usize> = (0..count).collect();
            for formula in formulas {
                let left: Vec<usize> = formula.iter().copied().filter(|&p| p != gone).collect();
                for pair in left.windows(2) {
                    let (a, b) = (leader[pair[0]], leader[pair[1]]);
                    leader.iter_mut().filter(|l| **l == a).for_each(|l| *l = b);
                }
            }
            let size = |l: usize| (0..count).filter(|&p| p != gone && leader[p] == l).count();
            (0..count).map(size).max().unwrap_or(0)
        };
        (0..count).map(without).collect()
    }

    #[test]
    fn a_global_choice_separates_layers() {
        // Parameter 0 is in a formula with the first parameter of each layer of three.
        let formulas: Vec<Vec<usize>> = (0..5)
            .flat_map(|layer| [vec![0, 3 * layer + 1], (3 * layer + 1..3 * layer + 4).collect()])
            .collect();
        let largest = largest_without(16, &formulas);
        assert_eq!(largest[0], 3);
        assert_eq!(largest[1], 13);
        assert_eq!(largest[2], 15);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn it_is_what_trying_finds(
            formulas in prop::collection::vec(prop::collection::btree_set(0usize..9, 1..4), 0..9)
        ) {
            let formulas: Vec<Vec<usize>> =
                formulas.into_iter().map(|formula| formula.into_iter().collect()).collect();
            prop_assert_eq!(largest_without(9, &formulas), by_trying(9, &formulas));
        }
    }
}
