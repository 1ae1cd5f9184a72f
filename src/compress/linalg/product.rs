//! Dense matrix multiplication with arbitrary strides on one thread, for preparing networks
//! (reconstruction, gradients). Inference uses the packed GEMM of the kernels instead.
//!
//! The product is that of `matrixmultiply`, behind the safe interface of `ndarray`.

use std::ops::Range;

use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2, LinalgScalar, ShapeBuilder};

/// Matrix that borrows its elements from a slice.
#[derive(Clone, Copy, Debug)]
pub struct View<'a, T> {
    data: &'a [T],
    size: [usize; 2],
    strides: [usize; 2],
}

impl<'a, T: LinalgScalar> View<'a, T> {
    /// Views the first `rows * columns` elements of `data` as a row-major matrix.
    ///
    /// # Panics
    /// Panics if `data` is shorter.
    #[must_use]
    pub fn new(data: &'a [T], rows: usize, columns: usize) -> Self {
        assert!(data.len() >= rows * columns, "a matrix is larger than its numbers");
        Self { data, size: [rows, columns], strides: [columns, 1] }
    }

    /// Returns the number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.size[0]
    }

    /// Returns the number of columns.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.size[1]
    }

    /// Returns a view of the transposed matrix.
    #[must_use]
    pub fn t(self) -> Self {
        let ([rows, columns], [down, right]) = (self.size, self.strides);
        Self { data: self.data, size: [columns, rows], strides: [right, down] }
    }

    /// Returns the submatrix of the given rows and columns.
    ///
    /// # Panics
    /// Panics if a range is out of bounds.
    #[must_use]
    pub fn part(self, rows: Range<usize>, columns: Range<usize>) -> Self {
        let ordered = rows.start <= rows.end && columns.start <= columns.end;
        assert!(ordered && rows.end <= self.size[0] && columns.end <= self.size[1], "no such part");
        let size = [rows.len(), columns.len()];
        let start = rows.start * self.strides[0] + columns.start * self.strides[1];
        let data = if size.contains(&0) { &[] } else { &self.data[start..] };
        Self { data, size, strides: self.strides }
    }
}

/// Computes `c = alpha a b + beta c`, where `c` is row-major with `stride` elements between rows.
/// With `beta` zero, the previous contents of `c` are ignored.
///
/// # Panics
/// Panics if the sizes do not match or if `c` is too short.
pub fn multiply<'a, T: LinalgScalar>(
    alpha: T,
    a: View<'a, T>,
    b: View<'a, T>,
    beta: T,
    c: &mut [T],
    stride: usize,
) {
    let ([m, k], [inner, n]) = (a.size, b.size);
    assert_eq!(k, inner, "columns of the left matrix and rows of the right one");
    if m == 0 || n == 0 {
        return;
    }
    assert!(stride >= n && c.len() >= (m - 1) * stride + n, "the product is larger than its place");
    if k == 0 {
        let rows = c.chunks_mut(stride).take(m);
        rows.for_each(|row| {
            row[..n]
                .iter_mut()
                .for_each(|x| *x = if beta.is_zero() { T::zero() } else { beta * *x })
        });
        return;
    }
    let array = |view: View<'a, T>| {
        let [down, right] = view.strides;
        let shape = (view.size[0], view.size[1]).strides((down, right));
        ArrayView2::from_shape(shape, view.data).expect("a matrix is larger than its numbers")
    };
    let product = ArrayViewMut2::from_shape((m, n).strides((stride, 1)), c);
    let mut product = product.expect("the product was checked to fit");
    general_mat_mul(alpha, &array(a), &array(b), beta, &mut product);
}

/// Computes `y += factor x`.
///
/// # Panics
/// Panics if `x` is shorter than `y`.
pub fn add_scaled(y: &mut [f32], factor: f32, x: &[f32]) {
    let x = &x[..y.len()];
    y.iter_mut().zip(x).for_each(|(y, x)| *y += factor * x);
}

/// Returns the dot product, accumulated in several partial sums.
///
/// # Panics
/// Panics if `y` is shorter than `x`.
#[must_use]
pub fn dot(x: &[f32], y: &[f32]) -> f32 {
    const LANES: usize = 16;
    let y = &y[..x.len()];
    let mut sums = [0.0f32; LANES];
    let (x, x_rest) = x.as_chunks::<LANES>();
    let (y, y_rest) = y.as_chunks::<LANES>();
    for (x, y) in x.iter().zip(y) {
        for lane in 0..LANES {
            sums[lane] += x[lane] * y[lane];
        }
    }
    sums.iter().sum::<f32>() + x_rest.iter().zip(y_rest).map(|(x, y)| x * y).sum::<f32>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_and_transposes_multiply_as_by_hand() {
        let a: Vec<f32> = (0..20).map(|x| x as f32).collect();
        let b: Vec<f32> = (0..12).map(|x| (x as f32) * 0.5 - 2.0).collect();
        // Rows 1..3, columns 1..4 of a 4x5 matrix, times the transpose of a 4x3 matrix.
        let left = View::new(&a, 4, 5).part(1..3, 1..4);
        let right = View::new(&b, 4, 3).t();
        let mut c = [1.0; 10];
        multiply(2.0, left, right, 1.0, &mut c, 5);
        for row in 0..2 {
            for column in 0..4 {
                let sum: f32 = (0..3).map(|k| a[(row + 1) * 5 + k + 1] * b[column * 3 + k]).sum();
                assert_eq!(c[row * 5 + column], 1.0 + 2.0 * sum);
            }
        }
        assert_eq!(c[4], 1.0, "what lies between rows is left alone");
        // An empty inner dimension.
        let empty = View::new(&a, 4, 5).part(0..2, 2..2);
        multiply(1.0, empty, View::new(&b, 0, 3), 0.0, &mut c, 5);
        assert_eq!(c[..3], [0.0; 3]);
    }

    #[test]
    fn rows_are_added_and_multiplied() {
        let x: Vec<f32> = (0..37).map(|x| x as f32).collect();
        let mut y = vec![1.0; 37];
        add_scaled(&mut y, 2.0, &x);
        assert!(y.iter().enumerate().all(|(at, &y)| y == 1.0 + 2.0 * at as f32));
        assert_eq!(dot(&x, &[1.0; 37]), 666.0);
    }

    #[test]
    #[should_panic(expected = "larger than its place")]
    fn short_places_are_refused() {
        let a = [1.0f64; 4];
        multiply(1.0, View::new(&a, 2, 2), View::new(&a, 2, 2), 0.0, &mut [0.0; 3], 2);
    }
}
