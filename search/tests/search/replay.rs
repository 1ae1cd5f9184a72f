//! Replays of small tables whose best values are known.

use paretune_search::replay::table::{Columns, Table, parse_limit};
use paretune_search::replay::{ReplayOptions, Score, replay};
use paretune_spaces::Kind;

/// Returns a table of 40 rows. The best `time` is 2, at x = 7 and kind = b; rows with x = 3 are
/// unusable.
fn csv() -> String {
    let mut text = String::from("x,kind,state,time,size\n");
    for x in 0..20 {
        for kind in ["a", "b"] {
            let time = 2.0 + f64::from(x - 7i32).powi(2) + if kind == "a" { 1.0 } else { 0.0 };
            match x {
                3 => text.push_str(&format!("{x},{kind},broken,,\n")),
                _ => text.push_str(&format!("{x},{kind},ok,{time},{}\n", 40 - x)),
            }
        }
    }
    text
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|w| (*w).to_owned()).collect()
}

fn columns(minimize: &[&str]) -> Columns {
    let valid = Some(("state".to_owned(), "ok".to_owned()));
    Columns { minimize: words(minimize), valid, ..Columns::default() }
}

fn options(strategies: &[&str]) -> ReplayOptions {
    ReplayOptions { strategies: words(strategies), budget: 50, seeds: 3, seed: 0 }
}

#[test]
fn everything_found_scores_one() {
    let table = Table::read(csv().as_bytes(), &columns(&["time"])).unwrap();
    assert_eq!(table.answers.iter().flatten().count(), 38);
    let report = replay(&table, &options(&["random", "local"])).unwrap();
    assert_eq!((report.score, report.rows, report.usable), (Score::Ratio, 40, 38));
    for strategy in report.strategies.values() {
        assert_eq!(strategy.mean.keys().copied().collect::<Vec<_>>(), [25, 50]);
        assert!(strategy.mean[&25] > 0.3 && (strategy.mean[&50] - 1.0).abs() < 1e-12);
        assert_eq!((strategy.sd[&50], strategy.invalid), (0.0, 2.0));
    }
    let json = serde_json::to_value(&report).unwrap();
    assert!(json["strategies"]["random"]["mean"]["25"].is_number());
    assert!(json["strategies"]["random"]["seconds"].is_number());
}

#[test]
fn fronts_and_limits() {
    let table = Table::read(csv().as_bytes(), &columns(&["time", "size"])).unwrap();
    let report = replay(&table, &options(&["nsga2"])).unwrap();
    assert_eq!(report.score, Score::Hypervolume);
    assert!((report.strategies["nsga2"].mean[&50] - 1.0).abs() < 1e-9);

    let mut limited = columns(&["time"]);
    limited.limits = vec![parse_limit("size<=30").unwrap()];
    let table = Table::read(csv().as_bytes(), &limited).unwrap();
    let report = replay(&table, &options(&["nsga2"])).unwrap();
    assert_eq!(report.score, Score::Regret);
    assert!(
        report.strategies["nsga2"].mean[&50].abs() < 1e-12
            && report.strategies["nsga2"].mean[&25] >= 0.0
    );
}

#[test]
fn mistakes_are_named() {
    let read = |text: &str, columns: &Columns| {
        Table::read(text.as_bytes(), columns).unwrap_err().to_string()
    };
    assert!(read(&csv(), &columns(&["speed"])).contains("`speed`"));
    assert!(
        read(&csv(), &Columns { minimize: words(&["x"]), ..Columns::default() })
            .contains("parameters")
    );
    assert!(read(&csv(), &columns(&[])).contains("objectives"));
    let mut wrong = columns(&["time"]);
    wrong.log = words(&["size"]);
    assert!(read(&csv(), &wrong).contains("no objective"));
    wrong = columns(&["time"]);
    wrong.params = words(&["x", "time"]);
    assert!(read(&csv(), &wrong).contains("`time`"));
    wrong.params = words(&["kind"]);
    assert!(read(&csv(), &wrong).contains("same parameters"));
    assert!(
        read(&csv().replace("ok,2,", "ok,two,"), &columns(&["time"]))
            .contains("`two` is no number")
    );
    assert!(read(&csv().replace("ok", "broken"), &columns(&["time"])).contains("usable"));
    assert!(read("", &columns(&["time"])).contains("no column"));
    for text in ["size", "size<", "<3", "size<nan"] {
        assert!(parse_limit(text).is_err(), "{text}");
    }
    let table = Table::read(csv().as_bytes(), &columns(&["time"])).unwrap();
    assert!(replay(&table, &options(&["magic"])).unwrap_err().to_string().contains("magic"));
}

#[test]
fn kinds_follow_from_the_columns() {
    let text = "tile,pad,fast,kind,time\n16,0,true,a,1\n2,1,false,b,2\n2.5,1,true,1,3\n";
    let columns = Columns { minimize: words(&["time"]), ..Columns::default() };
    let table = Table::read(text.as_bytes(), &columns).unwrap();
    let kinds: Vec<Kind> =
        table.problem.space.parameters().iter().map(|p| p.domain.kind()).collect();
    assert_eq!(kinds, [Kind::Sizes, Kind::Switch, Kind::Switch, Kind::Choice]);
}
