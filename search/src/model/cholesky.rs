//! Cholesky factors of small dense matrices: all the linear algebra that a Gaussian process needs.

/// Lower triangular factor of a symmetric matrix, stored by rows.
#[derive(Clone, Debug)]
pub(super) struct Factor {
    n: usize,
    rows: Vec<f64>,
}

/// Returns the inner product of two vectors of equal length.
pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    // Eight sums at a time let the processor overlap them. Their order is fixed, so results are
    // too.
    let (mut sums, mut tail) = ([0.0; 8], 0.0);
    let (x, y) = (a.chunks_exact(8), b.chunks_exact(8));
    for (p, q) in x.remainder().iter().zip(y.remainder()) {
        tail += p * q;
    }
    for (p, q) in x.zip(y) {
        for i in 0..8 {
            sums[i] += p[i] * q[i];
        }
    }
    sums.iter().sum::<f64>() + tail
}

impl Factor {
    /// Factors a symmetric matrix; `None` if it is not positive definite.
    pub(super) fn of(matrix: &[f64], n: usize) -> Option<Factor> {
        let mut rows = vec![0.0; n * n];
        for i in 0..n {
            let (done, rest) = rows.split_at_mut(i * n);
            let row = &mut rest[..n];
            for j in 0..i {
                let other = &done[j * n..j * n + n];
                row[j] = (matrix[i * n + j] - dot(&row[..j], &other[..j])) / other[j];
            }
            let square = matrix[i * n + i] - dot(&row[..i], &row[..i]);
            if square.is_nan() || square <= 1e-12 {
                return None;
            }
            row[i] = square.sqrt();
        }
        Some(Factor { n, rows })
    }

    /// Solves `L x = b` in place.
    pub(super) fn forward(&self, b: &mut [f64]) {
        for i in 0..self.n {
            let row = &self.rows[i * self.n..];
            b[i] = (b[i] - dot(&row[..i], &b[..i])) / row[i];
        }
    }

    /// Solves `L^T x = b` in place.
    pub(super) fn backward(&self, b: &mut [f64]) {
        for i in (0..self.n).rev() {
            let row = &self.rows[i * self.n..];
            b[i] /= row[i];
            let x = b[i];
            for (b, l) in b[..i].iter_mut().zip(row) {
                *b -= l * x;
            }
        }
    }

    /// Returns half the logarithm of the matrix's determinant.
    pub(super) fn half_log_determinant(&self) -> f64 {
        (0..self.n).map(|i| self.rows[i * self.n + i].ln()).sum()
    }

    /// Returns the lower triangle of the inverse of the factored matrix.
    pub(super) fn inverse(&self) -> Vec<f64> {
        let n = self.n;
        // Rows of `columns` are columns of L^-1, zero before the diagonal.
        let mut columns = vec![0.0; n * n];
        for j in 0..n {
            columns[j * n + j] = 1.0 / self.rows[j * n + j];
            for i in j + 1..n {
                let sum = dot(&self.rows[i * n + j..i * n + i], &columns[j * n + j..j * n + i]);
                columns[j * n + i] = -sum / self.rows[i * n + i];
            }
        }
        let mut inverse = vec![0.0; n * n];
        for i in 0..n {
            for j in 0..=i {
                inverse[i * n + j] =
                    dot(&columns[i * n + i..i * n + n], &columns[j * n + i..j * n + n]);
            }
        }
        inverse
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factor_solves_and_inverts() {
        let n = 11;
        let entry =
            |i: usize, j: usize| if i == j { 3.0 } else { 1.0 / (1.0 + i.abs_diff(j) as f64) };
        let matrix: Vec<f64> = (0..n * n).map(|at| entry(at / n, at % n)).collect();
        let factor = Factor::of(&matrix, n).unwrap();
        let wanted: Vec<f64> = (0..n).map(|i| i as f64 - 4.0).collect();
        let mut b: Vec<f64> = (0..n).map(|i| dot(&matrix[i * n..(i + 1) * n], &wanted)).collect();
        factor.forward(&mut b);
        factor.backward(&mut b);
        assert!(b.iter().zip(&wanted).all(|(x, y)| (x - y).abs() < 1e-12));
        let inverse = factor.inverse();
        let whole = |i: usize, j: usize| inverse[i.max(j) * n + i.min(j)];
        for i in 0..n {
            let row: Vec<f64> = (0..n).map(|j| whole(i, j)).collect();
            for j in 0..n {
                let column: Vec<f64> = (0..n).map(|k| matrix[k * n + j]).collect();
                assert!((dot(&row, &column) - f64::from(u8::from(i == j))).abs() < 1e-12);
            }
        }
        assert!(Factor::of(&[1.0, 2.0, 2.0, 1.0], 2).is_none());
    }
}
