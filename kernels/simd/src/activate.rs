//! Formats of 8-bit activations in dot products.

/// An 8-bit activation in the format that a dot product takes.
pub trait Activate: Copy + Default + Send + Sync + 'static {
    /// Whether the zero point has been subtracted, so that padding is zero and sums need no
    /// compensation.
    const CENTERED: bool;
    /// Converts a stored byte to the operand of a dot product.
    fn activate(byte: u8, zero_point: u8) -> Self;
}

impl Activate for u8 {
    const CENTERED: bool = false;
    #[inline(always)]
    fn activate(byte: u8, _zero_point: u8) -> Self {
        byte
    }
}

impl Activate for i16 {
    const CENTERED: bool = true;
    #[inline(always)]
    fn activate(byte: u8, zero_point: u8) -> Self {
        i16::from(byte) - i16::from(zero_point)
    }
}
