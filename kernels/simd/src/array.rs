//! Arrays that microkernels keep in registers, one element after the other. What is done with them
//! is left to the microkernels.

/// Builds an array of what `element` returns for every index, in ascending order.
///
/// It is `std::array::from_fn` for elements that can be copied. As nothing needs to be dropped when
/// `element` panics, it is a tenth of the code to compile, and hundreds of microkernels call it.
///
/// ```
/// assert_eq!(paretune_simd::array(|i| 2 * i), [0, 2, 4]);
/// ```
#[inline(always)]
pub fn array<T: Copy, const N: usize>(mut element: impl FnMut(usize) -> T) -> [T; N] {
    const { assert!(N > 0, "an array of registers has elements") };
    let mut elements = [element(0); N];
    let mut i = 1;
    while i < N {
        elements[i] = element(i);
        i += 1;
    }
    elements
}
