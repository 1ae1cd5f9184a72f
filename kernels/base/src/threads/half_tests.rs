//! Half precision is widened exactly, whatever threads do to subnormal numbers.

use paretune_simd::half::fp16_number;
use paretune_simd::{Build, Isa, Job, Simd, Usable, build};

struct Widen<'a> {
    halves: &'a [u16],
    numbers: &'a mut [f32],
}

impl Job for Widen<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let steps = self.halves.chunks_exact(S::LANES).zip(self.numbers.chunks_exact_mut(S::LANES));
        for (from, to) in steps {
            // SAFETY: both are as long as a vector.
            unsafe { S::store(to.as_mut_ptr(), S::load_halves(from.as_ptr())) };
        }
    }
}

impl Build for Widen<'_> {
    type Output = ();
    fn build<S: Simd>(self) {
        // SAFETY: what calls this has the proof that the processor executes the set.
        unsafe { S::vectorize(self) };
    }
}

#[test]
fn halves_are_widened_exactly_where_subnormal_numbers_are_flushed_too() {
    let halves: Vec<u16> = (0..=u16::MAX).collect();
    for isa in Isa::available() {
        let widen = || {
            let mut numbers = vec![0.0; halves.len()];
            let usable = Usable::check(isa).unwrap();
            build(usable, Widen { halves: &halves, numbers: &mut numbers });
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
