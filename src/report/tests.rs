//! Tests of all printed formats with a synthetic study.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use paretune_demo as demo;
use paretune_record::front::Front;
use paretune_record::metric::Metric;
use paretune_record::preference::Preference;

use super::{PlainProgress, TableStyle, csv, summary, svg, table};

fn front() -> Front {
    let mut front = demo::front(150, true);
    front.points.truncate(9);
    front
}

#[test]
fn tables_are_aligned_with_and_without_a_feasible_point() {
    insta::assert_snapshot!("table", table(&front(), TableStyle::default()));
    let hard = demo::front(150, false);
    insta::assert_snapshot!("table-missed", table(&hard, TableStyle { rows: 4, color: false }));
    let colored = table(&front(), TableStyle { color: true, rows: 0 });
    assert!(colored.contains("\x1b[1m*"));
}

#[test]
fn csv_has_a_field_for_every_name_on_every_line() {
    let mut front = front();
    front.points[0].origin = "a \"recipe\", quoted".to_owned();
    let text = csv(&front);
    insta::assert_snapshot!("csv", text);
    assert!(text.contains("\"a \"\"recipe\"\", quoted\""));
    let fields: Vec<_> = text.lines().skip(2).map(|line| line.matches(',').count()).collect();
    assert!(
        fields
            .iter()
            .all(|count| *count == text.lines().next().map_or(0, |line| line.matches(',').count()))
    );
}

#[test]
fn summaries_name_the_best_or_the_nearest_miss() {
    insta::assert_snapshot!("summary", summary(&front(), "out/resnet20", Preference::default()));
    insta::assert_snapshot!(
        "summary-missed",
        summary(&demo::front(150, false), "my study", Preference::Metric(Metric::Latency))
    );
    let mut empty = front();
    empty.points.clear();
    assert!(summary(&empty, "s", Preference::default()).contains("Nothing was found"));
}

#[test]
fn pictures_are_well_formed_and_hold_every_point() {
    let mut front = front();
    front.model.name = "<a & b>".to_owned();
    let text = svg(&front, &[], Metric::Latency, Metric::Accuracy);
    assert_eq!(text.matches("<circle").count(), front.points.len());
    assert!(text.contains("&lt;a &amp; b&gt;") && text.contains("best: ") && !text.contains("NaN"));
    insta::assert_snapshot!("svg", svg(&self::front(), &[], Metric::Size, Metric::Accuracy));
    // An empty archive must not fail.
    front.points.clear();
    for metric in [Metric::Size, Metric::Memory] {
        assert!(svg(&front, &[], metric, Metric::Accuracy).ends_with("</svg>\n"));
    }
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().map_err(|_| io::ErrorKind::Other)?.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn plain_progress_tells_what_matters_in_few_lines() {
    let shared = Shared::default();
    let mut progress = PlainProgress::lines(Box::new(shared.clone()));
    demo::study(150, true).iter().for_each(|event| progress.event(event));
    let text = String::from_utf8(shared.0.lock().expect("not poisoned").clone()).expect("text");
    insta::assert_snapshot!("plain", text);
}

#[test]
fn a_writer_that_fails_does_not_end_the_search() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    }
    let mut progress = PlainProgress::lines(Box::new(Closed));
    demo::study(20, false).iter().for_each(|event| progress.event(event));
}
