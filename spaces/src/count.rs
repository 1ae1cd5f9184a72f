//! Numbers of configurations: exact up to 128 bits, rounded to 127 significant bits beyond.

/// Number of the form `mantissa * 2^exponent`: exact if the exponent is zero, rounded down
/// otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Count {
    mantissa: u128,
    exponent: u32,
}

impl Count {
    pub(crate) const ZERO: Count = Count { mantissa: 0, exponent: 0 };
    pub(crate) const ONE: Count = Count { mantissa: 1, exponent: 0 };

    pub(crate) fn exact(self) -> Option<u128> {
        (self.exponent == 0).then_some(self.mantissa)
    }

    pub(crate) fn log10(self) -> f64 {
        (self.mantissa as f64).log10() + f64::from(self.exponent) * 2f64.log10()
    }

    pub(crate) fn add(self, other: Count) -> Count {
        let exponent = self.exponent.max(other.exponent);
        let (a, b) = (self.at(exponent), other.at(exponent));
        match a.checked_add(b) {
            Some(mantissa) => Count { mantissa, exponent },
            // Both are halved before the sum, so that it fits again.
            None => Count { mantissa: (a >> 1) + (b >> 1) + (a & b & 1), exponent: exponent + 1 },
        }
    }

    /// Returns the mantissa at a larger exponent.
    fn at(self, exponent: u32) -> u128 {
        self.mantissa.checked_shr(exponent - self.exponent).unwrap_or(0)
    }

    pub(crate) fn multiply(self, other: Count) -> Count {
        if let Some(mantissa) = self.mantissa.checked_mul(other.mantissa) {
            return Count { mantissa, exponent: self.exponent + other.exponent };
        }
        // Schoolbook multiplication on 64-bit halves. The low half of the product only serves for
        // its top bits.
        let (a1, a0) = (self.mantissa >> 64, self.mantissa & u128::from(u64::MAX));
        let (b1, b0) = (other.mantissa >> 64, other.mantissa & u128::from(u64::MAX));
        let low = a0 * b0;
        let middle = a1 * b0 + (low >> 64);
        let (middle, carry) = middle.overflowing_add(a0 * b1);
        let high = a1 * b1 + (middle >> 64) + (u128::from(carry) << 64);
        let low = (middle << 64) | (low & u128::from(u64::MAX));
        let shift = 128 - high.leading_zeros();
        let mantissa = match shift {
            128 => high,
            _ => (high << (128 - shift)) | (low >> shift),
        };
        Count { mantissa, exponent: self.exponent + other.exponent + shift }
    }
}

/// Returns the running sums of `counts`, all scaled down by one power of two so that the total
/// fits.
pub(crate) fn cumulative(counts: &[Count]) -> Vec<u128> {
    let total = counts.iter().fold(Count::ZERO, |sum, c| sum.add(*c));
    let mut sum = 0u128;
    counts
        .iter()
        .map(|c| {
            sum = sum.saturating_add(c.at(total.exponent.max(c.exponent)));
            sum
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(n: u128) -> Count {
        Count { mantissa: n, exponent: 0 }
    }

    #[test]
    fn exact_while_it_fits() {
        assert_eq!(count(3).multiply(count(5)).add(count(2)).exact(), Some(17));
        assert_eq!(count(u128::MAX).add(count(1)).exact(), None);
    }

    #[test]
    fn large_products_keep_their_size() {
        let mut product = Count::ONE;
        for _ in 0..200 {
            product = product.multiply(count(1_000_003));
        }
        assert!((product.log10() - 200.0 * 1_000_003f64.log10()).abs() < 1e-9);
        let sum = product.add(product).add(product);
        assert!((sum.log10() - product.log10() - 3f64.log10()).abs() < 1e-12);
        let square = count(u128::MAX).multiply(count(u128::MAX));
        assert!((square.log10() - 2.0 * (u128::MAX as f64).log10()).abs() < 1e-12);
    }

    #[test]
    fn cumulative_ends_at_the_total() {
        assert_eq!(cumulative(&[count(1), count(4), count(2)]), [1, 5, 7]);
        let big = count(u128::MAX);
        let sums = cumulative(&[big, big, count(1)]);
        assert!(sums[0] > u128::MAX / 3 && sums[1] == 2 * sums[0]);
    }
}
