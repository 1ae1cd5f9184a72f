//! Time by weight format and sparsity, per layer, and the sparsity from which on a format pays.

use std::time::{Duration, Instant};

use paretune_kernels::conv::{Algorithm, candidates};
use paretune_kernels::hardware::Isa;
use paretune_kernels::operator::ConvProblem;
use paretune_kernels::schedule::Schedule;
use paretune_kernels::weights::{Grid, Numbers, Pattern, WeightFormat};

use super::surroundings::Surroundings;
use super::{Bed, default_schedule, layers, weights};

const SPARSITIES: [f64; 6] = [0.0, 0.5, 0.7, 0.8, 0.9, 0.95];
/// Sparsity at which schedules are tuned.
const TUNED_AT: f64 = 0.8;
/// Number of best schedules that are timed at every sparsity.
const FINALISTS: usize = 3;
/// Time spent on trying one schedule, and on timing one row of the table.
const TRY: Duration = Duration::from_millis(3);
const ROW: Duration = Duration::from_millis(200);

const fn blocks(numbers: Numbers, outputs: u8, inputs: u8) -> WeightFormat {
    WeightFormat { numbers, pattern: Pattern::Blocks { outputs, inputs } }
}

const I8: Numbers = Numbers::Integer(Grid::Bits8);

/// Weight formats that can have zeros.
const SPARSE: [(&str, WeightFormat); 6] = [
    ("unstructured", WeightFormat::SPARSE_F32),
    ("blocks 4x1", blocks(Numbers::F32, 4, 1)),
    ("blocks 8x1", blocks(Numbers::F32, 8, 1)),
    ("blocks 16x1", blocks(Numbers::F32, 16, 1)),
    ("int8, blocks 8x4", blocks(I8, 8, 4)),
    ("int8, blocks 16x4", blocks(I8, 16, 4)),
];

/// Machine state in which layers are timed.
struct Stand {
    surroundings: Surroundings,
    isa: Isa,
}

/// Prints the tables of the layers whose names contain all `filters`.
pub fn table(filters: &[&String], isa: Isa, in_network: bool) {
    println!(
        "{isa:?}, single thread, batch 1; microseconds, fastest of many runs, interleaved per row"
    );
    if in_network {
        println!(
            "between two runs, the other weights of the layer's network pass through the caches"
        );
    }
    println!();
    println!(
        "| layer | format | best dense | 0 % | 50 % | 70 % | 80 % | 90 % | 95 % | breaks even at |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    let mut bits = Vec::new();
    for (networks, problem) in layers::all() {
        let name = layers::name(&problem);
        let label = format!("{networks} {name}");
        if problem.is_depthwise() || !filters.iter().all(|filter| label.contains(filter.as_str())) {
            continue;
        }
        let surroundings =
            if in_network { Surroundings::of(networks) } else { Surroundings::none() };
        let stand = &Stand { surroundings, isa };
        let dense = [WeightFormat::F32, WeightFormat::I8]
            .map(|format| tuned(&problem, format, 0.0, stand, 1));
        for (title, format) in SPARSE {
            let control = &dense[usize::from(format.numbers.is_integer())];
            let schedules = tuned(&problem, format, TUNED_AT, stand, FINALISTS);
            let (Some(control), false) = (control.first(), schedules.is_empty()) else { continue };
            row(&problem, &name, title, format, control, &schedules, stand);
        }
        bits.push((name, by_bits(&problem, &dense, stand)));
    }
    println!();
    println!("| layer | 32 bits | bf16 | fp16 | 8 | 4 | 2 | ternary |");
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    for (name, times) in bits {
        println!("| {name} | {} |", times.map(micros).join(" | "));
    }
}

type Choice = (&'static dyn Algorithm, Schedule);

/// Weight types of the table by bits. Weights of 16 bits are timed only with algorithms made for
/// them: a single-precision algorithm takes the same time for all real weights.
const BY_BITS: [Numbers; 7] = [
    Numbers::F32,
    Numbers::Bf16,
    Numbers::Fp16,
    I8,
    Numbers::Integer(Grid::Bits4),
    Numbers::Integer(Grid::Bits2),
    Numbers::Integer(Grid::Ternary),
];

/// Returns the dense time by weight type; infinite if no algorithm is made for it. `known` holds
/// the best schedules of 32 and 8 bits.
fn by_bits(problem: &ConvProblem, known: &[Vec<Choice>; 2], stand: &Stand) -> [f64; BY_BITS.len()] {
    let mut beds = BY_BITS.map(|numbers| {
        let format = WeightFormat { numbers, pattern: Pattern::Dense };
        let choices = match numbers {
            Numbers::F32 => known[0].clone(),
            I8 => known[1].clone(),
            _ => tuned(problem, format, 0.0, stand, 1),
        };
        choices.first().and_then(|choice| bed(problem, format, 0.0, choice, stand.isa))
    });
    let mut times = [f64::INFINITY; BY_BITS.len()];
    let begin = Instant::now();
    while begin.elapsed() < ROW {
        for ((time, bed), numbers) in times.iter_mut().zip(&mut beds).zip(BY_BITS) {
            let Some(bed) = bed else { continue };
            let format = WeightFormat { numbers, pattern: Pattern::Dense };
            *time = time.min(stand.run(problem, format, bed));
        }
    }
    times
}

impl Stand {
    /// Returns the seconds of the faster of two runs. If nothing runs in between, the first brings
    /// the weights into the caches.
    fn run(&self, problem: &ConvProblem, format: WeightFormat, bed: &mut Bed) -> f64 {
        let mut once = || self.surroundings.run(problem, format, bed);
        once().min(once())
    }
}

fn bed(
    problem: &ConvProblem,
    format: WeightFormat,
    sparsity: f64,
    choice: &Choice,
    isa: Isa,
) -> Option<Bed> {
    let weights = weights(problem, format, sparsity);
    Bed::new(problem, &weights, choice.0, &choice.1, isa).ok()
}

/// Returns the `most` best schedules, best first, found by coordinate descent over the tunables.
/// Sparse weights are timed only with algorithms that need zeros, and weights of 16 bits only with
/// algorithms made for them.
fn tuned(
    problem: &ConvProblem,
    format: WeightFormat,
    sparsity: f64,
    stand: &Stand,
    most: usize,
) -> Vec<Choice> {
    let dense = WeightFormat { pattern: Pattern::Dense, ..format };
    let weights = weights(problem, format, sparsity);
    let mut found: Vec<(f64, Choice)> = Vec::new();
    let isa = stand.isa;
    for algorithm in candidates(problem, format, isa) {
        if format.pattern != Pattern::Dense && algorithm.executes(dense) {
            continue;
        }
        if format.numbers.half().is_some() && algorithm.executes(WeightFormat::F32) {
            continue;
        }
        let tunables = algorithm.tunables(problem, isa);
        let default = default_schedule(algorithm.name(), &tunables);
        let time = |schedule: &Schedule| {
            Bed::new(problem, &weights, algorithm, schedule, isa)
                .map_or(f64::INFINITY, |mut bed| {
                    stand.surroundings.best(problem, format, &mut bed, TRY)
                })
        };
        let mut best = (time(&default), default);
        found.push((best.0, (algorithm, best.1.clone())));
        for tunable in &tunables {
            let from = best.1.clone();
            for value in tunable.values() {
                let mut schedule = from.clone();
                // A single thread has no work to partition.
                if tunable.name == "parallel_axis"
                    || schedule.tunables.insert(tunable.name.to_owned(), value) == Some(value)
                {
                    continue;
                }
                let seconds = time(&schedule);
                found.push((seconds, (algorithm, schedule.clone())));
                if seconds < best.0 {
                    best = (seconds, schedule);
                }
            }
        }
    }
    found.sort_by(|left, right| left.0.total_cmp(&right.0));
    found
        .into_iter()
        .filter(|(seconds, _)| seconds.is_finite())
        .take(most)
        .map(|(_, choice)| choice)
        .collect()
}

fn row(
    problem: &ConvProblem,
    name: &str,
    title: &str,
    format: WeightFormat,
    control: &Choice,
    schedules: &[Choice],
    stand: &Stand,
) {
    let isa = stand.isa;
    let dense = WeightFormat { pattern: Pattern::Dense, ..format };
    let Some(mut control) = bed(problem, dense, 0.0, control, isa) else { return };
    let mut best = f64::INFINITY;
    let mut beds: Vec<(usize, Bed)> = SPARSITIES
        .iter()
        .enumerate()
        .flat_map(|(index, sparsity)| {
            let weights = weights(problem, format, *sparsity);
            schedules.iter().filter_map(move |(algorithm, schedule)| {
                Some((index, Bed::new(problem, &weights, *algorithm, schedule, isa).ok()?))
            })
        })
        .collect();
    let mut times = [f64::INFINITY; SPARSITIES.len()];
    let begin = Instant::now();
    let mut rounds = 0;
    while rounds < 5 || begin.elapsed() < ROW {
        rounds += 1;
        best = best.min(stand.run(problem, dense, &mut control));
        for (index, bed) in &mut beds {
            times[*index] = times[*index].min(stand.run(problem, format, bed));
        }
    }
    let cells = times.map(micros).join(" | ");
    println!("| {name} | {title} | {} | {cells} | {} |", micros(best), break_even(best, &times));
}

fn micros(seconds: f64) -> String {
    let micros = seconds * 1e6;
    if micros.is_infinite() {
        return "-".into();
    }
    if micros < 100.0 { format!("{micros:.1}") } else { format!("{micros:.0}") }
}

/// Returns the sparsity at which the interpolated times fall to the time of `control`.
fn break_even(control: f64, times: &[f64]) -> String {
    if times.first().is_some_and(|first| *first <= control) {
        return "0 %".into();
    }
    let pairs = SPARSITIES.windows(2).zip(times.windows(2));
    for (sparsities, times) in pairs {
        if times[1] <= control {
            let share = (times[0] - control) / (times[0] - times[1]);
            let at = sparsities[0] + share * (sparsities[1] - sparsities[0]);
            return format!("{:.0} %", 100.0 * at);
        }
    }
    "never".into()
}
