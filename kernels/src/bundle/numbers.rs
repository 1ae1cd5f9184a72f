//! The lossless weight codec of `weights.bin`.
//!
//! Single precision: if it saves bytes, zeros are left out and the positions of nonzero values are
//! stored as a bitmap or as Rice-coded gaps (Rice and Plaunt 1971), whichever is smaller. Values
//! are split into byte planes, exponents apart from mantissas, and each plane is a rANS stream
//! ([`super::stream`]). 8-bit weights are one stream. The codec ignores the declared sparsity
//! pattern, except for the block mask of [`super::blocks`].

use std::sync::Arc;

use super::stream;
use super::stream::{Reader, put_number};
use paretune_simd::half::{fp16_bits, fp16_number};

/// Tag of a dense tensor: all values follow.
const DENSE: u8 = 0;
/// Tag of a bitmap: one bit per value, set if it is nonzero.
const BITMAP: u8 = 1;
/// First tag of Rice-coded gaps between nonzero values; the parameter is the difference to this
/// tag.
const RICE: u8 = 2;
/// Largest Rice parameter that is used.
const MAX_RICE: u32 = 28;

/// Appends single-precision values in the smallest of the encodings.
pub(super) fn put_f32(values: &[f32], out: &mut Vec<u8>) {
    // Compared by bits, so that negative zeros are kept.
    let kept: Vec<f32> = values.iter().copied().filter(|x| x.to_bits() != 0).collect();
    let (bits, parameter) = rice_bits(values);
    let bitmap = values.len().div_ceil(8);
    let rice = bits.div_ceil(8);
    let saved = (values.len() - kept.len()) * 4;
    // The 6 bytes bound the cost of the count, so that leaving out zeros never makes a tensor
    // larger.
    if saved <= bitmap.min(rice) + 6 {
        out.push(DENSE);
        return put_planes(4, values, turned, out);
    }
    if bitmap <= rice {
        out.push(BITMAP);
        put_number(kept.len(), out);
        out.extend(values.chunks(8).map(|chunk| {
            chunk.iter().enumerate().fold(0, |byte, (i, x)| byte | u8::from(x.to_bits() != 0) << i)
        }));
    } else {
        out.push(RICE + parameter as u8);
        put_number(kept.len(), out);
        put_rice(values, parameter, out);
    }
    put_planes(4, &kept, turned, out);
}

/// Reads `len` single-precision values. The caller has bounded `len`.
pub(super) fn get_f32(reader: &mut Reader<'_>, len: usize) -> Result<Arc<[f32]>, String> {
    let tag = reader.byte()?;
    if tag == DENSE {
        return Ok(get_planes(4, reader, len, turned_back)?.into());
    }
    let count = reader.number()?;
    if count > len {
        return Err("holds more numbers than fit".into());
    }
    let positions = match tag {
        BITMAP => get_bitmap(reader.take(len.div_ceil(8))?, len, count)?,
        _ if u32::from(tag - RICE) <= MAX_RICE => {
            get_rice(reader, u32::from(tag - RICE), len, count)?
        }
        _ => return Err(format!("holds an unknown coding {tag}")),
    };
    let kept = get_planes(4, reader, count, turned_back)?;
    let mut values = vec![0.0; len];
    for (position, x) in positions.into_iter().zip(kept) {
        values[position] = x;
    }
    Ok(values.into())
}

/// Appends 8-bit integer values as one stream.
pub(super) fn put_i8(values: &[i8], out: &mut Vec<u8>) {
    // Offset by 128, so that small values of both signs are neighbors.
    let bytes: Vec<u8> = values.iter().map(|&x| (x as u8).wrapping_add(128)).collect();
    stream::put(&bytes, out);
}

/// Reads `len` 8-bit integers. The caller has bounded `len`.
pub(super) fn get_i8(reader: &mut Reader<'_>, len: usize) -> Result<Arc<[i8]>, String> {
    Ok(stream::get(reader, len)?.into_iter().map(|x| x.wrapping_sub(128) as i8).collect())
}

/// Appends half-precision values as two byte planes, exponents apart from mantissas.
pub(super) fn put_fp16(values: &[f32], out: &mut Vec<u8>) {
    put_planes(2, values, |x| u32::from(fp16_bits(x).rotate_left(1)), out);
}

/// Reads `len` half-precision values. The caller has bounded `len`.
pub(super) fn get_fp16(reader: &mut Reader<'_>, len: usize) -> Result<Arc<[f32]>, String> {
    Ok(get_planes(2, reader, len, |bits| fp16_number((bits as u16).rotate_right(1)))?.into())
}

/// Returns the bits of a single-precision value, rotated so that the sign comes last.
fn turned(x: f32) -> u32 {
    x.to_bits().rotate_left(1)
}

/// Restores a single-precision value from the bits of [`turned`].
fn turned_back(bits: u32) -> f32 {
    f32::from_bits(bits.rotate_right(1))
}

/// Appends one stream per byte plane: exponents first, then mantissas from the top, with the sign
/// in the last plane.
fn put_planes(planes: usize, values: &[f32], bits: impl Fn(f32) -> u32, out: &mut Vec<u8>) {
    for plane in (0..planes).rev() {
        let bytes: Vec<u8> = values.iter().map(|&x| bits(x).to_le_bytes()[plane]).collect();
        stream::put(&bytes, out);
    }
}

fn get_planes(
    planes: usize,
    reader: &mut Reader<'_>,
    len: usize,
    number: impl Fn(u32) -> f32,
) -> Result<Vec<f32>, String> {
    let mut all = vec![0_u32; len];
    for plane in (0..planes).rev() {
        for (bits, byte) in all.iter_mut().zip(stream::get(reader, len)?) {
            *bits |= u32::from(byte) << (8 * plane);
        }
    }
    Ok(all.into_iter().map(number).collect())
}

/// Returns the lengths of the runs of zeros before each nonzero value.
fn gaps(values: &[f32]) -> impl Iterator<Item = usize> {
    let mut gap = 0;
    values.iter().filter_map(move |x| {
        gap += 1;
        (x.to_bits() != 0).then(|| std::mem::take(&mut gap) - 1)
    })
}

/// Returns the minimum number of bits of Rice coding, and the parameter that achieves it.
fn rice_bits(values: &[f32]) -> (usize, u32) {
    let (mut count, mut sum) = (0, 0);
    for gap in gaps(values) {
        count += 1;
        sum += gap;
    }
    if count == 0 {
        return (0, 0);
    }
    // The best parameter is near the logarithm of the mean.
    let guess = (sum / count + 1).ilog2().min(MAX_RICE);
    (guess.saturating_sub(1)..=(guess + 1).min(MAX_RICE))
        .map(|k| (gaps(values).map(|gap| (gap >> k) + 1 + k as usize).sum(), k))
        .min()
        .unwrap_or((0, 0))
}

fn put_rice(values: &[f32], parameter: u32, out: &mut Vec<u8>) {
    let mut bits = Bits { byte: 0, filled: 0, out };
    for gap in gaps(values) {
        for _ in 0..gap >> parameter {
            bits.put(true);
        }
        bits.put(false);
        for place in 0..parameter {
            bits.put(gap >> place & 1 == 1);
        }
    }
    while bits.filled > 0 {
        bits.put(false);
    }
}

/// A writer of bits, the lowest bit of each byte first.
struct Bits<'a> {
    byte: u8,
    filled: u32,
    out: &'a mut Vec<u8>,
}

impl Bits<'_> {
    fn put(&mut self, set: bool) {
        self.byte |= u8::from(set) << self.filled;
        self.filled += 1;
        if self.filled == 8 {
            self.out.push(self.byte);
            (self.byte, self.filled) = (0, 0);
        }
    }
}

fn get_rice(
    reader: &mut Reader<'_>,
    parameter: u32,
    len: usize,
    count: usize,
) -> Result<Vec<usize>, String> {
    let (mut byte, mut left) = (0_u8, 0);
    let mut bit = || -> Result<usize, String> {
        if left == 0 {
            byte = reader.byte()?;
            left = 8;
        }
        let set = byte & 1;
        byte >>= 1;
        left -= 1;
        Ok(usize::from(set))
    };
    let mut positions = Vec::new();
    let mut next = 0_usize;
    for _ in 0..count {
        let mut gap = 0_usize;
        while bit()? == 1 {
            gap += 1 << parameter;
            if gap > len {
                return Err("holds a number beyond its end".into());
            }
        }
        for place in 0..parameter {
            gap += bit()? << place;
        }
        let position = next + gap;
        if position >= len {
            return Err("holds a number beyond its end".into());
        }
        positions.push(position);
        next = position + 1;
    }
    Ok(positions)
}

fn get_bitmap(bytes: &[u8], len: usize, count: usize) -> Result<Vec<usize>, String> {
    let positions: Vec<usize> = (0..len).filter(|&i| bytes[i / 8] >> (i % 8) & 1 == 1).collect();
    if positions.len() == count { Ok(positions) } else { Err("is damaged".into()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round_trip(values: &[f32]) -> usize {
        let mut out = Vec::new();
        put_f32(values, &mut out);
        let mut reader = Reader::new(&out);
        let back = get_f32(&mut reader, values.len()).unwrap();
        assert_eq!(reader.left(), 0);
        assert!(back.iter().map(|x| x.to_bits()).eq(values.iter().map(|x| x.to_bits())));
        out.len()
    }

    #[test]
    fn zeros_cost_a_fraction_of_a_bit() {
        let sparse: Vec<f32> =
            (0..80_000_u32).map(|i| if i % 10 == 3 { (i as f32).sin() } else { 0.0 }).collect();
        // 8,000 numbers of at most 32 bits, each with a gap of at most 6.
        assert!(round_trip(&sparse) < 8_000 * 38 / 8);
        assert!(round_trip(&vec![0.0; 1_000_000]) < 10);
        assert!(round_trip(&[0.0, 0.0, 0.0, 1.0]) <= 4 * 4 + 5);
    }

    proptest! {
        #[test]
        fn every_bit_survives(
            values in prop::collection::vec(
                prop_oneof![
                    3 => Just(0.0_f32),
                    1 => any::<f32>(),
                    1 => -1.0..1.0_f32,
                    1 => Just(-0.0_f32),
                ],
                0..600
            ),
            stretch in 1_usize..40,
        ) {
            round_trip(&values);
            // Sparse values with long runs of zeros.
            let mut stretched = vec![0.0; values.len() * stretch];
            for (i, x) in values.iter().enumerate() {
                stretched[i * stretch] = *x;
            }
            round_trip(&stretched);
        }

        #[test]
        fn eight_bits_survive(values in prop::collection::vec(any::<i8>(), 0..600)) {
            let mut out = Vec::new();
            put_i8(&values, &mut out);
            prop_assert_eq!(&get_i8(&mut Reader::new(&out), values.len()).unwrap()[..], &values[..]);
        }

        #[test]
        fn damage_never_panics(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            tag in 0_u8..36,
            len in 0_usize..2000,
        ) {
            let _ = get_f32(&mut Reader::new(&[&[tag], &bytes[..]].concat()), len);
        }
    }
}
