//! The bytes of the two files.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::numbers::{get_f32, get_i8, put_f32, put_i8};
use super::stream::{self, Reader, put_number};
use super::{Bundle, Preprocessing};
use crate::operators::shape;
use crate::plan::{Plan, Step, ValueSpec};
use crate::weights::{IntegerWeights, Numbers, WeightFormat, WeightValues, Weights};

const MAGIC: &[u8; 8] = b"PARETUNE";
/// Grows with every change of the format.
const VERSION: u32 = 2;
const HEADER: usize = 8 + 4 + 32;

/// Coded numbers may be far fewer bytes than the tensor they stand for, a tensor of zeros almost none.
/// A file may ask for this many numbers, and for [`EXPANSION`] more per byte that it has.
const ALLOWANCE: usize = 1 << 24;
const EXPANSION: usize = 1 << 10;

/// Contents of the two files.
pub(super) struct Files {
    pub plan: Vec<u8>,
    pub weights: Vec<u8>,
}

/// What `plan.bin` says: a [`Bundle`] whose weights have no numbers.
#[derive(Serialize, Deserialize)]
struct Stored {
    name: String,
    values: Vec<ValueSpec>,
    input: usize,
    output: usize,
    steps: Vec<Step>,
    weights: Vec<StoredWeights>,
    constants: Vec<Arc<[f32]>>,
    threads: usize,
    preprocessing: Preprocessing,
    configuration: String,
}

/// What must be known to read a tensor from `weights.bin`.
#[derive(Serialize, Deserialize)]
struct StoredWeights {
    dims: [usize; 4],
    format: WeightFormat,
    bias: bool,
}

pub(super) fn encode(bundle: &Bundle) -> Files {
    let Bundle { plan, preprocessing, configuration } = bundle;
    let stored = Stored {
        name: plan.name.clone(),
        values: plan.values.clone(),
        input: plan.input,
        output: plan.output,
        steps: plan.steps.clone(),
        weights: plan
            .weights
            .iter()
            .map(|weights| StoredWeights {
                dims: weights.dims,
                format: weights.format(),
                bias: weights.bias.is_some(),
            })
            .collect(),
        constants: plan.constants.clone(),
        threads: plan.threads,
        preprocessing: preprocessing.clone(),
        configuration: configuration.clone(),
    };
    // Plain data of known lengths: serializing it into memory has no way to fail.
    let description = postcard::to_stdvec(&stored).unwrap_or_default();
    let mut body = Vec::new();
    put_number(description.len(), &mut body);
    stream::put(&description, &mut body);
    let mut numbers = Vec::new();
    for weights in &plan.weights {
        put_weights(weights, &mut numbers);
    }
    let mut file = Vec::with_capacity(HEADER + body.len());
    file.extend_from_slice(MAGIC);
    file.extend_from_slice(&VERSION.to_le_bytes());
    file.extend_from_slice(checksum(&body, &numbers).as_bytes());
    file.extend_from_slice(&body);
    Files { plan: file, weights: numbers }
}

pub(super) fn decode(file: &[u8], numbers: &[u8]) -> Result<Bundle, String> {
    let mut reader = Reader::new(file);
    if reader.take(8).ok() != Some(MAGIC) {
        return Err("plan.bin is not the plan of a bundle".into());
    }
    let version = reader.take(4).map_err(|_| "plan.bin ends too early")?;
    if version != VERSION.to_le_bytes() {
        let version = version.iter().rev().fold(0_u32, |all, &byte| all << 8 | u32::from(byte));
        return Err(format!("has format version {version}; this program reads version {VERSION}"));
    }
    let expected = reader.take(32).map_err(|_| "plan.bin ends too early")?;
    if checksum(&file[HEADER..], numbers).as_bytes() != expected {
        return Err("is damaged: its checksum does not match".into());
    }
    // A right checksum only excludes accidents: from here on every size is still doubted.
    let budget = ALLOWANCE.saturating_add((file.len() + numbers.len()).saturating_mul(EXPANSION));
    let in_plan = |problem: String| format!("plan.bin {problem}");
    let len = reader.number().map_err(in_plan)?;
    if len > budget {
        return Err("plan.bin promises more than it can hold".into());
    }
    let description = stream::get(&mut reader, len).map_err(in_plan)?;
    if reader.left() > 0 {
        return Err("plan.bin has bytes beyond its end".into());
    }
    let (stored, rest) = postcard::take_from_bytes::<Stored>(&description)
        .map_err(|error| format!("plan.bin cannot be understood: {error}"))?;
    if !rest.is_empty() {
        return Err("plan.bin has bytes beyond its end".into());
    }
    let weights = get_all_weights(&stored.weights, numbers, budget)?;
    let Stored { name, values, input, output, steps, constants, threads, .. } = stored;
    Ok(Bundle {
        plan: Plan { name, values, input, output, steps, weights, constants, threads },
        preprocessing: stored.preprocessing,
        configuration: stored.configuration,
    })
}

/// Appends the numbers of one tensor: values, scales, bias.
pub(super) fn put_weights(weights: &Weights, out: &mut Vec<u8>) {
    match &weights.values {
        WeightValues::F32(values) => put_f32(values, out),
        WeightValues::Integer(dense) => {
            put_i8(&dense.values, out);
            put_f32(&dense.scales, out);
        }
    }
    if let Some(bias) = &weights.bias {
        put_f32(bias, out);
    }
}

fn get_all_weights(
    stored: &[StoredWeights],
    numbers: &[u8],
    mut budget: usize,
) -> Result<Vec<Weights>, String> {
    let mut reader = Reader::new(numbers);
    let mut all = Vec::new();
    for (index, stored) in stored.iter().enumerate() {
        let here = |problem: String| format!("weights.bin {problem} (weights {index})");
        let len = shape::checked_len(&stored.dims, 1).map_err(here)?;
        // Values, scales and biases.
        let cost = len.saturating_add(2 * stored.dims[0]);
        budget = budget.checked_sub(cost).ok_or_else(|| here("is smaller than its tensors".into()))?;
        all.push(get_weights(stored, &mut reader, len).map_err(here)?);
    }
    if reader.left() > 0 {
        return Err("weights.bin has bytes beyond its end".into());
    }
    Ok(all)
}

fn get_weights(stored: &StoredWeights, reader: &mut Reader<'_>, len: usize) -> Result<Weights, String> {
    let outputs = stored.dims[0];
    let values = match stored.format.numbers {
        Numbers::F32 => WeightValues::F32(get_f32(reader, len)?),
        Numbers::Integer(grid) => {
            let values = get_i8(reader, len)?;
            WeightValues::Integer(IntegerWeights { values, scales: get_f32(reader, outputs)?, grid })
        }
    };
    let bias = if stored.bias { Some(get_f32(reader, outputs)?) } else { None };
    Ok(Weights { dims: stored.dims, values, pattern: stored.format.pattern, bias })
}

fn checksum(body: &[u8], numbers: &[u8]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    // Length first: moving bytes from one file to the other is damage too.
    hasher.update(&(body.len() as u64).to_le_bytes()).update(body).update(numbers);
    hasher.finalize()
}
