//! The unmodified network on some of its images: does what it says make sense?
//!
//! A search improves on the baseline, so a baseline that was given the wrong mean, the wrong
//! classes or the wrong images wastes all of it. Whatever cannot be meant is an error; whatever may
//! be a mistake is said, together with the accuracy and that of guessing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use paretune_evaluate::accuracy::outputs;
use paretune_evaluate::decision::Decision;
use paretune_kernels::Plan;
use paretune_kernels::hardware::Isa;
use paretune_model::images::{Dataset, Images};
use paretune_record::request::Normalization;
use paretune_record::score::Score;

use crate::prepare::PrepareError;

/// Largest number of images that the unmodified network is run on.
const IMAGES: usize = 512;
/// Number of images in the first run, whose time tells how many more are affordable.
const FIRST: usize = 16;
/// Seconds that the check may take, roughly.
const SECONDS: f64 = 2.0;
/// Least number of images from which a low accuracy or a constant answer is worth a word.
const TELLING: u64 = 12;

/// Kind of a network's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// A score for each class, or the place of the largest one.
    Scores(usize),
    /// One number, which decides between two classes.
    Binary,
}

impl Head {
    /// Returns the kind of the outputs of `plan`.
    ///
    /// # Errors
    /// Fails if the outputs are a map, which has no class.
    pub fn of(plan: &Plan) -> Result<Self, String> {
        let dims = plan.values.get(plan.output).map(|value| value.dims.as_slice()).unwrap_or(&[]);
        let all: usize = dims.iter().product();
        match all {
            0 => Err("the network has no output".to_owned()),
            1 => Ok(match Decision::of(plan) {
                Decision::Place(classes) => Self::Scores(classes),
                _ => Self::Binary,
            }),
            _ if dims.contains(&all) => Ok(Self::Scores(all)),
            _ => Err(format!(
                "the network is not a classifier: its output {dims:?} is a map (scores per pixel or \
                 per box), of which accuracy says nothing; a network whose output is one score per \
                 class is needed"
            )),
        }
    }

    /// Returns the number of classes that are told apart.
    #[must_use]
    pub fn classes(self) -> usize {
        match self {
            Self::Scores(classes) => classes,
            Self::Binary => 2,
        }
    }
}

/// Runs the network on images of the search part. Returns sentences for the user. Unless the order
/// of the classes is given (`ordered`), and if class folders
/// have numbers as names and the network proves to number its outputs so, the labels are changed
/// from the order of names to that of numbers.
///
/// # Errors
/// Fails if labels are not those of the network, or if all outputs are NaN.
pub fn check(
    plan: &Plan,
    head: Head,
    dataset: &mut Dataset,
    normalization: &Normalization,
    ordered: bool,
) -> Result<Vec<String>, PrepareError> {
    let classes = head.classes();
    let parts = [&dataset.calibration, &dataset.search, &dataset.report];
    let highest = parts.iter().flat_map(|part| part.labels.iter().copied()).max();
    if let Some(label) = highest.filter(|&label| label as usize >= classes) {
        return Err(PrepareError::Request(format!(
            "the images have labels up to {label}, but the network tells {classes} classes apart, 0 \
             to {}: these are not the images of this network",
            classes - 1
        )));
    }
    if !dataset.classes.is_empty() && dataset.classes.len() != classes {
        return Err(PrepareError::Request(format!(
            "{} classes are named, but the network tells {classes} apart; name its outputs in \
             order, a class name a line, with `--classes FILE`",
            dataset.classes.len()
        )));
    }
    let mut notes = Vec::new();
    if let Decision::Above(threshold) = Decision::of(plan) {
        notes.push(format!(
            "the network has one number as its output: a binary classifier, class 1 above the \
             threshold {threshold}"
        ));
    }
    let found = Answers::of(plan, &dataset.search, normalization)?;
    notes.extend(found.oddities(classes)?);
    if dataset.search.is_labelled() {
        if !ordered {
            notes.extend(reorder(dataset, &found.classes));
        }
        let labels = &dataset.search.labels[..found.classes.len()];
        notes.extend(accuracy(&found.classes, labels, classes, normalization));
    } else {
        notes.push(
            "baseline: the images have no labels, so accuracy is the agreement with the unmodified \
             network"
                .to_owned(),
        );
    }
    Ok(notes)
}

/// Answers of the unmodified network to the first images.
struct Answers {
    classes: Vec<u32>,
    /// Number of images with an output that is not a number.
    nan: usize,
    /// Number of images with an infinite output.
    infinite: usize,
}

impl Answers {
    /// Runs `plan` on as many images as the time allows.
    fn of(
        plan: &Plan,
        images: &Images,
        normalization: &Normalization,
    ) -> Result<Self, PrepareError> {
        let decision = Decision::of(plan);
        let look = |outputs: &[f32]| {
            let nan = outputs.iter().any(|output| output.is_nan());
            let infinite = outputs.iter().any(|output| output.is_infinite());
            (decision.class(outputs), nan, infinite)
        };
        let begun = Instant::now();
        let isa = Isa::detect();
        let mut seen = outputs(plan, &images.take(FIRST), normalization, isa, look)?;
        let rounds = SECONDS / begun.elapsed().as_secs_f64().max(1e-3) - 1.0;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a small positive number"
        )]
        let more = FIRST * rounds.clamp(0.0, (IMAGES / FIRST) as f64) as usize;
        let rest = images.slice(FIRST..(FIRST + more).min(IMAGES));
        seen.extend(outputs(plan, &rest, normalization, isa, look)?);
        Ok(Self {
            nan: seen.iter().filter(|(_, nan, _)| *nan).count(),
            infinite: seen.iter().filter(|(_, _, infinite)| *infinite).count(),
            classes: seen.into_iter().map(|(class, _, _)| class).collect(),
        })
    }

    /// Returns sentences about outputs that are not numbers, and about answers that never change.
    fn oddities(&self, classes: usize) -> Result<Vec<String>, PrepareError> {
        let count = self.classes.len();
        let mut notes = Vec::new();
        if self.nan == count && count > 0 {
            return Err(PrepareError::Request(format!(
                "the outputs of the network are not numbers (NaN) for all of {count} images: its \
                 weights are damaged, or --mean and --std are not those of its training"
            )));
        }
        for (odd, what) in [(self.nan, "not numbers (NaN)"), (self.infinite, "infinite")] {
            if odd > 0 {
                notes.push(format!(
                    "warning: outputs of the network are {what} for {odd} of {count} images"
                ));
            }
        }
        let first = self.classes.first().copied().unwrap_or_default();
        if classes > 1
            && count as u64 >= TELLING
            && self.classes.iter().all(|&class| class == first)
        {
            notes.push(format!(
                "warning: the network answers class {first} for all of {count} images; check \
                 --mean, --std and --scale"
            ));
        }
        Ok(notes)
    }
}

/// Returns sentences about the accuracy, and a warning if guessing is as good.
fn accuracy(
    answers: &[u32],
    labels: &[u32],
    classes: usize,
    normalization: &Normalization,
) -> Vec<String> {
    let score = Score::count(answers, answers, labels);
    let mut counts: BTreeMap<u32, u64> = BTreeMap::new();
    for &label in labels {
        *counts.entry(label).or_default() += 1;
    }
    #[expect(clippy::cast_precision_loss, reason = "counts of images are far below 2^53")]
    let (chance, frequent) = (
        1.0 / classes as f64,
        counts.values().copied().max().unwrap_or(0) as f64 / score.total.max(1) as f64,
    );
    let [low, high] = score.interval();
    let mut notes = vec![format!(
        "baseline: {:.1} % of {} images are classified correctly (95 % interval {:.1} to {:.1} %); \
         guessing among {classes} classes would give {:.1} %",
        100.0 * score.accuracy(),
        score.total,
        100.0 * low,
        100.0 * high,
        100.0 * chance,
    )];
    if score.total < TELLING {
        return notes;
    }
    if counts.len() > 1 && low <= chance {
        let Normalization { mean, std } = normalization;
        notes.push(format!(
            "warning: that is no better than guessing. Are --mean {mean:?} and --std {std:?} those \
             of the training, on the scale of 0 to 255 (--scale 1 for numbers below 1)? Is the \
             order of the classes that of the outputs (--classes FILE), and that of the channels \
             (--channels bgr)?"
        ));
    } else if counts.len() > 1 && high < frequent {
        notes.push(format!(
            "warning: always answering the most frequent class would give {:.1} %",
            100.0 * frequent
        ));
    } else if counts.len() == 1 && classes > 1 {
        notes.push("warning: all of these images have one label".to_owned());
    }
    notes
}

/// Changes labels from the order of names (0, 1, 10, 2) to that of numbers (0, 1, 2, 10) if the
/// network answers that way. Returns a sentence if the orders differ.
fn reorder(dataset: &mut Dataset, answers: &[u32]) -> Option<String> {
    let numbers: Option<Vec<u64>> =
        dataset.classes.iter().map(|name| name.parse::<u64>().ok()).collect();
    let numbers = numbers.filter(|numbers| numbers.len() > 1)?;
    let mut order: Vec<usize> = (0..numbers.len()).collect();
    order.sort_by_key(|&class| numbers[class]);
    if order.is_sorted() || !dataset.classes.is_sorted() {
        return None;
    }
    let mut places = vec![0_u32; order.len()];
    for (place, &class) in (0_u32..).zip(&order) {
        places[class] = place;
    }
    let labels = &dataset.search.labels[..answers.len()];
    let renumbered: Vec<u32> = labels.iter().map(|&label| places[label as usize]).collect();
    let correct = |labels: &[u32]| Score::count(answers, answers, labels).correct;
    let (by_name, by_number) = (correct(labels), correct(&renumbered));
    let total = answers.len();
    if by_number <= by_name {
        return Some(format!(
            "class folders are in the order of their names (0, 1, 10, 2), in which {by_name} of \
             {total} images are classified correctly; in that of their numbers {by_number} would be"
        ));
    }
    for part in [&mut dataset.calibration, &mut dataset.search, &mut dataset.report] {
        let labels: Arc<[u32]> = part.labels.iter().map(|&label| places[label as usize]).collect();
        part.labels = labels;
    }
    dataset.classes = order.iter().map(|&class| dataset.classes[class].clone()).collect();
    Some(format!(
        "class folders are in the order of their numbers (0, 1, 2, 10), in which {by_number} of \
         {total} images are classified correctly; in that of their names {by_name} would be"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(labels: &[u32]) -> Images {
        Images { dims: [1, 1, 1], pixels: vec![0; labels.len()].into(), labels: labels.into() }
    }

    fn dataset(classes: &[&str], labels: &[u32]) -> Dataset {
        Dataset {
            classes: classes.iter().map(|&name| name.to_owned()).collect(),
            calibration: part(labels),
            search: part(labels),
            report: part(labels),
        }
    }

    #[test]
    fn folders_of_numbers_follow_the_order_that_the_network_answers() {
        let names = ["0", "1", "10", "2"];
        let mut data = dataset(&names, &[0, 1, 2, 3]);
        // The network numbers its outputs 0, 1, 2, 10.
        let note = reorder(&mut data, &[0, 1, 3, 2]).unwrap();
        assert!(note.contains("order of their numbers"), "{note}");
        assert_eq!(data.classes, ["0", "1", "2", "10"]);
        assert_eq!(&*data.report.labels, [0, 1, 3, 2]);
        let mut data = dataset(&names, &[0, 1, 2, 3]);
        assert!(reorder(&mut data, &[0, 1, 2, 3]).unwrap().contains("order of their names"));
        assert_eq!(data, dataset(&names, &[0, 1, 2, 3]));
        assert_eq!(reorder(&mut dataset(&["00", "01", "02"], &[0]), &[0]), None);
        assert_eq!(reorder(&mut dataset(&["cat", "dog"], &[0]), &[0]), None);
    }

    #[test]
    fn guessing_is_told_apart_from_knowing() {
        let normalization = Normalization { mean: vec![0.0], std: vec![1.0] };
        let labels: Vec<u32> = (0..100).map(|index| index % 10).collect();
        let told = |answers: &[u32]| accuracy(answers, &labels, 10, &normalization);
        assert_eq!(told(&labels).len(), 1);
        let wrong = told(&[3; 100]);
        assert!(wrong[0].contains("10.0 % of 100 images"), "{wrong:?}");
        assert!(wrong[1].contains("no better than guessing"), "{wrong:?}");
    }

    #[test]
    fn answers_that_make_no_sense_are_said() {
        let all = |nan| Answers { classes: vec![0; 20], nan, infinite: 0 };
        assert!(all(20).oddities(10).unwrap_err().to_string().contains("NaN"));
        let notes = all(3).oddities(10).unwrap();
        assert!(notes[0].contains("3 of 20"), "{notes:?}");
        assert!(notes[1].contains("answers class 0 for all of 20"), "{notes:?}");
    }
}
