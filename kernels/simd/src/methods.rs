//! Macro for the methods of tokens that calculate.

/// Defines safe methods of a token. Their bodies are compiled with the features of the set, so that
/// the compiler checks them as safe code.
macro_rules! methods {
    ($features:literal $(
        fn $name:ident $(<const $bits:ident: u32>)? (
            $self:ident, $($pattern:tt: $type:ty),* $(,)?
        ) -> $output:ty $body:block
    )*) => {$(
        #[inline(always)]
        fn $name $(<const $bits: u32>)? ($self, $($pattern: $type),*) -> $output {
            #[inline]
            #[target_feature(enable = $features)]
            fn compiled $(<const $bits: u32>)? ($($pattern: $type),*) -> $output $body
            // SAFETY: the processor has these features, as `self` is a token of this set.
            unsafe { compiled $(::<$bits>)? ($($pattern),*) }
        }
    )*};
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(crate) use methods;

/// Defines the ways into code that is compiled for the features of a set.
macro_rules! entries {
    ($set:ident, $features:literal) => {
        #[inline(always)]
        fn vectorize<O: SimdOp>(self, op: O) -> O::Output {
            #[inline(never)]
            #[target_feature(enable = $features)]
            fn compiled<O: SimdOp>(simd: $set, op: O) -> O::Output {
                op.eval(simd)
            }
            // SAFETY: the processor has these features, as `self` is a token of this set.
            unsafe { compiled(self, op) }
        }

        #[inline(always)]
        fn pointer<F: SimdFn>(self) -> for<'a> unsafe fn(F::Args<'a>) {
            #[inline(never)]
            #[target_feature(enable = $features)]
            unsafe fn compiled<F: SimdFn>(args: F::Args<'_>) {
                // SAFETY: the caller keeps to the contract of `F`. A token may be made here, as
                // this function is only reached through `pointer`, which was given one.
                unsafe { F::call($set(()), args) }
            }
            compiled::<F>
        }
    };
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(crate) use entries;
