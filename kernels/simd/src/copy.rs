//! Copies of a few elements.

/// Copies up to 15 elements without a loop and without the call that `copy_nonoverlapping` with an
/// unknown length is compiled to.
///
/// # Safety
/// Both addresses must be valid for `count` elements, which must not overlap.
#[inline(always)]
pub unsafe fn copy_few<T: Copy>(from: *const T, to: *mut T, count: usize) {
    debug_assert!(count < 16);
    let mut done = 0;
    macro_rules! piece {
        ($size:literal) => {
            if count & $size != 0 {
                // SAFETY: the sizes that are copied are the binary digits of `count`, so `done` and
                // this size together are at most `count`.
                unsafe {
                    let elements = from.add(done).cast::<[T; $size]>().read_unaligned();
                    to.add(done).cast::<[T; $size]>().write_unaligned(elements);
                }
                done += $size;
            }
        };
    }
    piece!(8);
    piece!(4);
    piece!(2);
    if count & 1 != 0 {
        // SAFETY: `done` is `count - 1`.
        unsafe { *to.add(done) = *from.add(done) };
    }
}

/// Copies up to 63 bytes like [`copy_few`].
///
/// # Safety
/// Both addresses must be valid for `count` bytes, which must not overlap.
#[inline(always)]
pub(crate) unsafe fn copy_below_64(from: *const u8, to: *mut u8, count: usize) {
    debug_assert!(count < 64);
    let mut done = 0;
    while done + 16 <= count {
        // SAFETY: `done + 16 <= count` bytes are valid at both addresses.
        unsafe { to.add(done).cast::<[u8; 16]>().write(from.add(done).cast::<[u8; 16]>().read()) };
        done += 16;
    }
    // SAFETY: `count - done` bytes are left at both addresses, and they are fewer than 16.
    unsafe { copy_few(from.add(done), to.add(done), count - done) };
}
