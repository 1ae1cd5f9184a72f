//! The same tests with every token that this machine has.

use crate::half::{Widen, fp16_number, round_to_bf16};
use crate::{Activate, Dispatch, Isa, IsaToken, Simd, SimdFn, SimdOp, lanes, quartered};

/// Returns the tokens of this machine.
fn tokens() -> Vec<IsaToken> {
    Isa::ALL.into_iter().filter_map(IsaToken::new).collect()
}

struct IsaAndLanes;

impl SimdOp for IsaAndLanes {
    type Output = (Isa, usize);
    fn eval<S: Simd>(self, _simd: S) -> Self::Output {
        assert_eq!(size_of::<S>(), 0);
        assert_eq!(size_of::<S::F32>(), S::LANES * size_of::<f32>());
        assert_eq!(size_of::<S::I32>(), S::LANES * size_of::<i32>());
        assert_eq!(size_of::<S::Groups>(), S::LANES * 4);
        assert_eq!(size_of::<S::Bytes>(), S::LANES * 4);
        (S::ISA, S::LANES)
    }
}

#[test]
fn dispatch_goes_to_the_set_of_the_token_or_the_largest_one_that_matters() {
    for token in tokens() {
        let isa = token.isa();
        let all = if isa == Isa::Avx512Bf16 { Isa::Avx512Vnni } else { isa };
        let f32 = match isa {
            Isa::AvxVnni => Isa::Avx2,
            Isa::NeonDot => Isa::Neon,
            Isa::Avx512Vnni | Isa::Avx512Bf16 => Isa::Avx512,
            isa => isa,
        };
        assert_eq!(token.dispatch(IsaAndLanes), (all, lanes(isa)));
        assert_eq!(token.f32().dispatch(IsaAndLanes), (f32, lanes(isa)));
        assert_eq!(token.bf16().map(|token| token.dispatch(IsaAndLanes).0), {
            (isa == Isa::Avx512Bf16).then_some(isa)
        });
    }
}

/// Every calculation with single-precision numbers on two vectors, each against scalars.
struct Arithmetic;

impl SimdOp for Arithmetic {
    type Output = ();
    #[inline(always)]
    fn eval<S: Simd>(self, simd: S) {
        let a: [f32; 64] = std::array::from_fn(|i| i as f32 - 7.5);
        let b: [f32; 64] = std::array::from_fn(|i| 3.0 - 0.25 * i as f32);
        // SAFETY: both have 64 numbers, more than a vector.
        let (x, y) = unsafe { (simd.load(a.as_ptr()), simd.load(b.as_ptr())) };
        let results = [
            simd.add(x, y),
            simd.sub(x, y),
            simd.mul(x, y),
            simd.at_least(x, y),
            simd.at_most(x, y),
            simd.fma(x, y, simd.splat(0.5)),
        ]
        .map(|v| simd.to_lanes(v));
        for i in 0..16 {
            let (x, y) = if i < S::LANES { (a[i], b[i]) } else { (0.0, 0.0) };
            let half = if i < S::LANES { 0.5 } else { 0.0 };
            let want = [x + y, x - y, x * y, x.max(y), x.min(y), x * y + half];
            assert_eq!(results.map(|lanes| lanes[i]), want, "{:?}", S::ISA);
        }
        for count in 0..S::LANES {
            let mut to = [-1.0_f32; 16];
            // SAFETY: all have room for more than `count` numbers.
            unsafe {
                let v = simd.load_partial(a.as_ptr(), count);
                assert!(simd.to_lanes(v)[count..].iter().all(|x| *x == 0.0));
                simd.store_partial(to.as_mut_ptr(), count, v);
            }
            assert_eq!(to[..count], a[..count]);
            assert!(to[count..].iter().all(|x| *x == -1.0), "{:?} {count}", S::ISA);
        }
        let indices: [i32; 16] =
            std::array::from_fn(|i| if i % 3 == 2 { -1 } else { (i % 4 * 2) as i32 });
        // SAFETY: indices are less than 8, and there are 64 numbers.
        let permuted = simd.to_lanes(unsafe { simd.permute(a.as_ptr(), indices.as_ptr()) });
        // SAFETY: four rows of up to 16 numbers are 64.
        let quads = unsafe { std::array::from_fn(|i| simd.load_quads(a[4 * i..].as_ptr(), 16)) };
        let transposed = simd.transpose_quads(quads).map(|v| simd.to_lanes(v));
        for i in 0..S::LANES {
            assert_eq!(permuted[i], if i % 3 == 2 { 0.0 } else { a[i % 4 * 2] });
            for (row, lanes) in transposed.iter().enumerate() {
                assert_eq!(lanes[i], a[i / 4 * 16 + i % 4 * 4 + row], "{:?}", S::ISA);
            }
        }
    }
}

#[test]
fn single_precision_agrees_with_scalars() {
    for token in tokens() {
        token.dispatch(Arithmetic);
        token.f32().dispatch(Arithmetic);
    }
}

/// Conversions of bytes and dot products of small integers, each against scalars.
struct Integers;

impl Integers {
    #[inline(always)]
    fn lanes<S: Simd>(simd: S, v: S::I32) -> [i32; 16] {
        let mut lanes = [0; 16];
        // SAFETY: there is room for 16 integers.
        unsafe { simd.store_i32(lanes.as_mut_ptr(), v) };
        lanes
    }

    /// Dot products with weights of `BITS` bits.
    #[inline(always)]
    fn low_bits<S: Simd, const BITS: u32>(simd: S, start: S::I32, sums: &[i32; 16]) {
        let fields = 32 / S::LOW_BIT_GROUP / BITS as usize;
        let element = 32 / S::LOW_BIT_GROUP;
        let range = 1_i32 << BITS;
        let weight = |lane: usize, field: usize, i: usize| {
            (lane * 5 + field * 3 + i) as i32 % range - range / 2
        };
        let mut packed = [0_u32; 16];
        for (lane, packed) in packed.iter_mut().enumerate().take(S::LANES) {
            for field in 0..fields {
                for i in 0..S::LOW_BIT_GROUP {
                    let code = S::low_bit_code::<BITS>(weight(lane, field, i) as i8);
                    *packed |= code << (i * element + field * BITS as usize);
                }
            }
        }
        let stored: [[u8; 4]; 2] = [[255, 3, 200, 128], [1, 254, 17, 99]];
        let acts = stored.map(|group| group.map(|byte| S::LowBitAct::activate(byte, 0)));
        for pair in 0..fields / 2 {
            let field = 2 * pair;
            // SAFETY: there are 64 bytes of packed weights, and four activations a group.
            let sum = unsafe {
                let packed = simd.load_packed(packed.as_ptr().cast());
                let weights = [0, 1].map(|i| simd.unpack::<BITS>(packed, (field + i) as u32));
                let activations = [0, 1].map(|i: usize| simd.broadcast_low_bit(acts[i].as_ptr()));
                Self::lanes(simd, simd.dot_low_bit(start, weights, activations))
            };
            for lane in 0..S::LANES {
                let mut want = sums[lane];
                for half in 0..2 {
                    for i in 0..S::LOW_BIT_GROUP {
                        want +=
                            weight(lane, field + half, i) * (i32::from(stored[half][i]) - S::SHIFT);
                    }
                }
                assert_eq!(
                    sum[lane],
                    want,
                    "{:?}: {BITS} bits, field {field}, lane {lane}",
                    S::ISA
                );
            }
        }
    }
}

impl SimdOp for Integers {
    type Output = ();
    #[inline(always)]
    fn eval<S: Simd>(self, simd: S) {
        let bytes: [u8; 64] = std::array::from_fn(|i| (i * 37 % 256) as u8);
        let weights: [i8; 64] = std::array::from_fn(|i| (i * 29 % 256) as u8 as i8);
        let sums: [i32; 16] = std::array::from_fn(|i| 1000 * i as i32 - 5000);
        // SAFETY: there are 16 sums.
        let start = unsafe { simd.load_i32(sums.as_ptr()) };

        // SAFETY: there are 64 bytes, at least two vectors of every count below.
        let number = simd.to_lanes(unsafe { simd.load_u8(bytes.as_ptr()) });
        let (mut twice, mut part) = ([0_u8; 64], [7_u8; 64]);
        // SAFETY: there is room for 64 bytes.
        unsafe {
            let v = simd.load_u8(bytes.as_ptr());
            simd.store_u8_twice(twice.as_mut_ptr(), v, simd.add(v, simd.splat(0.25)));
            let v = simd.load_u8_partial(bytes.as_ptr(), S::LANES - 1);
            simd.store_u8_partial(part.as_mut_ptr(), S::LANES - 1, v);
        }
        let integers =
            simd.to_lanes(simd.to_f32(simd.sub_i32(simd.add_i32(start, start), simd.zero_i32())));
        for i in 0..S::LANES {
            assert_eq!(number[i], f32::from(bytes[i]));
            assert_eq!([twice[i], twice[S::LANES + i]], [bytes[i]; 2], "{:?}", S::ISA);
            assert_eq!(part[i], if i + 1 < S::LANES { bytes[i] } else { 7 });
            assert_eq!(integers[i], 2.0 * sums[i] as f32);
        }

        let acts: [S::Act; 4] = [200, 3, 255, 0].map(|byte| S::Act::activate(byte, 0));
        // SAFETY: there are 64 weights and four activations, at least as many as a group has.
        let dot = unsafe {
            let (w, x) = (simd.load_weights(weights.as_ptr()), simd.broadcast(acts.as_ptr()));
            Self::lanes(simd, simd.dot(start, w, x))
        };
        let wide: [i16; 32] = std::array::from_fn(|i| 301 * i as i16 - 4000);
        let mut stored = [0_i16; 32];
        // SAFETY: there are 32 integers of 16 bits and 64 bytes, and room for 32 integers.
        let dot_i16 = unsafe {
            let (a, b) = (simd.load_i16(wide.as_ptr()), simd.load_u8_as_i16(bytes.as_ptr()));
            let pair = simd.broadcast_i16(wide.as_ptr());
            simd.store_i16(stored.as_mut_ptr(), simd.sub_i16(simd.add_i16(a, b), pair));
            Self::lanes(simd, simd.dot_i16(start, a, b))
        };
        for lane in 0..S::LANES {
            let at = lane * S::GROUP;
            let products = (0..S::GROUP).map(|i| {
                i32::from(weights[at + i]) * (i32::from([200_u8, 3, 255, 0][i]) - S::SHIFT)
            });
            assert_eq!(dot[lane], sums[lane] + products.sum::<i32>(), "{:?}", S::ISA);
            let product = |i: usize| i32::from(wide[2 * lane + i]) * i32::from(bytes[2 * lane + i]);
            assert_eq!(dot_i16[lane], sums[lane] + product(0) + product(1), "{:?}", S::ISA);
            for i in 0..2 {
                let at = 2 * lane + i;
                assert_eq!(stored[at], wide[at] + i16::from(bytes[at]) - wide[i]);
            }
        }

        Self::low_bits::<S, 2>(simd, start, &sums);
        Self::low_bits::<S, 4>(simd, start, &sums);

        let taps: [[u8; 64]; 4] =
            std::array::from_fn(|tap| bytes.map(|byte| byte.wrapping_mul(tap as u8 + 1)));
        let mut tap_weights = [S::Tap::default(); 256];
        for (i, weight) in tap_weights.iter_mut().enumerate() {
            *weight = S::Tap::from(weights[i % 61]);
        }
        // SAFETY: there are 64 bytes a tap, and 4 * 16 * 4 weights.
        let acc = unsafe {
            let taps = [0, 1, 2, 3].map(|tap: usize| simd.load_bytes(taps[tap].as_ptr()));
            simd.dot_taps([simd.zero_i32(); 4], taps, tap_weights.as_ptr())
        };
        let acc = acc.map(|v| Self::lanes(simd, v));
        let numbers: [[f32; 16]; 4] =
            std::array::from_fn(|v| std::array::from_fn(|i| (16 * v + i) as f32));
        let mut packed = [9_u8; 64];
        // SAFETY: vectors have at most 16 numbers, and there is room for 64 bytes.
        unsafe {
            let v = [0, 1, 2, 3].map(|v: usize| simd.load(numbers[v].as_ptr()));
            simd.store_bytes(packed.as_mut_ptr(), simd.to_bytes(v));
        }
        for channel in 0..4 * S::LANES {
            let [vector, lane] = quartered(channel);
            let product = |tap: usize| {
                let weight = i32::from(weights[((vector * S::LANES + lane) * S::TAPS + tap) % 61]);
                weight * (i32::from(taps[tap][channel]) - S::SHIFT)
            };
            assert_eq!(acc[vector][lane], (0..S::TAPS).map(product).sum::<i32>(), "{:?}", S::ISA);
            assert_eq!(packed[channel], numbers[vector][lane] as u8, "{:?}", S::ISA);
        }
        for count in 0..4 * S::LANES {
            let mut to = [9_u8; 64];
            // SAFETY: there are more than `count` bytes at both addresses.
            unsafe {
                let v = simd.load_bytes_partial(bytes.as_ptr(), count);
                simd.store_bytes_partial(to.as_mut_ptr(), count, v);
            }
            assert_eq!(to[..count], bytes[..count]);
            assert!(to[count..].iter().all(|byte| *byte == 9), "{:?} {count}", S::ISA);
        }
    }
}

#[test]
fn small_integers_agree_with_scalars() {
    for token in tokens() {
        token.dispatch(Integers);
    }
}

#[test]
fn halves_are_widened_exactly() {
    let halves: Vec<u16> = (0..=u16::MAX).collect();
    for token in tokens() {
        let mut numbers = vec![0.0_f32; halves.len()];
        token.dispatch(Widen { halves: &halves, numbers: &mut numbers });
        for (half, number) in halves.iter().zip(numbers) {
            let want = fp16_number(*half);
            assert!(
                number.to_bits() == want.to_bits() || number.is_nan() && want.is_nan(),
                "{token:?}: {half:x} is {number:e}"
            );
        }
    }
}

/// Rounds numbers to bfloat16, and returns the dot product of the pairs with themselves.
struct Bf16<'a>(&'a [f32], &'a mut [u16]);

impl SimdOp for Bf16<'_> {
    type Output = f32;
    #[inline(always)]
    fn eval<S: Simd>(self, simd: S) -> f32 {
        let mut pairs = [0_u16; 32];
        // SAFETY: both have as many numbers as `self.0`; 32 halves are at least a vector.
        unsafe {
            simd.round_to_bf16(self.0.as_ptr(), self.1.as_mut_ptr(), self.0.len());
            pairs[..self.1.len()].copy_from_slice(self.1);
            let v = simd.load(pairs.as_ptr().cast());
            simd.to_lanes(simd.dot_bf16(simd.splat(1.0), v, v))[0]
        }
    }
}

#[test]
fn bfloat16_agrees_with_scalars() {
    let numbers: Vec<f32> = (0..21).map(|i| 1.0 + i as f32 * 0.337).collect();
    for token in tokens() {
        for bf16 in [None, token.bf16()] {
            let mut halves = vec![0; numbers.len()];
            let dot = match bf16 {
                Some(token) => token.dispatch(Bf16(&numbers, &mut halves)),
                None => token.dispatch(Bf16(&numbers, &mut halves)),
            };
            for (half, x) in halves.iter().zip(&numbers) {
                assert_eq!(u32::from(*half) << 16, round_to_bf16(*x).to_bits());
            }
            let [a, b] = [numbers[0], numbers[1]].map(round_to_bf16);
            assert_eq!(dot, 1.0 + a * a + b * b, "{token:?}");
        }
    }
}

struct AddOne;

impl SimdFn for AddOne {
    type Args<'a> = &'a mut [f32];
    #[inline(always)]
    unsafe fn call<S: Simd>(simd: S, numbers: &mut [f32]) {
        for chunk in numbers.chunks_exact_mut(S::LANES) {
            // SAFETY: the chunk is as long as a vector.
            unsafe {
                let sum = simd.add(simd.load(chunk.as_ptr()), simd.splat(1.0));
                simd.store(chunk.as_mut_ptr(), sum);
            }
        }
    }
}

#[test]
fn functions_are_called_through_pointers() {
    for token in tokens() {
        for pointer in [token.pointer::<AddOne>(), token.f32().pointer::<AddOne>()] {
            let mut numbers = [1.0; 64];
            // SAFETY: the function asks for nothing.
            unsafe { pointer(&mut numbers) };
            assert_eq!(numbers, [2.0; 64], "{token:?}");
        }
    }
}
