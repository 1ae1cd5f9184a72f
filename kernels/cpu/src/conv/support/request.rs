//! Checks that all algorithms apply to their requests.

use super::buffer::Buffer;
use super::packing::REVISION;
use super::tiles::{TILE, Tile};
use crate::conv::algorithm::{Algorithm, Request};
use paretune_base::error::KernelError;
use paretune_base::plan::layout::Element;
use paretune_base::plan::operator::ConvProblem;
use paretune_base::plan::schedule::TunableValue;
use paretune_base::plan::weights::{IntegerWeights, WeightValues};
use paretune_simd::{Isa, IsaToken};

/// Largest number of elements of any tensor; byte offsets then fit into `isize` with room to spare.
const MAX_TENSOR_ELEMENTS: usize = isize::MAX as usize / 1024;

/// Returns whether `problem` is valid: sizes are positive, groups divide the channels, the window
/// fits, and nothing overflows.
pub(crate) fn sensible(problem: &ConvProblem) -> bool {
    let window = &problem.window;
    let sizes = [problem.batch, problem.in_channels, problem.out_channels, problem.groups];
    let positive = sizes.iter().chain(&problem.input).chain(&window.kernel).chain(&window.stride);
    if positive.chain(&window.dilation).any(|&size| size == 0)
        || !problem.in_channels.is_multiple_of(problem.groups)
        || !problem.out_channels.is_multiple_of(problem.groups)
    {
        return false;
    }
    let Some([height, width]) = window.output(problem.input, false) else { return false };
    let [top, left, bottom, right] = window.padding;
    let product = |factors: &[usize]| {
        factors
            .iter()
            .try_fold(1_usize, |product, &factor| product.checked_mul(factor))
            .filter(|&n| n < MAX_TENSOR_ELEMENTS)
    };
    let padded_height = problem.input[0] + top + bottom;
    let padded_width = problem.input[1] + left + right;
    product(&[problem.batch, problem.in_channels, padded_height, padded_width]).is_some()
        && product(&[problem.batch, problem.out_channels, height, width]).is_some()
        && product(&[problem.out_channels, problem.in_channels, window.kernel[0], window.kernel[1]])
            .is_some()
}

/// Returns `[height, width]` of the input with its padding.
pub(crate) fn padded(problem: &ConvProblem) -> [usize; 2] {
    let [top, left, bottom, right] = problem.window.padding;
    [problem.input[0] + top + bottom, problem.input[1] + left + right]
}

/// Describes the machine as packed weights depend on it: order of bytes and `isa`.
fn machine(isa: Isa) -> String {
    let order = if cfg!(target_endian = "little") { "little" } else { "big" };
    format!("{REVISION} {order} {}", isa.name())
}

impl Request<'_> {
    /// Returns a hash of everything that packing may depend on, except the weights.
    #[must_use]
    pub fn key(&self) -> [u8; 16] {
        // Every pixel is computed with the same weights, however many images there are.
        let problem = ConvProblem { batch: 1, ..self.problem };
        let Request { weights, activation, input, output, residual, schedule, isa, .. } = self;
        let surroundings = (activation, input, output, residual);
        let text = format!(
            "{} {problem:?} {schedule:?} {:?} {surroundings:?}",
            machine(*isa),
            weights.format()
        );
        let mut key = [0; 16];
        key.copy_from_slice(&blake3::hash(text.as_bytes()).as_bytes()[..16]);
        key
    }

    /// Returns the value of a tunable.
    pub(crate) fn tunable(&self, name: &str) -> Result<TunableValue, KernelError> {
        self.schedule.tunables.get(name).copied().ok_or_else(|| {
            KernelError::Data(format!(
                "the schedule of `{}` lacks tunable `{name}`",
                self.schedule.algorithm
            ))
        })
    }

    /// Returns the value of a tunable that is a positive count.
    pub(crate) fn count(&self, name: &str) -> Result<usize, KernelError> {
        let value = self.tunable(name)?.size().and_then(|size| usize::try_from(size).ok());
        value.filter(|&count| count > 0).ok_or_else(|| self.bad_value(name))
    }

    /// Returns the value of a tunable that is a name.
    pub(crate) fn choice(&self, name: &str) -> Result<&'static str, KernelError> {
        match self.tunable(name)? {
            TunableValue::Choice(choice) => Ok(choice),
            _ => Err(self.bad_value(name)),
        }
    }

    /// Returns the value of a tunable that is on or off.
    pub(crate) fn switch(&self, name: &str) -> Result<bool, KernelError> {
        match self.tunable(name)? {
            TunableValue::Switch(on) => Ok(on),
            _ => Err(self.bad_value(name)),
        }
    }

    /// Returns the values of `tile_m` and `tile_n`.
    pub(crate) fn tile_sides(&self) -> Result<[usize; 2], KernelError> {
        Ok([self.count(TILE[0])?, self.count(TILE[1])?])
    }

    /// Returns the register tile that the schedule chooses.
    pub(crate) fn tile(&self) -> Result<Tile, KernelError> {
        Tile::of_sides(self.tile_sides()?, self.isa).ok_or_else(|| self.bad_value(TILE[0]))
    }

    /// Returns the error for an invalid value of a tunable.
    pub(crate) fn bad_value(&self, name: &str) -> KernelError {
        KernelError::Data(format!(
            "`{}` cannot take the value {:?} of its tunable `{name}` here",
            self.schedule.algorithm,
            self.schedule.tunables.get(name)
        ))
    }

    /// Checks sizes, threads and the instruction set, which every algorithm needs.
    pub(crate) fn check(&self) -> Result<([usize; 2], IsaToken), KernelError> {
        let problem = &self.problem;
        if !sensible(problem) {
            return Err(KernelError::Data(format!("no convolution is possible with {problem:?}")));
        }
        let [kernel_height, kernel_width] = problem.window.kernel;
        let dims = [problem.out_channels, problem.group_in(), kernel_height, kernel_width];
        let numbers = if self.packing.is_found() { 0 } else { dims.iter().product::<usize>() };
        if self.weights.dims != dims || self.weights.values.len() != numbers {
            return Err(KernelError::Data(format!(
                "weights of {:?} ({} values) where the convolution needs {dims:?}",
                self.weights.dims,
                self.weights.values.len()
            )));
        }
        if let Some(bias) = &self.weights.bias
            && !self.packing.is_found()
            && bias.len() != problem.out_channels
        {
            return Err(KernelError::Data(format!(
                "{} biases for {} output channels",
                bias.len(),
                problem.out_channels
            )));
        }
        if self.threads == 0 {
            return Err(KernelError::Data("a convolution needs at least one thread".into()));
        }
        let token = IsaToken::new(self.isa).ok_or_else(|| {
            KernelError::System(format!("this machine cannot execute {:?} instructions", self.isa))
        })?;
        Ok((problem.output()?, token))
    }

    /// Checks what every algorithm needs, as [`Self::check`] does, and that `algorithm` supports
    /// the problem.
    pub(crate) fn check_for(
        &self,
        algorithm: &dyn Algorithm,
    ) -> Result<([usize; 2], IsaToken), KernelError> {
        let checked = self.check()?;
        if algorithm.supports(&self.problem, self.isa) {
            return Ok(checked);
        }
        Err(KernelError::Data(format!("`{}` cannot solve {:?}", algorithm.name(), self.problem)))
    }

    /// Checks that input, output and residual are single precision.
    pub(crate) fn check_f32(&self) -> Result<(), KernelError> {
        let all = [Some(self.input), Some(self.output), self.residual];
        if all.into_iter().flatten().any(|element| element != Element::F32) {
            return Err(KernelError::Data(format!(
                "`{}` computes in single precision only",
                self.schedule.algorithm
            )));
        }
        Ok(())
    }

    /// Returns the single-precision weights, dense or with zeros; empty if they were packed before.
    pub(crate) fn f32_weights(&self) -> Result<&[f32], KernelError> {
        let values = self.weights.values.reals().ok_or_else(|| {
            KernelError::Data(format!(
                "`{}` needs weights that are real numbers",
                self.schedule.algorithm
            ))
        })?;
        Ok(values)
    }

    /// Returns the integer weights; without values if they were packed before.
    pub(crate) fn integer_weights(&self) -> Result<&IntegerWeights, KernelError> {
        match &self.weights.values {
            WeightValues::Integer(dense)
                if (dense.scales.len() == self.problem.out_channels || self.packing.is_found())
                    && dense.scales.iter().all(|scale| scale.is_finite()) =>
            {
                Ok(dense)
            }
            _ => Err(KernelError::Data(format!(
                "`{}` needs integer weights with a finite scale per output channel",
                self.schedule.algorithm
            ))),
        }
    }

    /// Returns the bias of an output channel.
    pub(crate) fn bias(&self, channel: usize) -> f32 {
        self.weights.bias.as_ref().map_or(0.0, |bias| bias[channel])
    }

    /// Returns the packed biases of all output channels.
    pub(crate) fn packed_biases(&self) -> Result<Buffer<f32>, KernelError> {
        self.packing.numbers(self.problem.out_channels, |numbers| self.write_biases(0, numbers))
    }

    /// Writes the biases of the output channels from `first` on.
    pub(crate) fn write_biases(&self, first: usize, to: &mut [f32]) {
        to.iter_mut()
            .enumerate()
            .for_each(|(channel, number)| *number = self.bias(first + channel));
    }
}
