//! Sudden failure in all but name, which no smooth model can follow: found, so that it can be kept away from them.

/// Where an objective (less is better) falls off a cliff: from this value on, trials have failed in all but name, as
/// networks that answer by chance. They are many of almost the same value, far from all others, and would teach a
/// smooth model slopes that are not there. Infinite where nothing like that is seen.
pub fn cliff(values: &[f64]) -> f64 {
    /// Of all trials the others are at least this share.
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
        // Error rates: two networks answer by chance, the others more or less well.
        assert_eq!(cliff(&[0.9, 0.12, 0.4, 0.9, 0.1, 0.11]), 0.9);
        // One bad value is no cliff, and neither is a slope.
        assert_eq!(cliff(&[0.9, 0.12, 0.4, 0.2, 0.1, 0.11]), f64::INFINITY);
        assert_eq!(cliff(&[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.7]), f64::INFINITY);
        // Most are not the exception.
        assert_eq!(cliff(&[0.9, 0.9, 0.9, 0.1]), f64::INFINITY);
        assert_eq!(cliff(&[]), f64::INFINITY);
        assert_eq!(cliff(&[0.3; 5]), f64::INFINITY);
    }
}
