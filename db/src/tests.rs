//! Tests of the store against damage, garbage and sudden death.

use std::collections::{BTreeMap, HashSet};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};

use crate::{KeyParts, MAX_LINE_BYTES, MAX_SAMPLES, Outcome, Record, Store, StoreError, thin};

fn parts(number: u64) -> KeyParts {
    KeyParts::new("latency")
        .with("network", "abc")
        .with("number", number)
        .with("hardware", number % 2)
}

fn record(number: u64) -> Record {
    let samples: Vec<f64> = (0..100).map(|i| (number * 1000 + i) as f64 * 1e-6).collect();
    Record::measured(
        parts(number),
        BTreeMap::from([("median".to_owned(), 1e-3)]),
        &samples,
        "0.1.0",
    )
}

fn filled(path: &Path, count: u64) -> Vec<Record> {
    let store = Store::open(path).expect("fresh store");
    let records: Vec<_> = (0..count).map(record).collect();
    for record in &records {
        store.put(record).expect("stored");
    }
    records
}

#[test]
fn records_come_back_as_they_were_after_reopening() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("store");
    let mut records = filled(&path, 20);
    let store = Store::open(&path).expect("reopened");
    let failed = Record::failed(parts(100), "ran out of memory", "0.1.0");
    store.put(&failed).expect("stored");
    records.push(failed);
    for record in &records {
        assert_eq!(store.get(&record.key()).expect("read").as_ref(), Some(record));
    }
    assert_eq!(store.get(&parts(999).key()).expect("read"), None);
    assert_eq!(
        store.iter().map(|record| record.expect("intact").key()).collect::<HashSet<_>>().len(),
        21
    );
    let stats = store.stats().expect("stats");
    assert_eq!((stats.kinds["latency"], stats.failed, stats.damaged), (21, 1, 0));
    assert_eq!(stats.hardware, BTreeMap::from([("0".to_owned(), 11), ("1".to_owned(), 10)]));
    assert!(stats.bytes > 0);
    let verified = store.verify().expect("verified");
    assert_eq!((verified.intact, verified.damaged, verified.unreachable), (21, 0, 0));
    assert!(store.notices().is_empty());
}

#[test]
fn keys_tell_every_difference_apart() {
    let keys = [
        KeyParts::new("a").with("b", "c"),
        KeyParts::new("a").with("bc", ""),
        KeyParts::new("ab").with("c", ""),
        KeyParts::new("a").with("b", "").with("c", ""),
        KeyParts::new("a"),
    ];
    assert_eq!(keys.iter().map(KeyParts::key).collect::<HashSet<_>>().len(), keys.len());
    let key = keys[0].key();
    assert_eq!(key.to_string().parse(), Ok(key));
    // Other machines and later versions must find the records of this one.
    assert_eq!(key.to_string(), KeyParts::new("a").with("b", "c").key().to_string());
}

#[test]
fn implausible_records_are_refused() {
    let folder = tempfile::tempdir().expect("folder");
    let store = Store::open(&folder.path().join("store")).expect("store");
    let mut large = record(1);
    large.key_parts.parts.insert("text".to_owned(), "x".repeat(70_000));
    let mut samples = record(1);
    samples.samples = vec![1.0; MAX_SAMPLES + 1];
    let mut nan = record(1);
    nan.outcome = Outcome::Measured(BTreeMap::from([("median".to_owned(), f64::NAN)]));
    let mut nameless = record(1);
    nameless.key_parts.kind.clear();
    for bad in [large, samples, nan, nameless] {
        assert!(matches!(store.put(&bad), Err(StoreError::Refused { .. })));
    }
    assert_eq!(store.iter().count(), 0);
}

#[test]
fn thinning_keeps_order_and_both_ends() {
    let samples: Vec<f64> = (0..1000).map(f64::from).collect();
    let thinned = thin(&samples);
    assert_eq!((thinned.len(), thinned[0], thinned[MAX_SAMPLES - 1]), (MAX_SAMPLES, 0.0, 999.0));
    assert!(thinned.is_sorted());
    assert_eq!(thin(&samples[..7]), &samples[..7]);
}

#[test]
fn a_second_opener_is_told_who_holds_the_store() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("store");
    let first = Store::open(&path).expect("store");
    let error = Store::open(&path).expect_err("locked");
    assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
    assert!(matches!(error, StoreError::Locked { .. }));
    drop(first);
    Store::open(&path).expect("free again");
}

#[test]
fn paths_that_cannot_be_stores_are_refused() {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("file");
    std::fs::write(&file, "text").expect("written");
    assert!(matches!(Store::open(&file), Err(StoreError::Unusable { .. })));
    assert!(matches!(Store::open(Path::new("/")), Err(StoreError::Unusable { .. })));
    assert!(matches!(Store::open(&file.join("below")), Err(StoreError::Io { .. })));
    assert_eq!(std::fs::read_to_string(&file).expect("still there"), "text");
}

#[test]
fn exports_import_into_another_store_and_newer_records_win() {
    let folder = tempfile::tempdir().expect("folder");
    let records = filled(&folder.path().join("a"), 10);
    let a = Store::open(&folder.path().join("a")).expect("store");
    let mut lines = Vec::new();
    assert_eq!(a.export(&mut lines).expect("exported"), 10);
    let b = Store::open(&folder.path().join("b")).expect("store");
    let mut older = records[0].clone();
    older.created -= 10;
    let mut newer = records[1].clone();
    newer.created += 10;
    b.put(&older).expect("stored");
    b.put(&newer).expect("stored");
    let imported = b.import(&mut &lines[..]).expect("imported");
    assert_eq!(
        (imported.added, imported.replaced, imported.unchanged, imported.rejected),
        (8, 1, 1, 0)
    );
    assert_eq!(b.get(&records[0].key()).expect("read").as_ref(), Some(&records[0]));
    assert_eq!(b.get(&newer.key()).expect("read").as_ref(), Some(&newer));
    let again = b.import(&mut &lines[..]).expect("imported");
    assert_eq!((again.added, again.replaced, again.unchanged), (0, 0, 10));
}

#[test]
fn garbage_is_counted_and_skipped_by_import() {
    let folder = tempfile::tempdir().expect("folder");
    filled(&folder.path().join("a"), 2);
    let a = Store::open(&folder.path().join("a")).expect("store");
    let mut good = Vec::new();
    a.export(&mut good).expect("exported");
    let first = String::from_utf8(good).expect("text").lines().next().expect("line").to_owned();
    let mut input = Vec::new();
    for line in [
        "",
        "{",
        "[1, 2]",
        &first.replace("\"abc\"", "\"abd\""),
        &first.replace("record/1", "record/9"),
        &format!("\"{}\"", "x".repeat(MAX_LINE_BYTES as usize)),
        &first,
    ] {
        input.extend_from_slice(line.as_bytes());
        input.push(b'\n');
    }
    input.extend_from_slice(&[0xff, 0xfe, 0]);
    let b = Store::open(&folder.path().join("b")).expect("store");
    let imported = b.import(&mut &input[..]).expect("imported");
    assert_eq!((imported.added, imported.rejected), (1, 6));
    assert!(imported.reasons[0].starts_with("line 2: "), "{:?}", imported.reasons);
}

#[test]
fn compaction_keeps_every_record_and_gives_space_back() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("store");
    let records = filled(&path, 30);
    let mut store = Store::open(&path).expect("store");
    for round in 0..20 {
        for record in &records {
            let mut record = record.clone();
            record.created += round;
            store.put_unflushed(&record).expect("stored");
        }
    }
    store.flush().expect("flushed");
    let compacted = store.compact().expect("compacted");
    assert_eq!(compacted.records, 30);
    assert!(compacted.bytes_after <= compacted.bytes_before, "{compacted:?}");
    assert_eq!(store.iter().count(), 30);
    store.put(&record(31)).expect("still usable");
    drop(store);
    assert_eq!(Store::open(&path).expect("store").iter().count(), 31);
    assert_eq!(
        std::fs::read_dir(folder.path()).expect("listed").count(),
        2,
        "the folder and its lock"
    );
}

#[test]
fn a_compaction_killed_between_its_renames_is_finished() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("store");
    filled(&path, 5);
    std::fs::rename(&path, folder.path().join("store.compact-old")).expect("renamed");
    std::fs::create_dir(folder.path().join("store.compact-new")).expect("created");
    assert_eq!(Store::open(&path).expect("store").iter().count(), 5);
}

/// Body of the child process of the next test. It does nothing when it is run by itself.
#[test]
fn child_that_writes_until_killed() {
    let Some(path) = std::env::var_os("PARETUNE_DB_CHILD") else { return };
    let store = Store::open(Path::new(&path)).expect("store");
    for notice in store.notices() {
        println!("notice {notice}");
    }
    let start = store.iter().count() as u64;
    for number in start.. {
        store.put(&record(number)).expect("stored");
        println!("acknowledged {number}");
    }
}

#[test]
fn kill_9_loses_nothing_acknowledged() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("store");
    let mut last = 0;
    for round in 1..=4 {
        let mut child = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "tests::child_that_writes_until_killed", "--nocapture"])
            .env("PARETUNE_DB_CHILD", &path)
            .stdout(Stdio::piped())
            .spawn()
            .expect("child");
        let lines = BufReader::new(child.stdout.take().expect("pipe")).lines();
        let mut acknowledged = lines.map_while(Result::ok).filter_map(|line| {
            assert!(!line.contains("notice "), "{line}");
            line.strip_prefix("acknowledged ").and_then(|number| number.parse::<u64>().ok())
        });
        last = acknowledged.by_ref().nth(40 * round).expect("the child writes");
        child.kill().expect("killed");
        // Records whose acknowledgment was printed before the kill but not yet read count as well.
        last = acknowledged.last().unwrap_or(last);
        child.wait().expect("reaped");
    }
    let store = Store::open(&path).expect("store");
    for number in 0..=last {
        assert!(
            store.get(&parts(number).key()).expect("read").is_some(),
            "record {number} of {last}"
        );
    }
    assert_eq!(store.stats().expect("stats").damaged, 0);
}

/// Kinds of damage that a file can suffer.
#[derive(Clone, Copy, Debug)]
enum Damage {
    Flip { place: u64, bits: u8 },
    Zero { place: u64, length: u64 },
    Cut { place: u64 },
}

impl Damage {
    fn strike(self, bytes: &mut Vec<u8>) {
        // Most of sled's file is empty space: damage must hit the bytes that are written.
        let used = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        if used == 0 {
            return;
        }
        let aim = |place: u64| (place % used as u64) as usize;
        match self {
            Self::Flip { place, bits } => bytes[aim(place)] ^= bits,
            Self::Zero { place, length } => {
                let end = (aim(place) + length as usize).min(used);
                bytes[aim(place)..end].fill(0);
            }
            Self::Cut { place } => bytes.truncate(aim(place)),
        }
    }
}

/// Copies a store and damages every file of it.
fn damaged_copy(from: &Path, to: &Path, damage: &[Damage]) {
    std::fs::create_dir_all(to).expect("folder");
    for entry in std::fs::read_dir(from).expect("listed") {
        let entry = entry.expect("entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            damaged_copy(&entry.path(), &target, damage);
            continue;
        }
        let mut bytes = std::fs::read(entry.path()).expect("read");
        damage.iter().for_each(|damage| damage.strike(&mut bytes));
        std::fs::write(target, bytes).expect("written");
    }
}

/// Opens damaged copies of a store of 40 records, checks that their records are right and that they
/// are usable, and calls `judge` with the number of records left.
fn survive(damage: impl Strategy<Value = Vec<Damage>>, judge: impl Fn(usize, &[Damage]) -> bool) {
    let folder = tempfile::tempdir().expect("folder");
    let sound = folder.path().join("sound");
    let records = filled(&sound, 40);
    // The environment variable raises the number of cases for a long run.
    let cases =
        std::env::var("PARETUNE_DB_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(16);
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let result = TestRunner::new_with_rng(config, rng).run(&damage, |damage| {
        let case = tempfile::tempdir_in(folder.path()).expect("folder");
        let path = case.path().join("store");
        damaged_copy(&sound, &path, &damage);
        let store = Store::open_within(&path, Duration::from_secs(2)).expect("opens all the same");
        let notices = store.notices();
        let left: Vec<_> = store.iter().collect::<Result<_, _>>().expect("readable");
        prop_assert!(left.iter().all(|record| records.contains(record)));
        prop_assert!(judge(left.len(), &damage), "{} left; {notices:?}", left.len());
        store.put(&record(1000)).expect("usable");
        prop_assert!(store.get(&parts(1000).key()).expect("read").is_some());
        Ok(())
    });
    result.expect("every damaged store opens");
}

#[test]
fn flipped_bytes_neither_hang_nor_panic_and_cost_few_records() {
    let flip = (any::<u64>(), 1_u8..).prop_map(|(place, bits)| Damage::Flip { place, bits });
    // A flipped byte costs at most the record that it lies in.
    survive(prop::collection::vec(flip, 1..4), |left, damage| left + damage.len() >= 40);
}

#[test]
fn torn_and_blanked_files_open_with_what_is_left() {
    let zero =
        (any::<u64>(), 1_u64..8192).prop_map(|(place, length)| Damage::Zero { place, length });
    let cut = any::<u64>().prop_map(|place| Damage::Cut { place });
    survive(prop::collection::vec(prop_oneof![zero, cut], 1..4), |_, _| true);
}
