//! The entropy coder: rANS (range asymmetric numeral systems) over single bytes, used if it saves
//! bytes (Duda, "Asymmetric numeral systems", 2013; in the byte-wise form of Giesen's `ryg_rans`).
//!
//! Weights shrink without losing a bit: exponents of trained weights have less than 3 bits of
//! entropy, and 8-bit weights 5 to 7. A stream does not contain its length; the reader must know
//! it.

/// Binary logarithm of the sum of frequencies, [`SCALE`].
const SCALE_BITS: u32 = 12;
const SCALE: u32 = 1 << SCALE_BITS;
/// Lower bound of the coder's state, which stays in `LOWEST..LOWEST << 8`.
const LOWEST: u32 = 1 << 23;

const RAW: u8 = 0;
const CODED: u8 = 1;

/// A reader of bytes with a current position.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Reads the next `count` bytes.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or("ends too early")?;
        self.rest = rest;
        Ok(taken)
    }

    /// Reads the next byte, and advances by it.
    pub fn byte(&mut self) -> Result<u8, String> {
        Ok(self.take(1)?[0])
    }

    /// Reads a number in groups of 7 bits, the lowest first.
    pub fn number(&mut self) -> Result<usize, String> {
        let mut number = 0_u64;
        for shift in (0..42).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return usize::try_from(number).map_err(|_| "holds an absurd number".into());
            }
        }
        Err("holds an absurd number".into())
    }

    /// Returns the number of unread bytes.
    pub fn left(&self) -> usize {
        self.rest.len()
    }
}

/// Appends a number in the format of [`Reader::number`]; numbers are below `2^42`.
pub(super) fn put_number(mut number: usize, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Appends `bytes`, coded if that is shorter.
pub(super) fn put(bytes: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    if let Some(frequencies) = worthwhile(bytes) {
        out.push(CODED);
        put_coded(bytes, &frequencies, out);
        if out.len() - start <= bytes.len() {
            return;
        }
        out.truncate(start);
    }
    out.push(RAW);
    out.extend_from_slice(bytes);
}

/// Reads `len` bytes that [`put`] has written. The caller has bounded `len`.
pub(super) fn get(reader: &mut Reader<'_>, len: usize) -> Result<Vec<u8>, String> {
    match reader.byte()? {
        RAW => Ok(reader.take(len)?.to_vec()),
        CODED => get_coded(reader, len),
        tag => Err(format!("holds an unknown coding {tag}")),
    }
}

/// Returns the frequencies for the coder, if it is estimated to save bytes.
fn worthwhile(bytes: &[u8]) -> Option<[u32; 256]> {
    let mut counts = [0_usize; 256];
    for &byte in bytes {
        counts[usize::from(byte)] += 1;
    }
    let frequencies = normalize(&counts, bytes.len())?;
    let bits: f64 = counts
        .iter()
        .zip(&frequencies)
        .filter(|(count, _)| **count > 0)
        .map(|(&count, &frequency)| count as f64 * (f64::from(SCALE) / f64::from(frequency)).log2())
        .sum();
    // State, bounds, length and at least a byte for each different value.
    let table = 8 + counts.iter().filter(|&&count| count > 0).count();
    (bits / 8.0 + (table as f64) < bytes.len() as f64).then_some(frequencies)
}

/// Returns frequencies proportional to `counts` that add up to [`SCALE`], at least 1 for each byte
/// value that occurs.
fn normalize(counts: &[usize; 256], total: usize) -> Option<[u32; 256]> {
    if total == 0 {
        return None;
    }
    let mut frequencies = [0_u32; 256];
    for (frequency, &count) in frequencies.iter_mut().zip(counts) {
        if count > 0 {
            let share = (count as u128 * u128::from(SCALE) + total as u128 / 2) / total as u128;
            *frequency = (share as u32).max(1);
        }
    }
    // The most frequent byte absorbs the rounding error, as it matters least there.
    loop {
        let sum: u32 = frequencies.iter().sum();
        let most = (0..256).max_by_key(|&i| frequencies[i])?;
        if sum <= SCALE {
            frequencies[most] += SCALE - sum;
            return Some(frequencies);
        }
        let excess = (sum - SCALE).min(frequencies[most] / 2);
        frequencies[most] -= excess;
    }
}

fn put_coded(bytes: &[u8], frequencies: &[u32; 256], out: &mut Vec<u8>) {
    let occurs = |i: &usize| frequencies[*i] > 0;
    let (first, last) =
        ((0..256).find(occurs).unwrap_or(0), (0..256).rev().find(occurs).unwrap_or(0));
    out.extend([first as u8, last as u8]);
    let mut starts = [0_u32; 256];
    let mut sum = 0;
    let mut zeros = 0;
    for i in first..=last {
        starts[i] = sum;
        sum += frequencies[i];
        // A run of zeros is coded as a zero and the number of further zeros.
        if frequencies[i] == 0 {
            zeros += 1;
            continue;
        }
        if zeros > 0 {
            out.push(0);
            put_number(zeros - 1, out);
            zeros = 0;
        }
        put_number(frequencies[i] as usize, out);
    }
    // The coder is a stack: the first byte to be read is written last.
    let mut reversed = Vec::with_capacity(bytes.len());
    let mut state = LOWEST;
    for &byte in bytes.iter().rev() {
        let (frequency, start) = (frequencies[usize::from(byte)], starts[usize::from(byte)]);
        let limit = ((LOWEST >> SCALE_BITS) << 8) * frequency;
        while state >= limit {
            reversed.push(state as u8);
            state >>= 8;
        }
        state = ((state / frequency) << SCALE_BITS) + state % frequency + start;
    }
    reversed.extend(state.to_be_bytes());
    put_number(reversed.len(), out);
    out.extend(reversed.iter().rev());
}

fn get_coded(reader: &mut Reader<'_>, len: usize) -> Result<Vec<u8>, String> {
    let (first, last) = (usize::from(reader.byte()?), usize::from(reader.byte()?));
    if first > last {
        return Err("holds an impossible table".into());
    }
    let mut frequencies = [0_u32; 256];
    let mut starts = [0_u32; 256];
    let mut symbols = [0_u8; SCALE as usize];
    let mut sum = 0;
    let mut symbol = first;
    while symbol <= last {
        let frequency = reader.number()?;
        if frequency > SCALE as usize - sum {
            return Err("holds an impossible table".into());
        }
        if frequency == 0 {
            // A run that is too long ends beyond `last`, and its table fails the check of the sum
            // below.
            symbol += reader.number()?.min(256) + 1;
            continue;
        }
        frequencies[symbol] = frequency as u32;
        starts[symbol] = sum as u32;
        symbols[sum..sum + frequency].fill(symbol as u8);
        sum += frequency;
        symbol += 1;
    }
    if sum != SCALE as usize {
        return Err("holds an impossible table".into());
    }
    let count = reader.number()?;
    let mut payload = Reader::new(reader.take(count)?);
    let mut state = u32::from_le_bytes(payload.take(4)?.try_into().map_err(|_| "ends too early")?);
    let mut bytes = Vec::with_capacity(len);
    for _ in 0..len {
        let slot = state & (SCALE - 1);
        let symbol = symbols[slot as usize];
        let symbol_index = usize::from(symbol);
        state = frequencies[symbol_index] * (state >> SCALE_BITS) + slot - starts[symbol_index];
        while state < LOWEST {
            state = state << 8 | u32::from(payload.byte()?);
        }
        bytes.push(symbol);
    }
    if state != LOWEST || payload.left() != 0 {
        return Err("is damaged".into());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round_trip(bytes: &[u8]) -> usize {
        let mut out = Vec::new();
        put(bytes, &mut out);
        let mut reader = Reader::new(&out);
        assert_eq!(get(&mut reader, bytes.len()).unwrap(), bytes);
        assert_eq!(reader.left(), 0);
        assert!(out.len() <= bytes.len() + 1);
        out.len()
    }

    #[test]
    fn skewed_bytes_shrink_to_their_entropy() {
        // Three quarters zeros, the rest four values: 0.81 + 0.5 bits.
        let bytes: Vec<u8> = (0..40_000_u32)
            .map(|i| if i % 4 == 0 { 100 + (i * 7 / 4 % 4) as u8 } else { 0 })
            .collect();
        assert!(round_trip(&bytes) < 40_000 * 133 / 800);
        assert!(round_trip(&[7; 100_000]) < 20);
    }

    proptest! {
        #[test]
        fn everything_survives(
            bytes in prop::collection::vec(prop_oneof![Just(3_u8), 120..130_u8, any::<u8>()], 0..3000)
        ) {
            round_trip(&bytes);
        }

        #[test]
        fn damage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..400), len in 0_usize..1000) {
            let _ = get(&mut Reader::new(&bytes), len);
            let coded = [&[CODED, 3, 4, 0x80, 0x10, 0x80, 0x10][..], &bytes].concat();
            let _ = get(&mut Reader::new(&coded), len);
        }
    }
}
