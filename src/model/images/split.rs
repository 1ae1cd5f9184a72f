//! Assignment of images to the parts of a dataset.
//!
//! The hash of an image's name alone decides its place. The split therefore does not depend on the
//! order in which a file system lists its folders, images added later do not move others to another
//! part, and larger parts contain the smaller ones.

use std::path::Path;

use super::error::ImageError;
use super::source::{Item, Role};

/// Largest numbers of images in each part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SplitSizes {
    /// Largest size of the part [`super::Dataset::calibration`].
    pub calibration: usize,
    /// Largest size of the part [`super::Dataset::search`].
    pub search: usize,
    /// Largest size of the part [`super::Dataset::report`].
    pub report: usize,
}

/// Parts of a dataset as indices into its listing.
#[derive(Debug)]
pub(super) struct Parts {
    pub calibration: Vec<usize>,
    pub search: Vec<usize>,
    pub report: Vec<usize>,
}

impl Parts {
    /// Keeps at most `most` images in all, in proportion, and at least one of each part. Returns a
    /// sentence if some are left out.
    pub fn shrink(&mut self, most: usize) -> Option<String> {
        let parts = [&mut self.calibration, &mut self.search, &mut self.report];
        let all: usize = parts.iter().map(|part| part.len()).sum();
        if all <= most {
            return None;
        }
        let mut kept = 0;
        for part in parts {
            // The counts are far below the precision of a double.
            let share = part.len() as f64 / all as f64 * most as f64;
            part.truncate((share as usize).max(1));
            kept += part.len();
        }
        Some(format!("{kept} of {all} images are used, as many as are kept decoded on disk"))
    }
}

/// Ends of the parts in the hash range for datasets without train and test part.
const CALIBRATION_END: f64 = 0.2;
const SEARCH_END: f64 = 0.6;

/// Splits a listing.
///
/// If there are a train and a test part, calibration images come from the former, and search and
/// report images from disjoint halves of the latter, because a network remembers its training
/// images.
pub(super) fn three_ways(
    items: &[Item],
    sizes: SplitSizes,
    path: &Path,
) -> Result<Parts, ImageError> {
    let train = shuffled(items, |role| role == Role::Train);
    let test = shuffled(items, |role| role == Role::Test);
    let (calibration, (search, report)) = if train.is_empty() || test.is_empty() {
        let mut all = shuffled(items, |_| true);
        enough(all.len(), 3, "", path)?;
        let rest = cut(&mut all, CALIBRATION_END, 2);
        (all, halves(rest, SEARCH_END))
    } else {
        enough(test.len(), 2, " in its test part", path)?;
        (train, halves(test, 0.5))
    };
    let first = |part: Vec<Placed>, cap: usize| {
        part.into_iter().take(cap).map(|placed| placed.item).collect()
    };
    Ok(Parts {
        calibration: first(calibration, sizes.calibration),
        search: first(search, sizes.search),
        report: first(report, sizes.report),
    })
}

/// Returns the images for a final score: the test part, or all images if there is none.
pub(super) fn test_or_all(items: &[Item]) -> Vec<usize> {
    let test: Vec<usize> =
        (0..items.len()).filter(|&item| items[item].role == Role::Test).collect();
    if test.is_empty() { (0..items.len()).collect() } else { test }
}

/// Image with its place in the hash range, 0 to 1.
struct Placed {
    place: f64,
    item: usize,
}

fn shuffled(items: &[Item], wanted: impl Fn(Role) -> bool) -> Vec<Placed> {
    let mut placed: Vec<Placed> = (0..items.len())
        .filter(|&item| wanted(items[item].role))
        .map(|item| Placed { place: place(&items[item].key), item })
        .collect();
    placed.sort_by(|a, b| {
        a.place.total_cmp(&b.place).then_with(|| items[a.item].key.cmp(&items[b.item].key))
    });
    placed
}

fn place(key: &str) -> f64 {
    let hash = blake3::hash(key.as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&hash.as_bytes()[..8]);
    // 53 bits are exact as a double.
    (u64::from_le_bytes(first) >> 11) as f64 / (1_u64 << 53) as f64
}

/// Splits a sorted list at a place of the hash range and returns the rest. At least one item stays
/// and at least `after` follow, which matters for a handful of images only.
fn cut(placed: &mut Vec<Placed>, at: f64, after: usize) -> Vec<Placed> {
    let boundary = placed.partition_point(|placed| placed.place < at);
    placed.split_off(boundary.clamp(1, placed.len() - after))
}

fn halves(mut placed: Vec<Placed>, at: f64) -> (Vec<Placed>, Vec<Placed>) {
    let rest = cut(&mut placed, at, 1);
    (placed, rest)
}

fn enough(found: usize, needed: usize, place: &'static str, path: &Path) -> Result<(), ImageError> {
    if found < needed {
        Err(ImageError::TooFew { path: path.into(), place, found, needed })
    } else {
        Ok(())
    }
}
