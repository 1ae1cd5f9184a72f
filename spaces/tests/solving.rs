//! Tests of the solver against brute force: counts, membership, numbering, sampling and moves.

use std::collections::{BTreeMap, BTreeSet};

use paretune_spaces::{
    CompiledSpace, Configuration, Domain, Expression, INACTIVE, Parameter, Point, Space,
};
use proptest::prelude::*;
use rand::SeedableRng;
use rand_xoshiro::Xoshiro256PlusPlus;

fn rng() -> Xoshiro256PlusPlus {
    Xoshiro256PlusPlus::seed_from_u64(7)
}

fn expression(text: &str) -> Expression {
    text.parse().unwrap()
}

/// Finds every valid configuration by trying all combinations. Conditions refer to earlier
/// parameters only.
fn brute(space: &Space) -> BTreeSet<Configuration> {
    let mut partial = vec![Configuration::new()];
    for p in &space.parameters {
        let mut next = Vec::new();
        for config in partial {
            let active =
                p.condition.as_ref().is_none_or(|c| c.holds(&|n| config.get(n).cloned()).unwrap());
            if !active {
                next.push(config);
                continue;
            }
            for value in p.domain.values() {
                let mut config = config.clone();
                config.insert(p.name.clone(), value.clone());
                next.push(config);
            }
        }
        partial = next;
    }
    let met = |c: &Configuration| {
        space.constraints.iter().all(|e| e.met(&|n| c.get(n).cloned()).unwrap())
    };
    partial.into_iter().filter(met).collect()
}

fn check(space: &Space) {
    let expected = brute(space);
    let compiled = match space.compile() {
        Ok(compiled) => compiled,
        Err(error) => {
            assert!(expected.is_empty(), "{error}");
            return;
        }
    };
    let len = compiled.len().unwrap();
    assert_eq!(len, expected.len() as u128);
    let mut found = BTreeSet::new();
    for index in 0..len {
        let point = compiled.at(index).unwrap();
        assert_eq!(compiled.index(&point), Some(index));
        assert!(compiled.contains(&point));
        let config = compiled.decode(&point);
        assert_eq!(compiled.encode(&config).unwrap(), point);
        found.insert(config);
    }
    assert_eq!(found, expected);
    assert!(compiled.at(len).is_none());
    moves_stay_inside(&compiled);
}

fn moves_stay_inside(compiled: &CompiledSpace) {
    let rng = &mut rng();
    for _ in 0..20 {
        let (a, b) = (compiled.sample(rng), compiled.sample_by_choice(rng));
        for point in compiled.neighbors(&a).iter().chain(&compiled.adjacent(&a)) {
            assert!(compiled.contains(point) && *point != a);
            // One active parameter moves; other parameters change only if their activity changed.
            let moved = (0..a.len())
                .filter(|i| a[*i] != point[*i] && a[*i] != INACTIVE && point[*i] != INACTIVE);
            assert_eq!(moved.count(), 1);
        }
        assert!(compiled.contains(&compiled.crossover(&a, &b, rng)));
        let mutant = compiled.mutate(&a, rng, 0.1);
        assert!(compiled.contains(&mutant));
        assert!(mutant != a || compiled.len() == Some(1));
        let closest = compiled.closest(&compiled.decode(&a));
        assert_eq!(closest, a);
    }
    assert!(compiled.contains(&compiled.default_point()));
}

#[test]
fn conditions_chain_and_constraints_couple() {
    let mut space = Space::new();
    space.parameters = vec![
        Parameter::new("algo", Domain::choice(["direct", "gemm", "winograd"])),
        Parameter::new("tile", Domain::sizes([1, 2, 4, 8])).when(expression("algo != 'direct'")),
        Parameter::new("inner", Domain::sizes([1, 2, 3])).when(expression("tile >= 4")),
        Parameter::new("pad", Domain::switch())
            .when(expression("algo == 'winograd' or inner == 2")),
        Parameter::new("free", Domain::sizes([0.5, 1.0])),
    ];
    space.constraints = vec![expression("tile * inner <= 16"), expression("not pad or inner != 3")];
    check(&space);
}

#[test]
fn a_global_choice_does_not_merge_layers() {
    let mut space = Space::new();
    space.parameters.push(Parameter::new("threads", Domain::sizes([1, 2, 4, 8])));
    for layer in 0..60 {
        let name = |p: &str| format!("conv{layer}.{p}");
        let algorithms = Domain::choice(["direct", "gemm", "winograd", "sparse"]);
        space.parameters.push(Parameter::new(name("algorithm"), algorithms));
        let is_gemm = Expression::name(name("algorithm")).equals("gemm");
        for tile in ["mr", "nr", "kc"] {
            let domain = Domain::sizes([1, 2, 4, 8, 16, 32, 64]);
            space.parameters.push(Parameter::new(name(tile), domain).when(is_gemm.clone()));
        }
        let split = Parameter::new(name("split"), Domain::sizes([1, 2, 4, 8]));
        space.parameters.push(split.when(expression("threads > 1")).when(is_gemm));
        space.constraints.push(expression(&format!("conv{layer}.mr * conv{layer}.nr <= 256")));
        space.constraints.push(expression(&format!("conv{layer}.split <= threads")));
    }
    let compiled = space.compile().unwrap();
    assert!(compiled.len().is_none() && compiled.log10_len() > 100.0);
    assert!(compiled.nodes() < 10_000, "{compiled:?}");
    assert_eq!(compiled.groups().len(), 1);
    // The count follows from the count of one layer, which is solved alone.
    let layer = |threads: f64| {
        let tiles = 7.0 * (0..49).filter(|i| (1 << (i % 7)) * (1 << (i / 7)) <= 256).count() as f64;
        3.0 + tiles * if threads > 1.0 { threads.log2() + 1.0 } else { 1.0 }
    };
    let expected: f64 = [1.0, 2.0, 4.0, 8.0].map(|t| layer(t).powi(60)).iter().sum();
    assert!((compiled.log10_len() - expected.log10()).abs() < 1e-9);
    let rng = &mut rng();
    let (a, b) = (compiled.sample(rng), compiled.sample(rng));
    assert!(compiled.contains(&a) && compiled.contains(&compiled.crossover(&a, &b, rng)));
    assert!(compiled.neighbors(&a).iter().all(|p| compiled.contains(p)));
}

#[test]
fn a_global_choice_in_few_formulas_is_made_first() {
    let mut space = Space::new();
    space.parameters.push(Parameter::new("backend", Domain::choice(["cpu", "device"])));
    for layer in 0..30 {
        let name = |p: &str| format!("conv{layer}.{p}");
        space
            .parameters
            .push(Parameter::new(name("algorithm"), Domain::choice(["a", "b", "c", "d"])));
        for algorithm in ["a", "b", "c", "d"] {
            for tile in ["x", "y", "z"] {
                let chosen = Expression::name(name("algorithm")).equals(algorithm);
                let parameter =
                    Parameter::new(name(&format!("{algorithm}.{tile}")), Domain::sizes([1, 2, 4]));
                space.parameters.push(parameter.when(chosen));
            }
        }
        let algorithm = name("algorithm");
        space.constraints.push(expression(&format!(
            "backend == 'cpu' and {algorithm} in ['a', 'b'] or backend == 'device' and \
             {algorithm} in ['c', 'd']"
        )));
    }
    let compiled = space.compile().unwrap();
    assert!(compiled.nodes() < 5_000, "{compiled:?}");
    // Two algorithms of 27 tiles each exist on either backend.
    let expected = 2.0_f64.log10() + 30.0 * 54.0_f64.log10();
    assert!((compiled.log10_len() - expected).abs() < 1e-9);
}

#[test]
fn one_in_a_million_starts_at_once() {
    let mut space = Space::new();
    for i in 0..12 {
        space.parameters.push(Parameter::new(format!("x{i}"), Domain::sizes(0..10)));
    }
    let sum: Vec<String> = (0..12).map(|i| format!("x{i}")).collect();
    space.constraints = vec![expression(&format!("{} == 2", sum.join(" + ")))];
    let compiled = space.compile().unwrap();
    assert_eq!(compiled.len(), Some(12 + 66));
    assert!(compiled.nodes() < 100);
}

#[test]
fn hundreds_of_thousands_of_coupled_tuples_stay_small() {
    let mut space = Space::new();
    for i in 0..6 {
        space.parameters.push(Parameter::new(
            format!("t{i}"),
            Domain::sizes([1, 2, 3, 4, 6, 8, 12, 16, 24, 32]),
        ));
    }
    space.constraints =
        vec![expression("t0*t1*t2*t3*t4*t5 <= 65536"), expression("t0 * t3 % 4 == 0")];
    let compiled = space.compile().unwrap();
    assert!(compiled.len().unwrap() > 200_000);
    assert!(compiled.nodes() < 20_000, "{compiled:?}");
}

#[test]
fn samples_are_even() {
    let mut space = Space::new();
    space.parameters = vec![
        Parameter::new("a", Domain::sizes([1, 2, 3])),
        Parameter::new("b", Domain::sizes([1, 2, 3, 4])).when(expression("a > 1")),
        Parameter::new("c", Domain::sizes([1, 2])),
    ];
    space.constraints = vec![expression("a * b <= 8")];
    let compiled = space.compile().unwrap();
    let len = compiled.len().unwrap();
    let (rng, draws) = (&mut rng(), 20_000);
    let mut seen: BTreeMap<Point, u32> = BTreeMap::new();
    for _ in 0..draws {
        *seen.entry(compiled.sample(rng)).or_default() += 1;
    }
    assert_eq!(seen.len() as u128, len);
    let expected = f64::from(draws) / len as f64;
    let chi: f64 = seen.values().map(|n| (f64::from(*n) - expected).powi(2) / expected).sum();
    assert!(chi < 2.5 * len as f64, "chi square {chi} for {len} cells");
}

#[test]
fn listed_rows_are_the_space() {
    let mut space = Space::new();
    space.parameters = vec![
        Parameter::new("a", Domain::sizes([1, 2, 3])),
        Parameter::new("b", Domain::choice(["x", "y"])),
    ];
    let rows = [[0, 0], [2, 1], [1, 1], [2, 1]].map(|r| Point::new(r.to_vec())).to_vec();
    let compiled = CompiledSpace::from_rows(space.clone(), rows).unwrap();
    assert_eq!(compiled.len(), Some(3));
    assert!(!compiled.contains(&Point::new(vec![0, 1])));
    assert_eq!(compiled.neighbors(&Point::new(vec![1, 1])), [Point::new(vec![2, 1])]);
    moves_stay_inside_rows(&compiled);
    assert!(CompiledSpace::from_rows(space.clone(), vec![Point::new(vec![3, 0])]).is_err());
    assert!(CompiledSpace::from_rows(space, vec![]).is_err());
}

fn moves_stay_inside_rows(compiled: &CompiledSpace) {
    let rng = &mut rng();
    for _ in 0..50 {
        let a = compiled.sample(rng);
        assert!(compiled.contains(&compiled.mutate(&a, rng, 0.5)));
    }
}

#[test]
fn mistakes_are_named() {
    let message = |parameters: Vec<Parameter>, constraints: &[&str]| {
        let constraints = constraints.iter().map(|c| expression(c)).collect();
        Space { parameters, constraints }.compile().unwrap_err().to_string()
    };
    let a = || Parameter::new("a", Domain::sizes([1, 2]));
    assert!(message(vec![a(), a()], &[]).contains("`a` is declared twice"));
    assert!(message(vec![a()], &["b > 1"]).contains("`b`"));
    assert!(message(vec![a()], &["a > 2"]).contains("no configuration"));
    assert!(message(vec![a()], &["a > 'x'"]).contains("needs numbers"));
    assert!(message(vec![Parameter::new("b c", Domain::switch())], &[]).contains("letters"));
    assert!(message(vec![Parameter::new("b", Domain::sizes([1, 1]))], &[]).contains("twice"));
    assert!(message(vec![Parameter::new("b", Domain::sizes([f64::NAN]))], &[]).contains("finite"));
    assert!(message(vec![Parameter::new("b", Domain::Sizes(vec![]))], &[]).contains("no value"));
    let cycle = vec![
        a().when(expression("b")),
        Parameter::new("b", Domain::switch()).when(expression("a > 0")),
    ];
    assert!(message(cycle, &[]).contains("depend on each other"));

    let mut space = Space::new();
    space.parameters =
        vec![a(), Parameter::new("b", Domain::sizes([1, 2])).when(expression("a == 2"))];
    space.constraints = vec![expression("a * b < 4")];
    let compiled = space.compile().unwrap();
    let refuse = |entries: &[(&str, i32)]| {
        let mut config = Configuration::new();
        entries.iter().for_each(|(n, v)| {
            config.insert(*n, *v);
        });
        compiled.encode(&config).unwrap_err().to_string()
    };
    assert!(refuse(&[("c", 1)]).contains("no parameter `c`"));
    assert!(refuse(&[("a", 3)]).contains("cannot be 3; its values are 1, 2"));
    assert!(refuse(&[("a", 2)]).contains("`b` needs a value"));
    assert!(refuse(&[("a", 1), ("b", 1)]).contains("it needs a == 2"));
    assert!(refuse(&[("a", 2), ("b", 2)]).contains("a * b < 4"));
}

#[test]
fn wishes_come_first_and_defaults_next() {
    let mut space = Space::new();
    space.parameters = vec![
        Parameter::new("a", Domain::sizes([1, 2, 4, 8])).with_default(8),
        Parameter::new("b", Domain::sizes([1, 2, 4, 8])).with_default(4),
        Parameter::new("c", Domain::sizes([1, 2])),
    ];
    space.constraints = vec![expression("a * b <= 16")];
    let compiled = space.compile().unwrap();
    let mut wanted = Configuration::new();
    wanted.insert("b", 8);
    wanted.insert("unheard", 1);
    let config = compiled.decode(&compiled.closest(&wanted));
    assert_eq!(config.get("b"), Some(&8.into()));
    assert_eq!(config.get("a"), Some(&2.into()));
    // Numbers between the sizes of a domain.
    wanted.insert("b", 1);
    wanted.insert("a", 7);
    let config = compiled.decode(&compiled.closest(&wanted));
    assert_eq!((config.get("a"), config.get("b")), (Some(&8.into()), Some(&1.into())));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_small_space_is_solved_as_by_trying_all(
        sizes in prop::collection::vec(1i64..5, 2..6),
        conditions in prop::collection::vec((0usize..6, 0usize..6, 0i64..4), 0..4),
        constraints in prop::collection::vec((0usize..6, 0usize..6, 0usize..6, 0i64..12, 0usize..5), 0..4),
    ) {
        let mut space = Space::new();
        for (i, size) in sizes.iter().enumerate() {
            space.parameters.push(Parameter::new(format!("p{i}"), Domain::sizes(0..*size)));
        }
        let n = sizes.len();
        for (a, b, value) in conditions {
            let (a, b) = (a % n, b % n);
            if a < b {
                let condition = Expression::name(format!("p{a}")).at_most(Expression::literal(value));
                let p = space.parameters[b].clone().when(condition);
                space.parameters[b] = p;
            }
        }
        for (a, b, c, value, form) in constraints {
            let (a, b, c) = (a % n, b % n, c % n);
            let text = match form {
                0 => format!("p{a} * p{b} + p{c} <= {value}"),
                1 => format!("p{a} + p{b} + p{c} != {value}"),
                2 => format!("p{a} == 0 or p{b} > p{c} and p{a} * 2 < {value}"),
                3 => format!("not p{a} >= p{b} or p{c} in [0, 1, {value}]"),
                _ => format!("p{a} <= p{b} + 1 <= {value} - p{c} * -1"),
            };
            space.constraints.push(text.parse().unwrap());
        }
        check(&space);
    }
}
