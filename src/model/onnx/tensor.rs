//! Tensors known at import, with the index arithmetic of constant folding.

use std::sync::Arc;

/// Number of a shape computation: a known integer, or the symbolic number of images. The latter
/// stays symbolic even if the file fixes it, because plans have no batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Int {
    /// Integer that is known at import.
    Known(i64),
    /// Extent of the batch axis.
    Batch,
}

/// Elements of a [`Tensor`] in row-major order.
#[derive(Clone, Debug)]
pub enum Data {
    /// Floating-point numbers of any width in the file.
    Float(Arc<[f32]>),
    /// Integers, known or symbolic, and truth values.
    Int(Arc<[Int]>),
}

/// Constant with its full shape, batch included, as in ONNX.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// Row-major shape; empty for a scalar.
    pub dims: Vec<usize>,
    /// Elements, equal in number to the volume of the shape.
    pub data: Data,
}

impl Tensor {
    /// Creates a vector of integers.
    pub fn ints(values: Vec<Int>) -> Self {
        Self { dims: vec![values.len()], data: Data::Int(values.into()) }
    }

    /// Returns the number of elements.
    pub fn len(&self) -> usize {
        match &self.data {
            Data::Float(values) => values.len(),
            Data::Int(values) => values.len(),
        }
    }

    /// Returns the elements, which must be floating-point numbers.
    pub fn floats(&self) -> Result<&Arc<[f32]>, String> {
        match &self.data {
            Data::Float(values) => Ok(values),
            Data::Int(_) => Err("expects floating-point numbers, not integers".into()),
        }
    }

    /// Returns the elements as floating-point numbers, also if they are known integers.
    pub fn numbers(&self) -> Result<Arc<[f32]>, String> {
        match &self.data {
            Data::Float(values) => Ok(values.clone()),
            Data::Int(_) => {
                let values = self.known()?;
                // Larger integers are not exact in single precision; shapes never are as large.
                if let Some(large) = values.iter().find(|value| value.unsigned_abs() > 1 << 24) {
                    return Err(format!("calculates with the large integer {large}"));
                }
                Ok(values.iter().map(|&value| value as f32).collect())
            }
        }
    }

    /// Whether the elements are integers or truth values.
    pub fn is_integer(&self) -> bool {
        matches!(self.data, Data::Int(_))
    }

    /// Returns the elements, which must be integers, known or symbolic.
    pub fn symbols(&self) -> Result<&[Int], String> {
        match &self.data {
            Data::Int(values) => Ok(values),
            Data::Float(_) => Err("expects integers, not floating-point numbers".into()),
        }
    }

    /// Returns the elements, which must be known integers.
    pub fn known(&self) -> Result<Vec<i64>, String> {
        self.symbols()?
            .iter()
            .map(|value| match value {
                Int::Known(value) => Ok(*value),
                Int::Batch => Err("depends on the number of images".to_string()),
            })
            .collect()
    }

    /// Returns the single number of a tensor with one element.
    pub fn float_scalar(&self) -> Result<f32, String> {
        match self.floats()?.as_ref() {
            [value] => Ok(*value),
            values => Err(format!("expects a single number, found {}", values.len())),
        }
    }

    /// Returns this tensor with another shape of equal size.
    pub fn reshaped(&self, dims: Vec<usize>) -> Result<Self, String> {
        if volume(&dims) != Some(self.len()) {
            return Err(format!("{} numbers do not fit the shape {dims:?}", self.len()));
        }
        Ok(Self { dims, data: self.data.clone() })
    }

    /// Returns a tensor of shape `dims` whose element `i` is this tensor's element `source[i]`.
    /// Callers check the size of `dims`.
    pub fn gathered(&self, dims: Vec<usize>, source: &[usize]) -> Self {
        let data = match &self.data {
            Data::Float(values) => Data::Float(source.iter().map(|&i| values[i]).collect()),
            Data::Int(values) => Data::Int(source.iter().map(|&i| values[i]).collect()),
        };
        Self { dims, data }
    }
}

/// Returns the number of elements of a shape; `None` for shapes with more axes or elements than any
/// sound file has. If a number is returned, every partial product of the nonzero extents is small,
/// too.
pub fn volume(dims: &[usize]) -> Option<usize> {
    const AXES: usize = 16;
    const ELEMENTS: usize = 1 << 48;
    if dims.len() > AXES {
        return None;
    }
    let bound = dims.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim.max(1)))?;
    (bound <= ELEMENTS).then_some(if dims.contains(&0) { 0 } else { bound })
}

/// Returns the row-major strides of a shape.
pub fn strides(dims: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; dims.len()];
    for axis in (1..dims.len()).rev() {
        strides[axis - 1] = strides[axis] * dims[axis];
    }
    strides
}

/// Returns the NumPy broadcast of two shapes.
pub fn broadcast(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    let at = |dims: &[usize], axis: usize| {
        (axis + dims.len()).checked_sub(rank).map_or(1, |position| dims[position])
    };
    (0..rank)
        .map(|axis| match (at(a, axis), at(b, axis)) {
            (x, y) if x == y => Some(x),
            (1, y) => Some(y),
            (x, 1) => Some(x),
            _ => None,
        })
        .collect()
}

/// Returns the offset of every index of `dims`, row-major, for strides `step` and the first offset
/// `start`.
pub fn strided_offsets(dims: &[usize], step: &[isize], start: usize) -> Vec<usize> {
    let total = volume(dims).unwrap_or(0);
    let mut offsets = Vec::with_capacity(total);
    let mut index = vec![0usize; dims.len()];
    let mut offset = start as isize;
    for _ in 0..total {
        offsets.push(offset as usize);
        for axis in (0..dims.len()).rev() {
            index[axis] += 1;
            offset += step[axis];
            if index[axis] < dims[axis] {
                break;
            }
            offset -= step[axis] * dims[axis] as isize;
            index[axis] = 0;
        }
    }
    offsets
}

/// Returns the offsets that read a tensor of shape `dims` with the broadcast shape `target`.
pub fn broadcast_offsets(dims: &[usize], target: &[usize]) -> Vec<usize> {
    let own = strides(dims);
    let lead = target.len() - dims.len();
    let step: Vec<isize> = (0..target.len())
        .map(|axis| match axis.checked_sub(lead) {
            Some(position) if dims[position] != 1 => own[position] as isize,
            _ => 0,
        })
        .collect();
    strided_offsets(target, &step, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_of_transposed_and_reversed_tensors() {
        // A 2x3 matrix read column by column, and backwards.
        assert_eq!(strided_offsets(&[3, 2], &[1, 3], 0), [0, 3, 1, 4, 2, 5]);
        assert_eq!(strided_offsets(&[6], &[-1], 5), [5, 4, 3, 2, 1, 0]);
        assert_eq!(strided_offsets(&[], &[], 0), [0]);
        assert_eq!(strided_offsets(&[0, 3], &[3, 1], 0), [0usize; 0]);
    }

    #[test]
    fn broadcasts_like_numpy() {
        assert_eq!(broadcast(&[4, 1, 3], &[2, 1]), Some(vec![4, 2, 3]));
        assert_eq!(broadcast(&[], &[2]), Some(vec![2]));
        assert_eq!(broadcast(&[3], &[2]), None);
        assert_eq!(broadcast_offsets(&[2, 1], &[2, 2, 3]), [0, 0, 0, 1, 1, 1, 0, 0, 0, 1, 1, 1]);
    }
}
