//! Points: configurations in compact form.

use std::fmt;
use std::ops::{Deref, DerefMut};

use crate::diagram::INACTIVE;

/// Configuration in compact form: per parameter the index of its value, or [`INACTIVE`].
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Point(pub(crate) Box<[u16]>);

impl Point {
    /// Creates a point from the index of each parameter's value, or [`INACTIVE`]. Use
    /// [`CompiledSpace::contains`](crate::CompiledSpace::contains) to find out whether it is valid.
    #[must_use]
    pub fn new(values: Vec<u16>) -> Point {
        Point(values.into())
    }
}

impl Deref for Point {
    type Target = [u16];
    fn deref(&self) -> &[u16] {
        &self.0
    }
}

impl DerefMut for Point {
    fn deref_mut(&mut self) -> &mut [u16] {
        &mut self.0
    }
}

impl fmt::Debug for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|v| if *v == INACTIVE { -1 } else { i32::from(*v) }))
            .finish()
    }
}
