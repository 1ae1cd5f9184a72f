//! Names of the folders that part a data set into images for training and for tests.

use std::path::Path;

use super::error::ImageError;
use super::listing::Entries;
use super::source::Role;

/// Names of folders with training images, in small letters.
const TRAIN: [&str; 4] = ["train", "training", "train_images", "trainset"];
/// Names of folders with other images in small letters, the preferred ones first.
const TEST: [&str; 9] = [
    "test",
    "testing",
    "test_images",
    "testset",
    "val",
    "valid",
    "validation",
    "eval",
    "evaluation",
];

/// Parts of a folder, each with its name and role, and the names of folders that stay unused.
#[derive(Debug, Default)]
pub(super) struct Parts {
    pub parts: Vec<(String, Role)>,
    pub unused: Vec<String>,
}

/// Finds the parts in the folder `root`, whose contents are `entries`; none if its folders are
/// classes.
///
/// # Errors
///
/// Fails if a folder cannot be listed, or if two folders have the same part's name.
pub(super) fn find(root: &Path, entries: &Entries) -> Result<Parts, ImageError> {
    let named = |name: &str| -> Result<Option<&String>, ImageError> {
        let mut found = entries.folders.iter().filter(|folder| folder.to_lowercase() == name);
        match (found.next(), found.next()) {
            (Some(first), Some(second)) => Err(ImageError::format(
                root,
                format!("both {first}/ and {second}/ may be the {name} part; rename one of them"),
            )),
            (first, _) => Ok(first),
        }
    };
    let first = |names: &[&str]| -> Result<Option<&String>, ImageError> {
        for name in names {
            if let Some(found) = named(name)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    };
    let train = first(&TRAIN)?;
    let test = first(&TEST)?;
    let parts: Vec<(String, Role)> = train
        .map(|name| (name.clone(), Role::Train))
        .into_iter()
        .chain(test.map(|name| (name.clone(), Role::Test)))
        .collect();
    if parts.is_empty() {
        return Ok(Parts::default());
    }
    let unused: Vec<String> = entries
        .folders
        .iter()
        .filter(|folder| !parts.iter().any(|(part, _)| part == *folder))
        .cloned()
        .collect();
    // `train` may be a class beside `bus` and `car`: it then holds images and no classes, as its
    // neighbors do.
    let known = |name: &String| {
        let name = name.to_lowercase();
        TRAIN.contains(&name.as_str()) || TEST.contains(&name.as_str())
    };
    let mut classes = false;
    for neighbor in unused.iter().filter(|name| !known(name)) {
        classes |= Entries::read(&root.join(neighbor))?.any_image().is_some();
    }
    if classes {
        for (part, _) in &parts {
            classes &= Entries::read(&root.join(part))?.folders.is_empty();
        }
    }
    Ok(if classes { Parts::default() } else { Parts { parts, unused } })
}
