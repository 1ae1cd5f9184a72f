//! The program builder: buffers without addresses and steps without pointers. A value that is
//! requested in a tensor format it does not have yet is converted once.

use super::work::Work;
use paretune_base::error::KernelError;
use paretune_base::execution::StepInfo;
use paretune_base::memory::block::Block;
use paretune_base::plan::layout::{Element, Layout};
use paretune_base::plan::{Plan, ValueId};
use paretune_base::threads::{Barrier, Worker};
use paretune_cpu::operators::convert;
use paretune_cpu::operators::convert::TensorFormat;
use paretune_cpu::operators::{Context, Io, is_layout_neutral, planes};

/// Index of a buffer in [`ProgramBuilder::buffers`].
pub(super) type BufferId = usize;

/// Storage that provides a buffer's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Storage {
    /// The arena, which activations share.
    Arena,
    /// Memory provided by the caller, with the index among the inputs of the part.
    Input(usize),
    /// Memory provided by the caller, with the index among the outputs of the part.
    Output(usize),
    /// Memory filled at load time, with the index into [`ProgramBuilder::constants`].
    Constant(usize),
}

/// Memory that steps read or write.
#[derive(Clone, Copy, Debug)]
pub(super) struct Buffer {
    pub bytes: usize,
    pub storage: Storage,
    /// Number of steps that must have run before the buffer holds its value.
    pub ready: usize,
}

/// A step whose buffers have no addresses yet.
pub(super) struct PendingStep {
    pub info: StepInfo,
    pub work: Work,
    pub inputs: Vec<BufferId>,
    pub output: BufferId,
    pub workspace: usize,
    /// Whether the output may overwrite an input of the same size.
    pub in_place: bool,
}

/// A program under construction, without addresses.
pub(super) struct ProgramBuilder<'a> {
    pub plan: &'a Plan,
    pub context: Context,
    /// Tensor formats in which each value is available, the one it was computed in first.
    pub formats: Vec<Vec<(TensorFormat, BufferId)>>,
    pub buffers: Vec<Buffer>,
    pub constants: Vec<Block>,
    /// Bytes of `constants` and of the kernels' weights.
    pub weight_bytes: usize,
    pub steps: Vec<PendingStep>,
}

impl ProgramBuilder<'_> {
    /// Returns the number of elements of `value`, batch included.
    pub fn len(&self, value: ValueId) -> usize {
        self.plan.values[value].len() * self.context.batch
    }

    /// Replaces the layout of `form` by the canonical one among all layouts that store `value`
    /// identically.
    pub fn canonical(&self, value: ValueId, form: TensorFormat) -> TensorFormat {
        let dims = &self.plan.values[value].dims;
        let layout = match form.layout {
            _ if is_layout_neutral(dims) => Layout::Nchw,
            Layout::Nchwc(block) if dims.first() == Some(&block) => Layout::Nhwc,
            layout => layout,
        };
        TensorFormat { layout, ..form }
    }

    /// Returns the buffer that holds `value` in exactly this tensor format, if one exists.
    pub fn present(&self, value: ValueId, form: TensorFormat) -> Option<BufferId> {
        let form = self.canonical(value, form);
        self.formats[value].iter().find(|(have, _)| *have == form).map(|&(_, buffer)| buffer)
    }

    /// Returns the layout that `value` was computed in, or `None` if all layouts store it
    /// identically.
    pub fn made_in(&self, value: ValueId) -> Option<Layout> {
        let neutral = is_layout_neutral(&self.plan.values[value].dims);
        self.formats[value].first().filter(|_| !neutral).map(|(form, _)| form.layout)
    }

    /// Returns the layout of a buffer that holds `value` as `element`, if one exists.
    pub fn present_u8(&self, value: ValueId, element: Element) -> Option<Layout> {
        self.formats[value]
            .iter()
            .find(|(form, _)| form.element == element)
            .map(|(form, _)| form.layout)
    }

    /// Adds an arena buffer for `value` in `form`, to be written by the next step.
    pub fn create(&mut self, value: ValueId, form: TensorFormat) -> BufferId {
        let form = self.canonical(value, form);
        let bytes = self.len(value) * form.element_bytes();
        let buffer =
            self.add(Buffer { bytes, storage: Storage::Arena, ready: self.steps.len() + 1 });
        self.formats[value].push((form, buffer));
        buffer
    }

    pub fn add(&mut self, buffer: Buffer) -> BufferId {
        self.buffers.push(buffer);
        self.buffers.len() - 1
    }

    /// Returns the buffer that holds `value` in `form` for the step called `step`. A missing tensor
    /// format is made by an inserted conversion step, or at once if the value is a constant.
    ///
    /// # Errors
    /// Fails if memory for a constant is refused.
    pub fn get(
        &mut self,
        step: &str,
        value: ValueId,
        form: TensorFormat,
    ) -> Result<BufferId, KernelError> {
        let form = self.canonical(value, form);
        if let Some(buffer) = self.present(value, form) {
            return Ok(buffer);
        }
        let (from, source) = self.cheapest_source(value, form);
        let size = planes(&self.plan.values[value].dims);
        let [channels, pixels] = size.unwrap_or([1, self.plan.values[value].len()]);
        let kernel = convert::prepare(self.context, channels, pixels, from, form);
        let bytes = self.len(value) * form.element_bytes();
        if let Storage::Constant(constant) = self.buffers[source].storage {
            let block = Block::new(bytes)?;
            let io = Io {
                inputs: &[self.constants[constant].start().cast_const()],
                output: block.start(),
            };
            let barrier = Barrier::new(1);
            // SAFETY: both blocks have the sizes that the conversion was made for, and this is a
            // pool of one.
            unsafe { kernel.run(&io, &Worker::alone(&barrier)) };
            let buffer = self.add_constant(block, bytes);
            self.formats[value].push((form, buffer));
            return Ok(buffer);
        }
        let output = self.create(value, form);
        self.steps.push(PendingStep {
            info: StepInfo {
                name: format!("{step}:{}", conversion_name(from, form)),
                algorithm: "convert".into(),
                multiply_adds: 0,
                bytes: (self.buffers[source].bytes + bytes) as u64,
            },
            work: Work::Operator(kernel),
            inputs: vec![source],
            output,
            workspace: 0,
            in_place: false,
        });
        Ok(output)
    }

    /// Adds `block` to the constants of the program and returns its buffer.
    pub fn add_constant(&mut self, block: Block, bytes: usize) -> BufferId {
        self.constants.push(block);
        self.weight_bytes += bytes;
        self.add(Buffer { bytes, storage: Storage::Constant(self.constants.len() - 1), ready: 0 })
    }

    /// Chooses the tensor format to convert from: one with the same element type if it exists, else
    /// one with the same layout, else the one that the value was computed in.
    fn cheapest_source(&self, value: ValueId, form: TensorFormat) -> (TensorFormat, BufferId) {
        let formats = &self.formats[value];
        let same_element = formats.iter().find(|(have, _)| have.element == form.element);
        let same_layout = formats.iter().find(|(have, _)| have.layout == form.layout);
        *same_element.or(same_layout).unwrap_or(&formats[0])
    }
}

/// Names the conversion between two tensor formats, for the name of its step.
fn conversion_name(from: TensorFormat, to: TensorFormat) -> String {
    let layout = match to.layout {
        _ if from.layout == to.layout => None,
        Layout::Nchw => Some("planar"),
        Layout::Nhwc => Some("channels_last"),
        Layout::Nchwc(_) => Some("channel_blocked"),
    };
    let element = match (from.element, to.element) {
        (Element::F32, Element::U8(_)) => Some("quantize"),
        (Element::U8(_), Element::F32) => Some("dequantize"),
        (Element::U8(a), Element::U8(b)) if a != b => Some("requantize"),
        _ => None,
    };
    match (element, layout) {
        (Some(element), Some(layout)) => format!("{element}+{layout}"),
        (Some(one), None) | (None, Some(one)) => one.to_owned(),
        (None, None) => "copy".to_owned(),
    }
}
