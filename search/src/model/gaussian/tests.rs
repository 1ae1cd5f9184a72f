//! Tests of the gradient, of learning and of sampling.

use paretune_spaces::{Domain, Parameter, Point, Space};
use rand::SeedableRng;
use rand_xoshiro::Xoshiro256PlusPlus;

use super::density::gradient_of;
use super::{Gaussian, Hyperparameters, Kernel, standardize};
use crate::model::{Features, Model};

fn setting() -> (Kernel, Vec<Point>, Vec<f64>) {
    let mut space = Space::new();
    for i in 0..3 {
        space.parameters.push(Parameter::new(format!("x{i}"), Domain::sizes(0..8)));
    }
    space.parameters.push(Parameter::new("kind", Domain::choice(["a", "b", "c"])));
    let space = space.compile().unwrap();
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(3);
    let mut points: Vec<Point> = (0..80).map(|_| space.sample(&mut rng)).collect();
    points.sort();
    points.dedup();
    points.sort_by_key(|p| {
        p.iter().fold(7u64, |h, v| h.wrapping_mul(6_364_136_223_846_793_005) ^ u64::from(*v))
    });
    let value =
        |p: &Point| (f64::from(p[0]) / 3.0).sin() * 5.0 + if p[3] == 1 { 4.0 } else { 0.0 } + 100.0;
    let values = points.iter().map(value).collect();
    (Kernel::new(Features::of(&space)), points, values)
}

#[test]
fn gradient_is_the_densitys() {
    let (kernel, points, values) = setting();
    let rows: Vec<Vec<u16>> = points[..20].iter().map(|p| kernel.slots(p)).collect();
    let standard = standardize(&values[..20]);
    let (prior, mut hyperparameters) = (kernel.prior(), kernel.prior());
    hyperparameters.terms[0] += 0.3;
    hyperparameters.orders = [-0.4, 0.2];
    let of =
        |w: &Hyperparameters| gradient_of(&kernel, w, &prior, &rows, &standard.values).unwrap();
    let gradient = of(&hyperparameters).1;
    assert_eq!(gradient.len(), hyperparameters.numbers().len());
    for (i, exact) in gradient.iter().enumerate() {
        let moved = |step: f64| {
            let mut numbers = hyperparameters.numbers();
            numbers[i] += step;
            of(&Hyperparameters::of(&numbers)).0
        };
        let numeric = (moved(1e-4) - moved(-1e-4)) / 2e-4;
        assert!((numeric - exact).abs() < 1e-4 * (1.0 + numeric.abs()), "{i}: {numeric} {exact}");
    }
}

#[test]
fn learns_what_matters_and_predicts() {
    let (kernel, points, values) = setting();
    let train: Vec<&Point> = points[..60].iter().collect();
    let hyperparameters = Gaussian::learn(&kernel, &kernel.prior(), &train, &values[..60], 60);
    let model = Gaussian::fit(&kernel, &hyperparameters, &train, &values[..60]).unwrap();
    let error: f64 = points[60..]
        .iter()
        .zip(&values[60..])
        .map(|(p, v)| (model.predict(p).mean - v).abs())
        .sum();
    assert!(error / (points.len() - 60) as f64 <= 0.2, "{error}");
    let seen = model.predict(&points[0]);
    assert!((seen.mean - values[0]).abs() < 0.1 && seen.deviation < 0.3);
    assert!(Gaussian::fit(&kernel, &hyperparameters, &[], &[]).is_none());
}

/// The effects of single parameters must be combined from few points, far from all combinations.
#[test]
fn sums_are_told_from_their_parts() {
    let mut space = Space::new();
    for i in 0..5 {
        space.parameters.push(Parameter::new(format!("x{i}"), Domain::choice(0..5)));
    }
    let space = space.compile().unwrap();
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(9);
    let points: Vec<Point> = (0..260).map(|_| space.sample(&mut rng)).collect();
    // The values have no order, and the function is a sum.
    let value = |p: &Point| -> f64 { p.iter().map(|v| f64::from((v * v + 2 * v) % 5)).sum() };
    let values: Vec<f64> = points.iter().map(value).collect();
    let kernel = Kernel::new(Features::of(&space));
    let train: Vec<&Point> = points[..60].iter().collect();
    let likely = Gaussian::learn(&kernel, &kernel.prior(), &train, &values[..60], 40);
    let model = Gaussian::fit(&kernel, &likely, &train, &values[..60]).unwrap();
    let error: f64 = points[60..]
        .iter()
        .zip(&values[60..])
        .map(|(p, v)| (model.predict(p).mean - v).abs())
        .sum();
    let error = error / 200.0;
    assert!(likely.orders[0] > kernel.prior().orders[0], "{likely:?}");
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let spread = values.iter().map(|v| (v - mean).abs()).sum::<f64>() / values.len() as f64;
    assert!(error < 0.2 * spread, "{error} of {spread}");
}

#[test]
fn draws_spread_around_the_likely_weights() {
    let (kernel, points, values) = setting();
    let train: Vec<&Point> = points[..40].iter().collect();
    let likely = Gaussian::learn(&kernel, &kernel.prior(), &train, &values[..40], 60);
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(5);
    let draws = Gaussian::sample(&kernel, &likely, &train, &values[..40], 30, &mut rng);
    assert_eq!(draws.len(), 30);
    let rows: Vec<Vec<u16>> = train.iter().map(|p| kernel.slots(p)).collect();
    let standard = standardize(&values[..40]);
    let density = |hyperparameters: &Hyperparameters| {
        gradient_of(&kernel, hyperparameters, &kernel.prior(), &rows, &standard.values)
            .expect("can be factored")
            .0
    };
    let best = density(&likely);
    let below: Vec<f64> = draws.iter().map(|draw| best - density(draw)).collect();
    // A posterior of d dimensions lies about d/2 below its peak, and the prior alone far deeper.
    let mean = below.iter().sum::<f64>() / 30.0;
    let dimensions = likely.numbers().len() as f64;
    assert!(mean > 0.1 * dimensions && mean < 2.0 * dimensions, "{mean}");
    let spread = |number: usize| {
        let all: Vec<f64> = draws.iter().map(|draw| draw.terms[number]).collect();
        let mean = all.iter().sum::<f64>() / 30.0;
        (all.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 30.0).sqrt()
    };
    // A parameter without effect stays as uncertain as before.
    let idle = kernel.terms.iter().position(|t| t.parameter == 2).expect("is there");
    assert!(spread(idle) > 0.5 && spread(idle) < 4.0, "{}", spread(idle));
    let again = Gaussian::sample(
        &kernel,
        &likely,
        &train,
        &values[..40],
        30,
        &mut Xoshiro256PlusPlus::seed_from_u64(5),
    );
    assert_eq!(draws, again);
}
