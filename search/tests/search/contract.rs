//! Contract that every strategy must keep.

use std::collections::BTreeSet;
use std::sync::Arc;

use paretune_search::{
    Limit, Objective, Outcome, Problem, ProblemError, Relation, STRATEGIES, Search,
};
use paretune_spaces::{CompiledSpace, Configuration, Domain, Parameter, Point, Space};

fn names() -> impl Iterator<Item = &'static str> {
    STRATEGIES.iter().map(|d| d.name)
}

/// Builds a space of two layers with an algorithm each, tiles under one of the algorithms, a
/// constraint, and a global choice.
fn conditional() -> Arc<CompiledSpace> {
    let mut space = Space::new();
    space.parameters.push(Parameter::new("threads", Domain::sizes([1, 2, 4])));
    for layer in ["a", "b"] {
        let name = |p: &str| format!("{layer}.{p}");
        space
            .parameters
            .push(Parameter::new(name("algorithm"), Domain::choice(["direct", "gemm", "sparse"])));
        let tile = Parameter::new(name("tile"), Domain::sizes([1, 2, 4, 8]));
        space.parameters.push(tile.when(format!("{layer}.algorithm == 'gemm'").parse().unwrap()));
        space.constraints.push(format!("{layer}.tile * threads <= 16").parse().unwrap());
    }
    Arc::new(space.compile().unwrap())
}

fn grid(sizes: &[i64]) -> Arc<CompiledSpace> {
    let mut space = Space::new();
    for (i, size) in sizes.iter().enumerate() {
        space.parameters.push(Parameter::new(format!("x{i}"), Domain::sizes(0..*size)));
    }
    Arc::new(space.compile().unwrap())
}

fn problem(space: &Arc<CompiledSpace>, objectives: usize, limits: Vec<Limit>) -> Problem {
    let metrics = vec!["time".to_owned(), "size".to_owned(), "error".to_owned()];
    let all = [
        Objective::minimize("time").log(),
        Objective::minimize("size"),
        Objective::maximize("error"),
    ];
    Problem::new(space.clone(), metrics, all[..objectives].to_vec(), limits).unwrap()
}

/// Answers by an arbitrary landscape in which a seventh of all points fails.
fn answer(point: &Point) -> Outcome {
    let hash = point.iter().fold(17u64, |h, v| h.wrapping_mul(31).wrapping_add(u64::from(*v) + 1));
    if hash % 7 == 3 {
        return Outcome::Failed { reason: "does not build".to_owned() };
    }
    if hash % 11 == 5 {
        return Outcome::Dropped { values: vec![Some(3.0), None, None] };
    }
    let sum: f64 = point.iter().map(|v| f64::from(v % 97)).sum();
    Outcome::exact(vec![1.0 + sum, 40.0 - sum + (hash % 5) as f64, (hash % 13) as f64])
}

fn drive(search: &mut Search, steps: usize, batch: usize) -> Vec<(Point, String)> {
    let mut asked = Vec::new();
    for _ in 0..steps {
        let proposals = search.ask(batch);
        for proposal in &proposals {
            asked.push((proposal.point.clone(), proposal.origin.clone()));
        }
        for proposal in proposals {
            search.tell(&proposal.point, answer(&proposal.point)).unwrap();
        }
    }
    asked
}

#[test]
fn same_seed_same_trials() {
    for name in names() {
        let run = |seed| {
            drive(&mut Search::new(problem(&conditional(), 2, vec![]), name, seed).unwrap(), 10, 2)
        };
        let once = run(3);
        assert_eq!(once, run(3), "{name}");
        assert_ne!(once, run(4), "{name}");
    }
}

#[test]
fn never_repeats_and_visits_everything_once() {
    for name in names() {
        for (objectives, batch) in [(1, 1), (3, 3)] {
            let space = conditional();
            let len = usize::try_from(space.len().unwrap()).unwrap();
            let mut search = Search::new(problem(&space, objectives, vec![]), name, 1).unwrap();
            let asked = drive(&mut search, len, batch);
            let distinct: BTreeSet<&Point> = asked.iter().map(|(p, _)| p).collect();
            assert_eq!((asked.len(), distinct.len()), (len, len), "{name}");
            assert!(search.ask(5).is_empty(), "{name}");
        }
    }
}

#[test]
fn one_value_spaces() {
    for name in names() {
        for sizes in [&[1, 1][..], &[]] {
            let mut search = Search::new(problem(&grid(sizes), 1, vec![]), name, 0).unwrap();
            let proposals = search.ask(4);
            assert_eq!(proposals.len(), 1, "{name}");
            assert!(search.ask(1).is_empty());
            search.tell(&proposals[0].point, Outcome::exact(vec![1.0, 1.0, 1.0])).unwrap();
            assert!(search.ask(1).is_empty());
            assert_eq!(search.archive().front().len(), 1);
        }
    }
}

#[test]
fn everything_may_fail() {
    for name in names() {
        let mut search = Search::new(problem(&grid(&[4, 4]), 2, vec![]), name, 0).unwrap();
        for _ in 0..16 {
            let proposal = search.ask(1).pop().unwrap();
            search.tell(&proposal.point, Outcome::Failed { reason: "no".to_owned() }).unwrap();
        }
        assert!(search.ask(1).is_empty() && search.archive().front().is_empty());
    }
}

#[test]
fn wrong_answers_are_refused() {
    let mut search = Search::new(problem(&grid(&[4, 4]), 2, vec![]), "random", 0).unwrap();
    let point = search.ask(1).pop().unwrap().point;
    for values in
        [vec![f64::NAN, 1.0, 1.0], vec![1.0, f64::INFINITY, 1.0], vec![0.0, 1.0, 1.0], vec![1.0]]
    {
        assert!(search.tell(&point, Outcome::exact(values)).is_err());
    }
    assert_eq!(search.history().pending().len(), 1);
    search.tell(&point, Outcome::exact(vec![1.0, 1.0, 1.0])).unwrap();
    let again = search.tell(&point, Outcome::exact(vec![1.0, 1.0, 1.0]));
    assert_eq!(again, Err(ProblemError::Again));
    let foreign = Point::new(vec![9, 9]);
    assert_eq!(search.tell(&foreign, answer(&foreign)), Err(ProblemError::Foreign));
    assert!(
        Search::new(problem(&grid(&[2]), 1, vec![]), "alchemy", 0)
            .is_err_and(|e| e.to_string().contains("nsga2"))
    );
}

#[test]
fn constant_objectives_and_extreme_values() {
    for name in names() {
        let mut search = Search::new(problem(&grid(&[6, 6]), 3, vec![]), name, 0).unwrap();
        for i in 0..24 {
            let proposal = search.ask(1).pop().unwrap();
            let values = if i % 2 == 0 { vec![1.0; 3] } else { vec![1e-300, 1e300, -1e300] };
            search.tell(&proposal.point, Outcome::exact(values)).unwrap();
        }
    }
}

#[test]
fn seeds_come_first_and_elsewhere_counts() {
    let space = conditional();
    for name in names() {
        let mut search = Search::new(problem(&space, 2, vec![]), name, 0).unwrap();
        let known = space.at(3).unwrap();
        search.tell(&known, answer(&known)).unwrap();
        let seeds = vec![
            (space.at(3).unwrap(), "recipe".to_owned()),
            (space.at(5).unwrap(), "recipe".to_owned()),
        ];
        search.enqueue(seeds).unwrap();
        let first = search.ask(1).pop().unwrap();
        assert_eq!(
            (first.point.clone(), first.origin.as_str()),
            (space.at(5).unwrap(), "recipe"),
            "{name}"
        );
        assert!(search.withdraw(&first.point) && !search.withdraw(&first.point));
        assert!(search.enqueue(vec![(Point::new(vec![0]), String::new())]).is_err());
    }
}

#[test]
fn infeasible_starts_make_progress() {
    // Only one corner of 4,096 configurations meets both limits.
    let space = grid(&[8, 8, 8, 8]);
    let metrics = vec!["time".to_owned(), "size".to_owned()];
    let limit =
        |metric: &str, relation, value| Limit { metric: metric.to_owned(), relation, value };
    let limits = vec![limit("time", Relation::Less, 3.0), limit("size", Relation::Greater, 12.0)];
    for name in names().filter(|n| !matches!(*n, "random" | "quasi-random")) {
        let objectives = vec![Objective::minimize("time")];
        let problem =
            Problem::new(space.clone(), metrics.clone(), objectives, limits.clone()).unwrap();
        let mut search = Search::new(problem, name, 2).unwrap();
        for _ in 0..400 {
            let p = search.ask(1).pop().unwrap().point;
            let time = 1.0 + f64::from(p[0]) + f64::from(7 - p[1]);
            let size = f64::from(p[2]) + f64::from(p[3]);
            search.tell(&p, Outcome::exact(vec![time, size])).unwrap();
            if !search.archive().front().is_empty() {
                break;
            }
        }
        let nearest = search.archive().nearest_miss().map(|e| e.standing.violation);
        assert!(!search.archive().front().is_empty(), "{name}: {nearest:?}");
    }
}

#[test]
fn limits_are_judged_at_the_bad_end() {
    let space = grid(&[2]);
    let limit = Limit { metric: "time".to_owned(), relation: Relation::Less, value: 2.0 };
    let mut search = Search::new(problem(&space, 1, vec![limit]), "random", 0).unwrap();
    let wide = Outcome::Measured {
        values: vec![1.9, 1.0, 1.0],
        low: vec![1.8, 1.0, 1.0],
        high: vec![2.1, 1.0, 1.0],
    };
    assert!(!search.tell(&space.at(0).unwrap(), wide).unwrap().entered);
    assert!((search.archive().nearest_miss().unwrap().standing.violation - 0.05).abs() < 1e-9);
    let narrow = Outcome::Measured {
        values: vec![1.9, 1.0, 1.0],
        low: vec![1.8, 1.0, 1.0],
        high: vec![1.95, 1.0, 1.0],
    };
    assert!(search.tell(&space.at(1).unwrap(), narrow).unwrap().entered);
    assert!(search.archive().nearest_miss().is_none());
}

#[test]
fn known_fronts_are_found() {
    // The front has x0 free and everything else 0: 10 points of 10,000.
    let space = grid(&[10, 10, 10, 10]);
    for (name, needed) in
        [("nsga2", 0.9), ("local", 0.9), ("gaussian", 0.97), ("forest", 0.8), ("auto", 0.95)]
    {
        let metrics = vec!["f".to_owned(), "g".to_owned()];
        let objectives = vec![Objective::minimize("f"), Objective::minimize("g")];
        let problem = Problem::new(space.clone(), metrics, objectives, vec![]).unwrap();
        let mut search = Search::new(problem, name, 0).unwrap();
        for _ in 0..if matches!(name, "nsga2" | "local") { 150 } else { 50 } {
            let p = search.ask(1).pop().unwrap().point;
            let x = f64::from(p[0]) / 9.0;
            let rest: f64 = p[1..].iter().map(|v| f64::from(*v)).sum();
            search
                .tell(&p, Outcome::exact(vec![x + rest / 9.0, (1.0 - x).powi(2) + rest / 9.0]))
                .unwrap();
        }
        let found: Vec<Vec<f64>> =
            search.archive().front().iter().map(|e| e.values.clone()).collect();
        let front: Vec<Vec<f64>> =
            (0..10).map(|i| f64::from(i) / 9.0).map(|x| vec![x, (1.0 - x).powi(2)]).collect();
        let volume = |p: &[Vec<f64>]| paretune_search::hypervolume::hypervolume(p, &[2.0, 2.0]);
        assert!(
            volume(&found) / volume(&front) >= needed,
            "{name}: {}",
            volume(&found) / volume(&front)
        );
    }
}

#[test]
fn proposals_decode_to_valid_configurations() {
    let space = conditional();
    for name in names() {
        let mut search = Search::new(problem(&space, 2, vec![]), name, 9).unwrap();
        for (point, _) in drive(&mut search, 15, 1) {
            let config: Configuration = space.decode(&point);
            assert_eq!(space.encode(&config).unwrap(), point, "{name}");
            assert_eq!(
                config.get("a.tile").is_some(),
                config.get("a.algorithm") == Some(&"gemm".into())
            );
        }
    }
}
