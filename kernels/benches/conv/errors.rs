//! Errors of single precision relative to double precision, per layer and algorithm; Winograd by
//! output tile.

use paretune_kernels::conv::reference::conv_f64;
use paretune_kernels::conv::{Algorithm, candidates};
use paretune_kernels::hardware::Isa;
use paretune_kernels::operator::ConvProblem;
use paretune_kernels::plan::layout::Layout;
use paretune_kernels::schedule::Schedule;
use paretune_kernels::weights::{WeightFormat, WeightValues};

use super::{Bed, default_schedule, layers, noise, weights};

/// Name of the tunable that changes the numerics and not only the order of computation.
const SIZE: &str = "output_tile";

/// Prints the table of the layers whose names contain all `filters`.
pub fn table(filters: &[&String], isa: Isa) {
    println!(
        "{isa:?}, inputs like those behind a ReLU, batch 1; by the largest output, in units of 1e-6"
    );
    println!();
    println!("| layer | algorithm | largest error | root of the mean square |");
    println!("| --- | --- | --- | --- |");
    for (networks, problem) in layers::all() {
        let name = layers::name(&problem);
        if !filters.iter().all(|filter| format!("{networks} {name}").contains(filter.as_str())) {
            continue;
        }
        let input = activations(&problem);
        let exact = exact(&problem, &input);
        for algorithm in candidates(&problem, WeightFormat::F32, isa) {
            let tunables = algorithm.tunables(&problem, isa);
            let default = default_schedule(algorithm.name(), &tunables);
            let sizes = tunables.iter().find(|tunable| tunable.name == SIZE);
            match sizes {
                None => row(
                    &name,
                    algorithm.name(),
                    &errors(&problem, algorithm, &default, &input, &exact, isa),
                ),
                Some(sizes) => {
                    for size in sizes.values() {
                        let mut schedule = default.clone();
                        schedule.tunables.insert(SIZE.to_owned(), size);
                        let title =
                            format!("{} F({size},{})", algorithm.name(), problem.window.kernel[0]);
                        row(
                            &name,
                            &title,
                            &errors(&problem, algorithm, &schedule, &input, &exact, isa),
                        );
                    }
                }
            }
        }
    }
}

fn row(layer: &str, title: &str, errors: &Result<[f64; 2], String>) {
    match errors {
        Ok([largest, mean]) => {
            println!("| {layer} | {title} | {:.2} | {:.3} |", 1e6 * largest, 1e6 * mean)
        }
        Err(error) => println!("| {layer} | {title} | {error} | - |"),
    }
}

/// Returns an NCHW input, half of which is zero.
fn activations(problem: &ConvProblem) -> Vec<f32> {
    let [height, width] = problem.input;
    noise(problem.in_channels * height * width).map(|x| x.max(0.0)).collect()
}

/// Returns the exact NCHW output.
fn exact(problem: &ConvProblem, input: &[f32]) -> Vec<f64> {
    let weights = weights(problem, WeightFormat::F32, 0.0);
    let WeightValues::F32(values) = &weights.values else {
        unreachable!("asked for single precision")
    };
    let real = |numbers: &[f32]| numbers.iter().copied().map(f64::from).collect::<Vec<_>>();
    let bias = weights.bias.as_deref().map_or_else(|| vec![0.0; problem.out_channels], real);
    conv_f64(problem, &real(input), &real(values), &bias).into_iter().map(|x| x.max(0.0)).collect()
}

/// Returns the largest error and the root mean square error, both relative to the largest output.
fn errors(
    problem: &ConvProblem,
    algorithm: &dyn Algorithm,
    schedule: &Schedule,
    input: &[f32],
    exact: &[f64],
    isa: Isa,
) -> Result<[f64; 2], String> {
    let weights = weights(problem, WeightFormat::F32, 0.0);
    let mut bed =
        Bed::new(problem, &weights, algorithm, schedule, isa).map_err(|error| error.to_string())?;
    let pixels = |[height, width]: [usize; 2]| height * width;
    let size_in = [problem.in_channels, pixels(problem.input)];
    let size_out = [problem.out_channels, exact.len() / problem.out_channels];
    let [layout_in, layout_out] = algorithm.layouts(schedule, isa);
    for (i, &x) in input.iter().enumerate() {
        bed.set_input(place(layout_in, size_in, i), x);
    }
    bed.run();
    let largest = exact.iter().copied().fold(0.0, f64::max);
    let mut distance = |(i, want): (usize, &f64)| {
        (f64::from(bed.output(place(layout_out, size_out, i))) - want).abs() / largest
    };
    let distances: Vec<f64> = exact.iter().enumerate().map(&mut distance).collect();
    let square = distances.iter().map(|x| x * x).sum::<f64>() / distances.len() as f64;
    Ok([distances.iter().copied().fold(0.0, f64::max), square.sqrt()])
}

/// Returns the position in `layout` of element `i` of an NCHW tensor.
fn place(layout: Layout, size: [usize; 2], i: usize) -> usize {
    layout.place(size, i / size[1], i % size[1])
}
