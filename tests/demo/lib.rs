//! A synthetic study for tests, pictures and the example. It has the same events every time and
//! measures nothing.

use std::collections::BTreeMap;

use paretune_record::event::{Event, Inspected, Started, TrialFinished};
use paretune_record::failure::FailureKind;
use paretune_record::front::{BASELINE, Front, FrontPoint, HardwareName, ModelName};
use paretune_record::limit::{Limit, Relation};
use paretune_record::metric::{Metric, Metrics};
use paretune_record::preference::Preference;
use paretune_record::step::StepCost;
use paretune_record::stop::StopReason;
use paretune_spaces::{Configuration, Value};

fn baseline() -> Metrics {
    metrics([0.914, 3.1e-3, 1.104e6, 2.46e6])
}

/// Builds the metrics of a point from accuracy, latency, size and memory.
fn metrics([accuracy, latency, size, memory]: [f64; 4]) -> Metrics {
    Metrics::from([
        (Metric::Accuracy, accuracy),
        (Metric::Latency, latency),
        (Metric::Size, size),
        (Metric::Memory, memory),
    ])
}

fn value(metrics: &Metrics, metric: Metric) -> f64 {
    metrics.get(metric).unwrap_or(f64::NAN)
}

const FAILURES: [&str; 3] = [
    "the worker was killed after 20 s",
    "out of memory: 61 MB wanted, 48 MB allowed",
    "output differs from the reference",
];

/// Random generator SplitMix64, enough to imitate a search.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Returns every event of a study with the given number of trials. Many points meet `easy` limits;
/// no point meets the others.
#[must_use]
pub fn study(trials: u64, easy: bool) -> Vec<Event> {
    let limits = vec![
        limit(Metric::Latency, if easy { 0.9e-3 } else { 0.02e-3 }),
        limit(Metric::AccuracyDrop, 0.01),
    ];
    let mut events = vec![started(&limits)];
    for fraction in [0.0, 0.5, 1.0] {
        events.push(Event::Preparing { task: "decoding images".into(), fraction });
    }
    events.push(Event::Notice {
        text: "the machine is busy (load 1.4): timing will take longer".into(),
    });
    let (mut dice, mut front, mut hypervolume) = (Dice(7), Vec::<FrontPoint>::new(), 0.0);
    for number in 1..=trials {
        let mut point = point(&mut dice, number, trials, &limits);
        let id = point.id.clone();
        events.push(Event::TrialStarted { number, id: id.clone(), origin: point.origin.clone() });
        for stage in ["build", "timing", "accuracy"] {
            events.push(Event::Stage { id: id.clone(), stage: stage.into() });
        }
        let failure = (number % 23 == 11)
            .then(|| FAILURES[(number / 23) as usize % FAILURES.len()].to_owned());
        let dominated = front.iter().any(|other| dominates(&other.metrics, &point.metrics));
        let entered = failure.is_none() && !dominated;
        let mut displaced = Vec::new();
        if entered {
            let gone = |other: &FrontPoint| dominates(&point.metrics, &other.metrics);
            displaced =
                front.iter().filter(|other| gone(other)).map(|other| other.id.clone()).collect();
            front.retain(|other| !displaced.contains(&other.id));
            let better = |other: &FrontPoint| {
                other.feasible
                    && value(&other.metrics, Metric::Accuracy)
                        >= value(&point.metrics, Metric::Accuracy)
            };
            point.best = point.feasible && !front.iter().any(better);
            if point.best {
                front.iter_mut().for_each(|other| other.best = false);
            }
            front.push(point.clone());
            hypervolume += (1.0 - hypervolume) * 0.08;
        }
        events.push(Event::TrialFinished(Box::new(TrialFinished {
            id: String::new(),
            known: None,
            config: None,
            origin: point.origin.clone(),
            number,
            point: failure.is_none().then_some(point),
            failure_kind: failure.as_ref().map(|_| FailureKind::Build),
            failure,
            cached: number % 9 == 4,
            partial: None,
            seconds: 0.6,
            elapsed: 4.0 + number as f64 * 0.6,
            hypervolume,
            entered,
            displaced,
            undisturbed: Some(0.3 + 0.6 * dice.roll()),
            baseline: Some(baseline()),
        })));
    }
    if let Some(best) = front.iter().find(|point| point.best) {
        events.push(Event::Inspected(Box::new(inspected(&best.id))));
    }
    for done in 0..=3 {
        events.push(Event::Confirming { done, total: 3 });
    }
    events.push(Event::Finished {
        reason: StopReason::Budget,
        front: Box::new(archive(front, limits, trials, hypervolume)),
        dominated: Vec::new(),
    });
    events
}

/// Returns the final archive of such a study.
#[must_use]
pub fn front(trials: u64, easy: bool) -> Front {
    match study(trials, easy).pop() {
        Some(Event::Finished { front, .. }) => *front,
        _ => archive(Vec::new(), Vec::new(), 0, 0.0),
    }
}

fn started(limits: &[Limit]) -> Event {
    Event::Started(Box::new(Started {
        version: "0.1.0".into(),
        model: "resnet20".into(),
        model_sha256: "5f".repeat(32),
        hardware: "a1b2c3d4".into(),
        cpu: "AMD EPYC 7763".into(),
        objectives: Metric::objectives().collect(),
        limits: limits.to_vec(),
        prefer: Preference::default(),
        budget: "5m".into(),
        budget_seconds: Some(300.0),
        budget_trials: None,
        strategy: "auto".into(),
        seed: 0,
        parameters: 187,
        log10_configurations: 143.2,
        resumed_trials: 0,
        resumed_seconds: 0.0,
        begun: None,
        devices: Vec::new(),
        study: None,
    }))
}

fn limit(metric: Metric, value: f64) -> Limit {
    Limit { metric, relation: Relation::Less, value }
}

fn point(dice: &mut Dice, number: u64, trials: u64, limits: &[Limit]) -> FrontPoint {
    let skill = number as f64 / trials as f64;
    let (squeeze, waste) = (dice.roll(), dice.roll() * (1.3 - skill));
    let is_baseline = number == 1;
    let origin = match number {
        1 => BASELINE,
        2 => "8 bits everywhere",
        7 => "75 % of channels",
        12 => "70 % sparse, CSR",
        _ => ["compose", "evolve", "int8"][(number % 3) as usize],
    };
    let metrics = if is_baseline {
        baseline()
    } else {
        let loss = 0.004 * dice.roll()
            + 0.4 * (squeeze - 0.35).max(0.0).powi(3)
            + 0.02 * waste * dice.roll();
        let before = |metric| value(&baseline(), metric);
        metrics([
            ((before(Metric::Accuracy) - loss) * 4000.0).round() / 4000.0,
            before(Metric::Latency) * (1.0 - 0.93 * squeeze) * (0.4 + waste),
            (before(Metric::Size) * (1.05 - squeeze) * (0.25 + 0.3 * dice.roll())).round(),
            (before(Metric::Memory) * (1.1 - squeeze) * (0.3 + 0.4 * dice.roll())).round(),
        ])
    };
    let [accuracy, latency] =
        [Metric::Accuracy, Metric::Latency].map(|metric| value(&metrics, metric));
    let spread = BTreeMap::from([
        (Metric::Accuracy, [accuracy - 0.008, accuracy + 0.007]),
        (Metric::Latency, [latency * 0.985, latency * 1.02]),
    ]);
    let mut violation = BTreeMap::new();
    for limit in limits {
        let actual = metrics.against(limit.metric, Some(&baseline())).unwrap_or(f64::NAN);
        if actual >= limit.value {
            violation.insert(limit.metric, actual / limit.value - 1.0);
        }
    }
    let setting = |name: &str, value: Value| (name.to_owned(), value);
    let config = Configuration(BTreeMap::from([
        setting("threads", Value::Int(1 + (number % 2) as i64)),
        setting("conv1.bits", Value::Int(8)),
        setting(
            "conv1.algorithm",
            Value::Text(if number.is_multiple_of(3) { "winograd" } else { "direct" }.into()),
        ),
        setting("fc.bits", Value::Int(8)),
        setting("fc.algorithm", Value::Text("implicit_gemm_int8".into())),
        setting("fc.implicit_gemm_int8.block", Value::Int(64)),
        setting("channels.stage2", Value::Real(((1.0 - squeeze) * 16.0).ceil() / 16.0)),
    ]));
    FrontPoint {
        id: format!("{:016x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        feasible: violation.is_empty(),
        best: false,
        confirmed: true,
        metrics,
        spread,
        violation,
        origin: origin.into(),
        config,
    }
}

/// Returns plausible costs of the layers of a point.
fn inspected(id: &str) -> Inspected {
    let step =
        |name: &str, algorithm: &str, seconds: f64, weight_bytes: u64, share: f64| StepCost {
            name: name.into(),
            algorithm: algorithm.into(),
            seconds,
            weight_bytes,
            ceiling_share: (share > 0.0).then_some(share),
        };
    let steps = vec![
        step("conv1", "direct", 0.21e-3, 1_792, 0.41),
        step("conv1:convert", "convert", 0.01e-3, 0, 0.0),
        step("pool", "global_average_pool", 0.02e-3, 0, 0.0),
        step("fc", "implicit_gemm_int8", 8.23e-6, 5_210, 0.22),
    ];
    Inspected { id: id.into(), threads: 2, steps }
}

fn dominates(a: &Metrics, b: &Metrics) -> bool {
    let costs = |m: &Metrics| {
        Metric::objectives().map(|metric| metric.cost(value(m, metric))).collect::<Vec<_>>()
    };
    let (a, b) = (costs(a), costs(b));
    a.iter().zip(&b).all(|(a, b)| a <= b) && a != b
}

fn archive(
    mut points: Vec<FrontPoint>,
    limits: Vec<Limit>,
    trials: u64,
    hypervolume: f64,
) -> Front {
    let order = |point: &FrontPoint| (!point.best, !point.feasible);
    let accuracy = |point: &FrontPoint| value(&point.metrics, Metric::Accuracy);
    points.sort_by(|a, b| order(a).cmp(&order(b)).then(accuracy(b).total_cmp(&accuracy(a))));
    let worst = |point: &FrontPoint| point.violation.values().copied().fold(0.0, f64::max);
    let nearest = points.iter().min_by(|a, b| worst(a).total_cmp(&worst(b))).cloned();
    let nearest_miss = nearest.filter(|_| !points.iter().any(|point| point.feasible));
    Front {
        format: "paretune-front/1".into(),
        model: ModelName { name: "resnet20".into(), sha256: "5f".repeat(32) },
        hardware: HardwareName {
            id: "a1b2c3d4".into(),
            cpu: "AMD EPYC 7763".into(),
            devices: Vec::new(),
        },
        objectives: Metric::objectives().collect(),
        limits,
        baseline: baseline(),
        trials,
        cached: trials / 9,
        seconds: 4.0 + trials as f64 * 0.6,
        seed: 0,
        strategy: "auto".into(),
        hypervolume: Some(hypervolume),
        points,
        nearest_miss,
        state: None,
    }
}
