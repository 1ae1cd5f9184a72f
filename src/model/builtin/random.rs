//! Random numbers of the drawn images: SplitMix64, implemented here so that no change of a library
//! changes the built-in images.

/// Stream of random numbers, determined by its seed alone.
pub(super) struct Random(u64);

impl Random {
    /// Creates the stream of one image of one part.
    pub fn new(part: u64, image: u64) -> Self {
        let mut random = Self(
            part.wrapping_mul(0x9E6C_63D0_876A_9A63) ^ image.wrapping_mul(0xD1B5_4A32_D192_ED03),
        );
        // Seeds of neighboring images differ in a few bits; the first outputs mix them.
        random.next();
        random.next();
        random
    }

    // Steele, Lea, Flood: Fast splittable pseudorandom number generators, OOPSLA 2014.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Draws a whole number from `low` to `high`, both included.
    pub fn range(&mut self, low: i32, high: i32) -> i32 {
        let count = i64::from(high) - i64::from(low) + 1;
        let value = (i64::from((self.next() >> 32) as u32) * count) >> 32;
        (i64::from(low) + value) as i32
    }

    /// Returns true with a probability of `percent` / 100.
    pub fn chance(&mut self, percent: i32) -> bool {
        self.range(0, 99) < percent
    }

    /// Draws two roughly normal numbers with mean 0 and a standard deviation of 37: sums of four
    /// uniform bytes, halved.
    pub fn noise(&mut self) -> [i32; 2] {
        let bits = self.next();
        let sum = |bits: u64| (0..4).map(|byte| ((bits >> (8 * byte)) & 255) as i32).sum::<i32>();
        [(sum(bits) - 510) / 4, (sum(bits >> 32) - 510) / 4]
    }
}
