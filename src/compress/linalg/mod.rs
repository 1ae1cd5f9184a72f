//! Dense linear algebra: products of matrices and Cholesky's factorization.

pub(crate) mod cholesky;
pub(crate) mod product;

pub(crate) use product::{View, add_scaled, dot, multiply};
