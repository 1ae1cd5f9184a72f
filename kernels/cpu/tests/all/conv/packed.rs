//! Packed weights of every algorithm in every format are found again, and no content of a file
//! makes a kernel leave its memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use paretune_base::error::KernelError;
use paretune_base::memory::mapping::Mapping;
use paretune_base::plan::Quantization;
use paretune_base::plan::activation::Activation;
use paretune_base::plan::layout::Element;
use paretune_base::plan::operator::{ConvProblem, Window};
use paretune_base::plan::schedule::Schedule;
use paretune_base::plan::weights::{WeightFormat, WeightValues, Weights};
use paretune_cpu::conv::support::packing::{PackedLayer, REVISION, Section};
use paretune_cpu::conv::{Algorithm, Kernel, Packing, Request, baselines, candidates};
use paretune_simd::Isa;

use super::cases::{FORMATS, Random, keep, zero_weights};
use super::memory::{Guarded, run_kernel};

/// Returns `weights` without their values.
fn hollow(weights: &Weights) -> Weights {
    let values = WeightValues::none(weights.format().numbers);
    Weights { dims: weights.dims, values, pattern: weights.pattern, bias: None }
}

/// Returns the packed data of `request` as a file holds it.
fn record(algorithm: &dyn Algorithm, request: &Request<'_>) -> (Vec<PackedLayer>, Vec<u8>) {
    let packing = Packing::recording();
    let request = Request { packing: &packing, ..*request };
    packing.begin(request.key()).unwrap();
    algorithm.prepare(&request).unwrap();
    let recording = packing.recorded();
    (recording.layers, recording.bytes)
}

/// Prepares a kernel from the packed data of a file; `None` if the data belongs to something else.
fn find(
    algorithm: &dyn Algorithm,
    request: &Request<'_>,
    layers: &[PackedLayer],
    bytes: &[u8],
) -> Option<Box<dyn Kernel>> {
    let packing = Packing::found(Arc::new(Mapping::of_bytes(bytes)), layers.into());
    let weights = hollow(request.weights);
    let request = Request { packing: &packing, weights: &weights, ..*request };
    let kernel = packing.begin(request.key()).and_then(|()| algorithm.prepare(&request));
    let kernel = kernel.and_then(|kernel| packing.end().map(|()| kernel));
    assert_eq!(packing.made(), 0, "{} makes what it could find", algorithm.name());
    match kernel {
        Ok(kernel) => {
            assert!(packing.mapped_bytes() <= bytes.len());
            Some(kernel)
        }
        Err(KernelError::Packed(_)) => None,
        Err(error) => panic!("{}: {error}", algorithm.name()),
    }
}

/// Compares a kernel that finds its weights with the `output` of one that packed them, and lets it
/// find corrupt ones.
pub(crate) fn check(
    algorithm: &dyn Algorithm,
    request: &Request<'_>,
    input: &mut Guarded,
    mut residual: Option<&mut Guarded>,
    output: &Guarded,
    random: &mut Random,
) {
    // A fraction of the cases is enough.
    if random.below(4) > 0 {
        return;
    }
    let (layers, bytes) = record(algorithm, request);
    let threads = request.threads;
    let kernel =
        find(algorithm, request, &layers, &bytes).expect("what was packed for this request");
    let made = algorithm.prepare(request).unwrap();
    assert_eq!(kernel.weight_bytes(), made.weight_bytes(), "{}", algorithm.name());
    let found = run_kernel(kernel, threads, input, residual.as_deref_mut(), output.len);
    assert!(found.contents() == output.contents(), "{}: found weights change it", algorithm.name());

    // Other numbers of threads and batch sizes are served as well, another activation is not.
    let other = Request { threads: threads + 1, ..*request };
    assert!(find(algorithm, &other, &layers, &bytes).is_some());
    let other = Request { activation: Activation::LeakyRelu { slope: 0.75 }, ..*request };
    assert!(find(algorithm, &other, &layers, &bytes).is_none());

    // Corrupt bytes, element types and lengths: refused, or the kernel stays within its memory.
    let (mut layers, mut bytes) = (layers, bytes);
    for _ in 0..1 + random.below(8) {
        let at = random.below(bytes.len());
        bytes[at] = random.next() as u8;
    }
    if random.below(3) == 0 {
        let sections = &mut layers[0].sections;
        let at = random.below(sections.len());
        match random.below(3) {
            0 => sections[at].kind = random.below(8) as u8,
            1 => sections[at].len = random.below(2 * sections[at].len + 2),
            _ => drop(sections.remove(at)),
        }
    }
    if let Some(kernel) = find(algorithm, request, &layers, &bytes) {
        run_kernel(kernel, threads, input, residual, output.len);
    }
}

/// Calls `see` with requests of each algorithm, for the instruction sets of this machine.
fn each(mut see: impl FnMut(&dyn Algorithm, &Request<'_>)) {
    let window = Window { kernel: [3, 3], stride: [1, 1], dilation: [1, 1], padding: [1; 4] };
    let dense = ConvProblem {
        batch: 1,
        in_channels: 8,
        out_channels: 20,
        groups: 1,
        input: [5, 5],
        window,
    };
    let depthwise = ConvProblem { out_channels: 8, groups: 8, ..dense };
    for (problem, format) in
        [dense, depthwise].into_iter().flat_map(|problem| FORMATS.map(|f| (problem, f)))
    {
        let mut random = Random(7);
        let mut weights = zero_weights(&problem, format);
        let count = weights.values.len();
        let dims = weights.dims;
        let kept = keep(&mut random, dims, format.pattern);
        let mut number = |at: usize| if kept[at] { random.below(3) as i8 - 1 } else { 0 };
        match &mut weights.values {
            WeightValues::F32(values) | WeightValues::Bf16(values) | WeightValues::Fp16(values) => {
                *values = (0..count).map(|at| f32::from(number(at))).collect();
            }
            WeightValues::Integer(integer) => integer.values = (0..count).map(number).collect(),
        }
        weights.bias = Some((0..problem.out_channels).map(|channel| channel as f32).collect());
        for isa in Isa::available() {
            let plain = baselines().iter().copied().filter(|algorithm| algorithm.executes(format));
            for algorithm in candidates(&problem, format, isa).into_iter().chain(plain) {
                let mut schedule = Schedule::of(algorithm.name());
                for tunable in algorithm.tunables(&problem, isa) {
                    let values = tunable.values_beside(&schedule.tunables);
                    schedule.tunables.insert(tunable.name.to_owned(), values[values.len() / 2]);
                }
                let grid = Quantization { scale: 0.5, zero_point: 3 };
                let element = if algorithm.is_integer() { Element::U8(grid) } else { Element::F32 };
                see(
                    algorithm,
                    &Request {
                        problem,
                        weights: &weights,
                        activation: Activation::Relu,
                        input: element,
                        output: element,
                        residual: None,
                        schedule: &schedule,
                        threads: 1,
                        isa,
                        packing: &Packing::fresh(),
                    },
                );
            }
        }
    }
}

/// A change of the packed data makes old files wrong: this test then fails until [`REVISION`] is
/// increased.
#[test]
fn what_is_packed_changes_with_the_revision_only() {
    let mut hashers = BTreeMap::<(&str, &str), blake3::Hasher>::new();
    each(|algorithm, request| {
        // Single-precision algorithms also execute half-precision values; the single-precision
        // request covers them.
        if request.weights.format() == WeightFormat::FP16 && algorithm.executes(WeightFormat::F32) {
            return;
        }
        let (layers, bytes) = record(algorithm, request);
        let hasher = hashers.entry((request.isa.name(), algorithm.name())).or_default();
        hasher.update(format!("{:?}", layers[0].sections).as_bytes()).update(&bytes);
    });
    // The file has the revision, then a line for each instruction set and algorithm; not every
    // instruction set was available when it was written.
    let known = include_str!("packed.txt");
    let of_isa = |isa: &str| known.lines().any(|line| line.split(' ').next() == Some(isa));
    let mut lines = vec![format!("revision {REVISION}")];
    for ((isa, algorithm), hasher) in hashers.iter().filter(|((isa, _), _)| of_isa(isa)) {
        lines.push(format!("{isa} {algorithm} {}", &hasher.finalize().to_hex()[..16]));
    }
    assert!(lines.len() > 10, "{lines:?}");
    let missing: Vec<&String> =
        lines.iter().filter(|line| known.lines().all(|known| known != **line)).collect();
    assert!(
        missing.is_empty(),
        "Give REVISION a new value if a line of packed.txt has changed, and the file these lines: \
         {missing:#?}"
    );
}

/// Tables are checked to their last element.
#[test]
fn places_beyond_the_problem_are_refused() {
    let mut tables = 0;
    each(|algorithm, request| {
        let (layers, bytes) = record(algorithm, request);
        let mut at = 0;
        for Section { kind, len } in &layers[0].sections {
            let width = match kind {
                4 => 2,
                6 => 4,
                _ => 0,
            };
            let section = at;
            at += Section { kind: *kind, len: *len }.bytes().unwrap();
            if width == 0 {
                continue;
            }
            for number in [0, len.saturating_sub(1)].into_iter().filter(|number| number < len) {
                let mut bytes = bytes.clone();
                bytes[section + number * width..][..width].fill(0xFF);
                assert!(
                    find(algorithm, request, &layers, &bytes).is_none(),
                    "{}",
                    algorithm.name()
                );
                tables += 1;
            }
        }
    });
    assert!(tables > 40, "{tables}");
}
