//! The encoding of block-sparse weights: a block mask with one bit per block, followed by the
//! values of the nonzero blocks.

use super::stream;
use super::stream::Reader;
use paretune_base::plan::weights::Pattern;

/// Geometry of the blocks in weights of shape `dims`.
pub(super) struct Blocks {
    dims: [usize; 4],
    /// Output and input channels of a block.
    size: [usize; 2],
}

impl Blocks {
    /// Returns `None` if the pattern has no blocks.
    pub(super) fn of(pattern: Pattern, dims: [usize; 4]) -> Option<Self> {
        match pattern {
            Pattern::Blocks { outputs, inputs } if outputs > 0 && inputs > 0 => {
                Some(Self { dims, size: [outputs.into(), inputs.into()] })
            }
            _ => None,
        }
    }

    fn count(&self) -> usize {
        let [outputs, inputs, height, width] = self.dims;
        outputs.div_ceil(self.size[0]) * inputs.div_ceil(self.size[1]) * height * width
    }

    /// Returns the index of the block that contains the weight with this index.
    fn block(&self, number: usize) -> usize {
        let [_, inputs, height, width] = self.dims;
        let (channel, tap) = (number / (height * width), number % (height * width));
        let row = channel / inputs / self.size[0] * inputs.div_ceil(self.size[1]);
        (row + channel % inputs / self.size[1]) * height * width + tap
    }

    /// Appends the mask of blocks with nonzero values, and returns the values of those blocks.
    pub(super) fn put<T: Copy>(
        &self,
        values: &[T],
        zero: impl Fn(T) -> bool,
        out: &mut Vec<u8>,
    ) -> Vec<T> {
        let mut kept = vec![false; self.count()];
        for (number, value) in values.iter().enumerate() {
            kept[self.block(number)] |= !zero(*value);
        }
        let byte = |bits: &[bool]| {
            bits.iter().enumerate().fold(0, |byte, (i, set)| byte | u8::from(*set) << i)
        };
        let bytes: Vec<u8> = kept.chunks(8).map(byte).collect();
        stream::put(&bytes, out);
        values
            .iter()
            .enumerate()
            .filter(|(number, _)| kept[self.block(*number)])
            .map(|(_, x)| *x)
            .collect()
    }

    /// Reads the block mask that [`Blocks::put`] has written, and returns the ascending indices of
    /// the weights in nonzero blocks. The caller has bounded `dims`.
    pub(super) fn get(&self, reader: &mut Reader<'_>) -> Result<Vec<usize>, String> {
        let count = self.count();
        let bytes = stream::get(reader, count.div_ceil(8))?;
        let len = self.dims.iter().product();
        Ok((0..len)
            .filter(|number| {
                let block = self.block(*number);
                bytes[block / 8] >> (block % 8) & 1 == 1
            })
            .collect())
    }
}
