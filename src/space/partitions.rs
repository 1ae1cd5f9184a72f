//! Partitions of a network between two backends, as values of one parameter.

use paretune_kernels::Backend;
use paretune_names::Partition;

/// Largest number of layers that are offered as cut points, evenly spaced. Every pair of them is
/// one value of a parameter.
const MAX_CUT_POINTS: usize = 12;

/// Lists the ways to run a network of `layers` layers: on one backend, or on the processor and a
/// device with one cut point or two.
pub(crate) fn partition_values(backends: &[Backend], names: &[&str], layers: usize) -> Vec<String> {
    let count = layers.saturating_sub(1).min(MAX_CUT_POINTS);
    let places: Vec<usize> =
        (0..count).map(|index| 1 + index * layers.saturating_sub(1) / count.max(1)).collect();
    let mut values: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    for (&first, one) in names.iter().zip(backends) {
        for (&second, other) in names.iter().zip(backends) {
            // Two devices are not combined: values between them would have to pass through the
            // host.
            if (*one == Backend::Cpu) == (*other == Backend::Cpu) {
                continue;
            }
            for &at in &places {
                let later = places.iter().copied().filter(|&back| back > at).map(Some);
                let backs = std::iter::once(None).chain(later);
                values.extend(backs.map(|back| Partition { first, second, at, back }.to_string()));
            }
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deep_networks_switch_at_a_few_layers() {
        let backends = [Backend::Cpu, Backend::OpenCl { device: String::new() }];
        let values = partition_values(&backends, &["cpu", "opencl"], 100);
        assert_eq!(values.len(), 2 + 2 * (12 + 12 * 11 / 2));
        assert_eq!(partition_values(&backends, &["cpu", "opencl"], 1).len(), 2);
        assert_eq!(partition_values(&backends[..1], &["cpu"], 100), ["cpu"]);
    }
}
