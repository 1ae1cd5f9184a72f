//! The binary format of the two files.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::blocks::Blocks;
use super::numbers::{get_f32, get_fp16, get_i8, put_f32, put_fp16, put_i8};
use super::stream;
use super::stream::{Reader, put_number};
use super::table::Table;
use super::{Bundle, Preprocessing};
use paretune_base::plan::shape;
use paretune_base::plan::weights::{IntegerWeights, Numbers, WeightFormat, WeightValues, Weights};
use paretune_base::plan::{Backend, Plan, Step, Switch, ValueSpec};

const MAGIC: &[u8; 8] = b"PARETUNE";
/// Version of the format, incremented with every change.
const VERSION: u16 = 8;
const HEADER: usize = 8 + 2 + 2 + 32;

/// Kind of `weights.bin`, stored after the version: coded weights alone, or packed weights followed
/// by coded ones.
const CODED: u16 = 0;
const PACKED: u16 = 1;

/// Limits on the bytes of decoded tensors. Coded weights may take far fewer bytes than the tensor
/// that they represent, and a tensor of zeros takes almost none. Files may decode to this many
/// bytes, and [`EXPANSION`] more for each of their bytes.
const ALLOWANCE: usize = 16 << 20;
const EXPANSION: usize = 1 << 8;

/// Limits on the bytes of the decoded description, which has names and sizes only: this many, and
/// [`DESCRIPTION_EXPANSION`] more for each byte of `plan.bin`. Every byte of it may become an object
/// of a hundred bytes.
const DESCRIPTION_ALLOWANCE: usize = 256 << 10;
const DESCRIPTION_EXPANSION: usize = 8;

/// Largest number of values, steps, weights or constants of a plan.
const MAX_ENTRIES: usize = 1 << 17;

/// Contents of the two files.
pub(super) struct Files {
    pub plan: Vec<u8>,
    pub weights: Vec<u8>,
}

/// Serialized form of `plan.bin`: a [`Bundle`] without the values of its weights.
#[derive(Serialize, Deserialize)]
struct Description {
    name: String,
    values: Vec<ValueSpec>,
    input: usize,
    output: usize,
    steps: Vec<Step>,
    weights: Vec<StoredWeights>,
    /// Number of elements of each constant; their values follow the description.
    constants: Vec<usize>,
    threads: usize,
    backend: Backend,
    switches: Vec<Switch>,
    preprocessing: Preprocessing,
    configuration: String,
}

/// Description of a tensor in `weights.bin`, as needed to read it.
#[derive(Serialize, Deserialize)]
pub(super) struct StoredWeights {
    dims: [usize; 4],
    format: WeightFormat,
    bias: bool,
}

/// Contents of `plan.bin` after decoding.
pub(super) struct Contents {
    /// The bundle without the values of its weights.
    pub bundle: Bundle,
    /// Descriptions of the weights in `weights.bin`.
    pub weights: Vec<StoredWeights>,
    /// Table of the packed weights that precede the coded ones in `weights.bin`, if any.
    pub table: Option<Table>,
}

/// Encodes a bundle as two files, with coded weights alone.
pub(super) fn encode(bundle: &Bundle) -> Files {
    let mut body = Vec::new();
    put_description(bundle, &mut body);
    let weights = encode_numbers(bundle);
    Files { plan: with_header(CODED, &body, &weights), weights }
}

/// Encodes `plan.bin` for a `weights.bin` with the packed weights that `table` describes.
pub(super) fn encode_packed(bundle: &Bundle, table: &Table) -> Vec<u8> {
    let mut body = Vec::new();
    put_description(bundle, &mut body);
    put_serialized(table, &mut body);
    with_header(PACKED, &body, &[])
}

/// Encodes the values of all weights.
pub(super) fn encode_numbers(bundle: &Bundle) -> Vec<u8> {
    let mut numbers = Vec::new();
    for weights in &bundle.plan.weights {
        put_weights(weights, &mut numbers);
    }
    numbers
}

/// Appends the description and the values of the constants.
fn put_description(bundle: &Bundle, out: &mut Vec<u8>) {
    put_serialized(&describe(bundle), out);
    for constant in &bundle.plan.constants {
        put_f32(constant, out);
    }
}

fn describe(bundle: &Bundle) -> Description {
    let Bundle { plan, preprocessing, configuration } = bundle;
    Description {
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
        constants: plan.constants.iter().map(|constant| constant.len()).collect(),
        threads: plan.threads,
        backend: plan.backend.clone(),
        switches: plan.switches.clone(),
        preprocessing: preprocessing.clone(),
        configuration: configuration.clone(),
    }
}

fn put_serialized(what: &impl Serialize, out: &mut Vec<u8>) {
    // Plain data of known lengths: serializing it into memory cannot fail.
    let bytes = postcard::to_stdvec(what).unwrap_or_default();
    put_number(bytes.len(), out);
    stream::put(&bytes, out);
}

fn with_header(form: u16, body: &[u8], numbers: &[u8]) -> Vec<u8> {
    let mut file = Vec::with_capacity(HEADER + body.len());
    file.extend_from_slice(MAGIC);
    file.extend_from_slice(&VERSION.to_le_bytes());
    file.extend_from_slice(&form.to_le_bytes());
    file.extend_from_slice(checksum(body, numbers).as_bytes());
    file.extend_from_slice(body);
    file
}

/// Returns whether the checksum in `plan.bin` also covers `weights.bin`, which then has coded
/// weights alone.
///
/// # Errors
/// Fails if the file is not the plan of a bundle, or has another version.
pub(super) fn covers_numbers(file: &[u8]) -> Result<bool, String> {
    let mut reader = Reader::new(file);
    if reader.take(8).ok() != Some(MAGIC) {
        return Err("plan.bin is not the plan of a bundle".into());
    }
    let mut number = || match reader.take(2) {
        Ok(bytes) => Ok(u16::from(bytes[1]) << 8 | u16::from(bytes[0])),
        Err(_) => Err("plan.bin ends too early"),
    };
    let (version, form) = (number()?, number()?);
    match form {
        _ if version != VERSION => Err(format!(
            "has format version {version}, and this program reads version {VERSION}: export the \
             point again \
                 (`paretune export`)"
        )),
        CODED => Ok(true),
        PACKED => Ok(false),
        form => Err(format!("is of an unknown form {form}")),
    }
}

/// Reads `plan.bin`. `numbers` holds `weights.bin` if the checksum [covers](covers_numbers) it, and
/// `weights` is the length of that file in bytes in any case.
///
/// # Errors
/// Fails if a file is damaged.
pub(super) fn decode(
    file: &[u8],
    numbers: Option<&[u8]>,
    weights: u64,
) -> Result<Contents, String> {
    let expected = file.get(HEADER - 32..HEADER).ok_or("plan.bin ends too early")?;
    if checksum(&file[HEADER..], numbers.unwrap_or_default()).as_bytes() != expected {
        return Err("is damaged: its checksum does not match".into());
    }
    // A matching checksum only excludes accidents: sizes are still not trusted.
    let budget = budget(file.len() as u64, weights);
    let most = DESCRIPTION_ALLOWANCE + file.len().saturating_mul(DESCRIPTION_EXPANSION);
    let mut reader = Reader::new(&file[HEADER..]);
    let description: Description = get_serialized(&mut reader, most)?;
    description.check_entries()?;
    afford(&description, budget)?;
    let constants = description.constants.iter().map(|&len| get_f32(&mut reader, len));
    let constants: Vec<Arc<[f32]>> = constants
        .collect::<Result<_, String>>()
        .map_err(|problem| format!("plan.bin {problem}"))?;
    let table = match numbers {
        Some(_) => None,
        None => Some(get_serialized::<Table>(&mut reader, most)?),
    };
    if reader.left() > 0 {
        return Err("plan.bin has bytes beyond its end".into());
    }
    if let Some(table) = &table {
        table.check(weights)?;
    }
    let Description { name, values, input, output, steps, threads, backend, switches, .. } =
        description;
    let weights = description.weights.iter().map(StoredWeights::hollow).collect();
    Ok(Contents {
        bundle: Bundle {
            plan: Plan {
                name,
                values,
                input,
                output,
                steps,
                weights,
                constants,
                threads,
                backend,
                switches,
            },
            preprocessing: description.preprocessing,
            configuration: description.configuration,
        },
        weights: description.weights,
        table,
    })
}

/// Returns how many bytes files of these sizes may decode to.
fn budget(plan: u64, weights: u64) -> usize {
    let bytes = usize::try_from(plan.saturating_add(weights)).unwrap_or(usize::MAX);
    ALLOWANCE.saturating_add(bytes.saturating_mul(EXPANSION))
}

fn get_serialized<T: for<'a> Deserialize<'a>>(
    reader: &mut Reader<'_>,
    budget: usize,
) -> Result<T, String> {
    let in_plan = |problem: String| format!("plan.bin {problem}");
    let len = reader.number().map_err(in_plan)?;
    if len > budget {
        return Err("plan.bin promises more than it can hold".into());
    }
    let bytes = stream::get(reader, len).map_err(in_plan)?;
    let (what, rest) = postcard::take_from_bytes::<T>(&bytes)
        .map_err(|error| format!("plan.bin cannot be understood: {error}"))?;
    if rest.is_empty() { Ok(what) } else { Err("plan.bin has bytes beyond its end".into()) }
}

/// Checks that the budget of decoded bytes suffices for all constants, values, scales and biases.
fn afford(description: &Description, mut budget: usize) -> Result<(), String> {
    for (index, len) in description.constants.iter().enumerate() {
        budget = budget
            .checked_sub(len.saturating_mul(4))
            .ok_or_else(|| format!("plan.bin is smaller than its constants (constant {index})"))?;
    }
    for (index, stored) in description.weights.iter().enumerate() {
        let here = |problem: String| format!("weights.bin {problem} (weights {index})");
        let len = shape::checked_len(&stored.dims, 1).map_err(here)?;
        let bytes = match stored.format.numbers {
            Numbers::Integer(_) => len,
            Numbers::F32 | Numbers::Bf16 | Numbers::Fp16 => len.saturating_mul(4),
        };
        let cost = bytes.saturating_add(stored.dims[0].saturating_mul(8));
        budget =
            budget.checked_sub(cost).ok_or_else(|| here("is smaller than its tensors".into()))?;
    }
    Ok(())
}

impl Description {
    /// Checks that no list is longer than that of any network.
    fn check_entries(&self) -> Result<(), String> {
        let lists = [
            ("values", self.values.len()),
            ("steps", self.steps.len()),
            ("weights", self.weights.len()),
            ("constants", self.constants.len()),
            ("switches", self.switches.len()),
        ];
        match lists.into_iter().find(|(_, len)| *len > MAX_ENTRIES) {
            Some((name, len)) => {
                Err(format!("plan.bin lists {len} {name}, too many for a network"))
            }
            None => Ok(()),
        }
    }
}

impl StoredWeights {
    /// Returns the weights without their values.
    fn hollow(&self) -> Weights {
        let values = WeightValues::none(self.format.numbers);
        Weights { dims: self.dims, values, pattern: self.format.pattern, bias: None }
    }
}

/// Appends one tensor: values, scales, bias.
pub(super) fn put_weights(weights: &Weights, out: &mut Vec<u8>) {
    let blocks = Blocks::of(weights.pattern, weights.dims);
    match &weights.values {
        // The byte planes that bfloat16 leaves zero take almost no bytes.
        WeightValues::F32(values) | WeightValues::Bf16(values) => match blocks {
            // Compared by bits, so that negative zeros are kept.
            Some(blocks) => put_f32(&blocks.put(values, |x| x.to_bits() == 0, out), out),
            None => put_f32(values, out),
        },
        WeightValues::Fp16(values) => match blocks {
            Some(blocks) => put_fp16(&blocks.put(values, |x| x.to_bits() == 0, out), out),
            None => put_fp16(values, out),
        },
        WeightValues::Integer(integer) => {
            match blocks {
                Some(blocks) => put_i8(&blocks.put(&integer.values, |x| x == 0, out), out),
                None => put_i8(&integer.values, out),
            }
            put_f32(&integer.scales, out);
        }
    }
    if let Some(bias) = &weights.bias {
        put_f32(bias, out);
    }
}

/// Reads the output of [`encode_numbers`], for weights whose sizes [`decode`] has checked.
///
/// # Errors
/// Fails if the data is damaged.
pub(super) fn decode_numbers(
    stored: &[StoredWeights],
    numbers: &[u8],
) -> Result<Vec<Weights>, String> {
    let mut reader = Reader::new(numbers);
    let mut all = Vec::new();
    for (index, stored) in stored.iter().enumerate() {
        let here = |problem: String| format!("weights.bin {problem} (weights {index})");
        let len = shape::checked_len(&stored.dims, 1).map_err(here)?;
        all.push(get_weights(stored, &mut reader, len).map_err(here)?);
    }
    if reader.left() > 0 {
        return Err("weights.bin has bytes beyond its end".into());
    }
    Ok(all)
}

/// Reads values with `get` and scatters them to `places`, with zeros elsewhere. Without `places`,
/// all values are read in order.
fn spread<T: Copy + Default>(
    places: Option<&[usize]>,
    len: usize,
    get: impl FnOnce(usize) -> Result<Arc<[T]>, String>,
) -> Result<Arc<[T]>, String> {
    let Some(places) = places else { return get(len) };
    let mut values = vec![T::default(); len];
    for (place, value) in places.iter().zip(get(places.len())?.iter()) {
        values[*place] = *value;
    }
    Ok(values.into())
}

fn get_weights(
    stored: &StoredWeights,
    reader: &mut Reader<'_>,
    len: usize,
) -> Result<Weights, String> {
    let outputs = stored.dims[0];
    let places = match Blocks::of(stored.format.pattern, stored.dims) {
        Some(blocks) => Some(blocks.get(reader)?),
        None => None,
    };
    let values = match stored.format.numbers {
        Numbers::F32 => {
            WeightValues::F32(spread(places.as_deref(), len, |len| get_f32(reader, len))?)
        }
        Numbers::Bf16 => {
            WeightValues::Bf16(spread(places.as_deref(), len, |len| get_f32(reader, len))?)
        }
        Numbers::Fp16 => {
            WeightValues::Fp16(spread(places.as_deref(), len, |len| get_fp16(reader, len))?)
        }
        Numbers::Integer(grid) => {
            let values = spread(places.as_deref(), len, |len| get_i8(reader, len))?;
            WeightValues::Integer(IntegerWeights {
                values,
                scales: get_f32(reader, outputs)?,
                grid,
            })
        }
    };
    let bias = if stored.bias { Some(get_f32(reader, outputs)?) } else { None };
    Ok(Weights { dims: stored.dims, values, pattern: stored.format.pattern, bias })
}

fn checksum(body: &[u8], numbers: &[u8]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    // The length comes first, so that bytes moved from one file to the other are detected.
    hasher.update(&(body.len() as u64).to_le_bytes()).update(body).update(numbers);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;
    use paretune_base::plan::weights::{Grid, Pattern};

    fn bytes(weights: &Weights) -> f64 {
        let mut out = Vec::new();
        put_weights(weights, &mut out);
        let stored = StoredWeights {
            dims: weights.dims,
            format: weights.format(),
            bias: weights.bias.is_some(),
        };
        let mut reader = Reader::new(&out);
        let back = get_weights(&stored, &mut reader, weights.values.len()).unwrap();
        assert_eq!(&back, weights);
        assert_eq!(reader.left(), 0);
        out.len() as f64
    }

    /// Returns a reproducible pseudorandom number in `0..bound`.
    fn random(seed: &mut u64, bound: u64) -> u64 {
        *seed =
            seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*seed >> 33) % bound
    }

    #[test]
    fn half_precision_takes_two_bytes_at_most_and_comes_back() {
        let dims = [16, 32, 3, 3];
        let len: usize = dims.iter().product();
        let mut seed = 3;
        for pattern in
            [Pattern::Dense, Pattern::Unstructured, Pattern::Blocks { outputs: 8, inputs: 4 }]
        {
            // Random bits of finite numbers, which no coder can compress.
            let half = |seed: &mut u64| loop {
                let number = paretune_simd::half::fp16_number(random(seed, 1 << 16) as u16);
                if number.is_finite() {
                    break number;
                }
            };
            let values: Arc<[f32]> = (0..len).map(|_| half(&mut seed)).collect();
            let values = WeightValues::F32(values).rounded(Numbers::Fp16).unwrap();
            let size = bytes(&Weights { dims, values, pattern, bias: None });
            assert!(size < 2.0 * len as f64 * 1.03, "{pattern}: {size}");
        }
    }

    /// Checks that the encoded size exceeds the information in values, positions and scales by at
    /// most 3 %, with frequencies of values as the only model.
    #[test]
    fn nothing_is_stored_but_the_information() {
        let dims = [64, 128, 3, 3];
        let len: usize = dims.iter().product();
        let mut seed = 1;
        let scales: Arc<[f32]> = (0..64).map(|i| 0.01 + i as f32 * 1e-5).collect();
        for grid in Grid::ALL {
            let (low, high) = grid.levels();
            let levels = (i64::from(high) - i64::from(low) + 1) as u64;
            for (pattern, tenths) in [
                (Pattern::Dense, 0),
                (Pattern::Unstructured, 7),
                (Pattern::Blocks { outputs: 8, inputs: 4 }, 6),
                (Pattern::Blocks { outputs: 5, inputs: 3 }, 9),
            ] {
                let mut values = vec![0_i8; len];
                let mut zero = std::collections::HashMap::new();
                for (i, value) in values.iter_mut().enumerate() {
                    let (channel, tap) = (i / 9, i % 9);
                    let block = match pattern {
                        Pattern::Blocks { outputs, inputs } => [
                            channel / 128 / usize::from(outputs),
                            channel % 128 / usize::from(inputs),
                            tap,
                        ],
                        _ => [channel, 0, tap],
                    };
                    if *zero.entry(block).or_insert_with(|| random(&mut seed, 10) < tenths) {
                        continue;
                    }
                    *value = (random(&mut seed, levels) as i64 + i64::from(low)) as i8;
                }
                let share = |count: usize| count as f64 / len as f64;
                let kept = zero.values().filter(|zero| !**zero).count() as f64 / zero.len() as f64;
                let entropy = |p: f64| if p <= 0.0 || p >= 1.0 { 0.0 } else { -p * p.log2() };
                // Entropy of the block positions, and of the values within blocks.
                let bits = match pattern {
                    Pattern::Blocks { .. } => {
                        zero.len() as f64 + kept * len as f64 * (levels as f64).log2()
                    }
                    _ => {
                        let count = |level: i8| values.iter().filter(|x| **x == level).count();
                        (low..=high).map(|level| entropy(share(count(level)))).sum::<f64>()
                            * len as f64
                    }
                };
                let weights = Weights {
                    dims,
                    values: WeightValues::Integer(IntegerWeights {
                        values: values.into(),
                        scales: scales.clone(),
                        grid,
                    }),
                    pattern,
                    bias: None,
                };
                let information = bits / 8.0 + 64.0 * 4.0;
                let got = bytes(&weights);
                // The table of frequencies adds to that; it matters for short streams with few
                // levels.
                assert!(
                    got <= 1.03 * information + 2.0 * levels as f64,
                    "{grid:?} {pattern}: {got} of {information}"
                );
            }
        }
    }

    /// Returns a bundle of a network without steps.
    fn empty() -> Bundle {
        let value = ValueSpec { dims: vec![3], quantization: None };
        Bundle {
            plan: Plan { values: vec![value], threads: 1, ..Plan::default() },
            preprocessing: Preprocessing::default(),
            configuration: String::new(),
        }
    }

    /// Decodes the files that `encode` makes of `bundle`.
    fn back(bundle: &Bundle) -> Result<Contents, String> {
        let files = encode(bundle);
        decode(&files.plan, Some(&files.weights), files.weights.len() as u64)
    }

    fn problem(bundle: &Bundle) -> String {
        back(bundle).err().expect("a bomb is refused")
    }

    #[test]
    fn constants_come_back_after_the_description() {
        let mut bundle = empty();
        bundle.plan.constants = vec![[1.0, -0.0, 2.5].into(), [0.0; 300].into(), [].into()];
        let contents = back(&bundle).unwrap();
        assert_eq!(contents.bundle.plan, bundle.plan);
    }

    #[test]
    fn small_files_that_become_large_are_refused_before_memory_is_asked_for() {
        let mut bundle = empty();
        bundle.plan.constants = vec![vec![0.0; 1 << 23].into()];
        assert!(problem(&bundle).contains("smaller than its constants"), "{}", problem(&bundle));
        let mut bundle = empty();
        let nothing = ValueSpec { dims: Vec::new(), quantization: None };
        bundle.plan.values = vec![nothing.clone(); 1 << 20];
        assert!(problem(&bundle).contains("more than it can hold"), "{}", problem(&bundle));
        bundle.plan.values = vec![nothing; MAX_ENTRIES + 1];
        assert!(problem(&bundle).contains("too many for a network"), "{}", problem(&bundle));
        let mut bundle = empty();
        let values: Arc<[f32]> = vec![0.0; 1 << 24].into();
        bundle.plan.weights = vec![Weights::dense([1 << 12, 1 << 12, 1, 1], values, None)];
        assert!(problem(&bundle).contains("smaller than its tensors"), "{}", problem(&bundle));
    }

    #[test]
    fn blocks_of_single_precision_cost_a_bit_each() {
        let dims = [32, 64, 3, 3];
        let len: usize = dims.iter().product();
        let mut seed = 7;
        let zero: Vec<bool> = (0..2 * 64 * 9).map(|_| random(&mut seed, 4) < 3).collect();
        let value = |i: usize| {
            let block = (i / 9 / 64 / 16 * 64 + i / 9 % 64) * 9 + i % 9;
            if zero[block] { 0.0 } else { (i as f32).sin() }
        };
        let values: Arc<[f32]> = (0..len).map(value).collect();
        let kept = values.iter().filter(|x| **x != 0.0).count() as f64;
        let pattern = Pattern::Blocks { outputs: 16, inputs: 1 };
        let got = bytes(&Weights { dims, values: WeightValues::F32(values), pattern, bias: None });
        assert!(got <= 1.03 * (4.0 * kept + zero.len() as f64 / 8.0), "{got}");
    }
}
