//! Export of a layer's weights: real weights in single precision, integers of any grid as 8-bit
//! integers through DequantizeLinear.

use paretune_kernels::weights::IntegerWeights;
use paretune_kernels::{Quantization, WeightValues, Weights};

use super::attributes::int;
use super::writer::Writer;
use crate::onnx::proto::tensor_proto::DataType;

impl Writer<'_> {
    /// Adds the weights of the step called `name` with shape `dims`. Returns the name of the tensor
    /// with their values.
    pub(super) fn weights(&mut self, name: &str, dims: &[usize], weights: &Weights) -> String {
        let tensor = format!("{name}:weight");
        match &weights.values {
            WeightValues::F32(values) | WeightValues::Bf16(values) | WeightValues::Fp16(values) => {
                self.floats(tensor, dims, values)
            }
            WeightValues::Integer(integers) => self.integer_weights(tensor, dims, integers),
        }
    }

    fn integer_weights(
        &mut self,
        tensor: String,
        dims: &[usize],
        integers: &IntegerWeights,
    ) -> String {
        // The format requires positive scales, so integers with a negative scale are negated here.
        // The zero point moves from 0 to 128: without special instructions, x86 processors multiply
        // unsigned by signed bytes with sums of pairs that overflow 16 bits, and runtimes use that
        // for signed weights.
        let channel = integers.values.len() / integers.scales.len().max(1);
        let signed = integers.values.chunks(channel.max(1)).zip(integers.scales.iter());
        let raw = signed
            .flat_map(|(values, scale)| {
                let negative = scale.is_sign_negative();
                values.iter().map(move |value| if negative { value.wrapping_neg() } else { *value })
            })
            .map(|value| value.cast_unsigned() ^ 0x80)
            .collect();
        let scales = positive(&integers.scales);
        let values = self.tensor(format!("{tensor}:quantized"), dims, DataType::Uint8, raw);
        let scales = self.floats(format!("{tensor}:scale"), &[scales.len()], &scales);
        let zeros = vec![0x80; integers.scales.len()];
        let zero =
            self.tensor(format!("{tensor}:zero"), &[integers.scales.len()], DataType::Uint8, zeros);
        self.node(
            "DequantizeLinear",
            format!("{tensor}/DequantizeLinear"),
            vec![values, scales, zero],
            tensor.clone(),
            vec![int("axis", 0)],
        );
        tensor
    }

    /// Adds the bias of the step called `name`, if it has one.
    ///
    /// The bias of an integer layer becomes 32-bit integers on the grid of its products, the form
    /// that runtimes fuse, unless that grid is too fine for 32 bits.
    pub(super) fn bias(
        &mut self,
        name: &str,
        weights: &Weights,
        input: Option<Quantization>,
    ) -> Option<String> {
        let bias = weights.bias.as_deref()?;
        let tensor = format!("{name}:bias");
        if let (WeightValues::Integer(integers), Some(input)) = (&weights.values, input) {
            let scales: Vec<f32> =
                positive(&integers.scales).into_iter().map(|scale| scale * input.scale).collect();
            let whole: Vec<f64> = bias
                .iter()
                .zip(&scales)
                .map(|(bias, scale)| (f64::from(*bias) / f64::from(*scale)).round())
                .collect();
            if whole.iter().all(|value| value.abs() < f64::from(i32::MAX)) {
                #[expect(clippy::cast_possible_truncation, reason = "checked just now")]
                let raw = whole.iter().flat_map(|value| (*value as i32).to_le_bytes()).collect();
                let values =
                    self.tensor(format!("{tensor}:quantized"), &[bias.len()], DataType::Int32, raw);
                let scale = self.floats(format!("{tensor}:scale"), &[scales.len()], &scales);
                self.node(
                    "DequantizeLinear",
                    format!("{tensor}/DequantizeLinear"),
                    vec![values, scale],
                    tensor.clone(),
                    vec![int("axis", 0)],
                );
                return Some(tensor);
            }
        }
        Some(self.floats(tensor, &[bias.len()], bias))
    }
}

fn positive(scales: &[f32]) -> Vec<f32> {
    scales.iter().map(|scale| scale.abs()).collect()
}
