//! Detection of configurations that fail without an error, which no smooth model can follow.

/// Returns the value of an objective (smaller is better) from which trials have failed without an
/// error, such as networks that answer by chance; infinity if there are none. Such trials have
/// almost equal values, far from all others, and would teach a smooth model slopes that do not
/// exist.
pub fn cliff(values: &[f64]) -> f64 {
    /// Smallest fraction of all trials that must have succeeded.
    const SOUND: f64 = 0.5;
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (Some(first), Some(last)) = (sorted.first(), sorted.last()) else { return f64::INFINITY };
    let at = sorted.partition_point(|value| *value < last - 0.02 * (last - first));
    let alike = sorted.len() - at;
    if at == 0 || alike < 2 || (at as f64) < SOUND * sorted.len() as f64 {
        return f64::INFINITY;
    }
    if sorted[at] - sorted[at - 1] >= 0.25 * (last - first) { sorted[at] } else { f64::INFINITY }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_is_told_from_bad() {
        // Of the error rates, two are those of networks that answer by chance.
        assert_eq!(cliff(&[0.9, 0.12, 0.4, 0.9, 0.1, 0.11]), 0.9);
        // A single bad value is no cliff, and a slope is none either.
        assert_eq!(cliff(&[0.9, 0.12, 0.4, 0.2, 0.1, 0.11]), f64::INFINITY);
        assert_eq!(cliff(&[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.7]), f64::INFINITY);
        // Trials that fail must be the exception.
        assert_eq!(cliff(&[0.9, 0.9, 0.9, 0.1]), f64::INFINITY);
        assert_eq!(cliff(&[]), f64::INFINITY);
        assert_eq!(cliff(&[0.3; 5]), f64::INFINITY);
    }
}
