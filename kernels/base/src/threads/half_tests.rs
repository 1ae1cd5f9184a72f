//! Half precision is widened exactly, whatever threads do to subnormal numbers.

use paretune_simd::half::fp16_number;
use paretune_simd::{Dispatch, Isa, IsaToken, Simd, SimdOp};

struct Widen<'a> {
    halves: &'a [u16],
    numbers: &'a mut [f32],
}

impl SimdOp for Widen<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, simd: S) {
        let steps = self.halves.chunks_exact(S::LANES).zip(self.numbers.chunks_exact_mut(S::LANES));
        for (from, to) in steps {
            // SAFETY: both chunks are as long as a vector.
            unsafe { simd.store(to.as_mut_ptr(), simd.load_f16(from.as_ptr())) };
        }
    }
}

#[test]
fn halves_are_widened_exactly_where_subnormal_numbers_are_flushed_too() {
    let halves: Vec<u16> = (0..=u16::MAX).collect();
    for isa in Isa::available() {
        let widen = || {
            let mut numbers = vec![0.0; halves.len()];
            let token = IsaToken::new(isa).unwrap();
            token.dispatch(Widen { halves: &halves, numbers: &mut numbers });
            numbers
        };
        // Workers flush subnormal numbers.
        let flushed = std::sync::Mutex::new(Vec::new());
        let work = |_: &super::Worker<'_>| *flushed.lock().unwrap() = widen();
        super::Team::new(1).unwrap().run(work).unwrap();
        for numbers in [widen(), flushed.into_inner().unwrap()] {
            for (half, number) in halves.iter().zip(numbers) {
                let want = fp16_number(*half);
                assert!(
                    number.to_bits() == want.to_bits() || number.is_nan() && want.is_nan(),
                    "{isa:?}: {half:x} is {number:e}"
                );
            }
        }
    }
}
