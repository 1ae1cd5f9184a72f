//! Labels of the images in a folder: from their class folders or from a file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::decode;
use super::error::ImageError;
use super::folder::Found;
use super::labels::{ClassIndex, LabelFile};
use super::listing::LeftOut;
use super::options::ImageOptions;
use super::source::{Item, Role};

/// Listing with labels.
pub(super) struct Labelled {
    pub classes: Vec<String>,
    pub items: Vec<Item>,
    pub notes: Vec<String>,
}

type Image = (String, Role, Option<String>);

/// Gives every image its label.
///
/// # Errors
///
/// Fails if class folders and the network's outputs do not belong together.
pub(super) fn assign(
    root: &Path,
    found: Found,
    options: &ImageOptions,
) -> Result<Labelled, ImageError> {
    let Found { mut images, classes, mut left_out } = found;
    let mut notes = Vec::new();
    let (classes, labels) = if let Some(path) = &options.labels {
        from_file(root, path, &mut images, options, &mut left_out)?
    } else if images.iter().all(|(_, _, class)| class.is_some()) {
        from_folders(root, &images, classes, options, &mut notes)?
    } else if images.iter().all(|(_, _, class)| class.is_none()) {
        (options.classes.clone(), vec![None; images.len()])
    } else {
        return Err(ImageError::format(
            root,
            "one part has class folders, and the other one has images without them",
        ));
    };
    notes.push(format!("images: {}", formats(&images)));
    notes.extend(left_out.notes());
    let items = images
        .into_iter()
        .zip(labels)
        .map(|((key, role, _), label)| Item { key, label, role })
        .collect();
    Ok(Labelled { classes, items, notes })
}

type Labels = (Vec<String>, Vec<Option<u32>>);

/// Labels images by their class folders.
fn from_folders(
    root: &Path,
    images: &[Image],
    folders: BTreeSet<String>,
    options: &ImageOptions,
    notes: &mut Vec<String>,
) -> Result<Labels, ImageError> {
    let filled: BTreeSet<&str> =
        images.iter().filter_map(|(_, _, class)| class.as_deref()).collect();
    let empty: Vec<&str> =
        folders.iter().map(String::as_str).filter(|name| !filled.contains(name)).collect();
    let classes = if options.classes.is_empty() {
        order(root, &folders, &filled, &empty, options.outputs, notes)?
    } else {
        options.classes.clone()
    };
    let index = ClassIndex::new(&classes);
    let unknown: Vec<&str> =
        filled.iter().copied().filter(|name| index.find(name).is_none()).collect();
    if !unknown.is_empty() {
        return Err(ImageError::UnknownClasses {
            path: root.into(),
            unknown: listed(&unknown),
            known: listed(&classes.iter().map(String::as_str).collect::<Vec<_>>()),
        });
    }
    let labels =
        images.iter().map(|(_, _, class)| index.find(class.as_deref().unwrap_or_default()));
    let labels = labels.collect();
    Ok((classes, labels))
}

/// Returns the class folders in the order of the network's outputs, which is that of their names.
fn order(
    root: &Path,
    folders: &BTreeSet<String>,
    filled: &BTreeSet<&str>,
    empty: &[&str],
    outputs: Option<usize>,
    notes: &mut Vec<String>,
) -> Result<Vec<String>, ImageError> {
    let all: Vec<String> = folders.iter().cloned().collect();
    let some: Vec<String> = filled.iter().map(|&name| name.to_owned()).collect();
    let (classes, said) = match outputs {
        Some(outputs) if all.len() == outputs => {
            (all, "count as classes, as the network has an output for each")
        }
        Some(outputs) if some.len() == outputs => {
            (some, "are left out, as the network has outputs for the others alone")
        }
        Some(outputs) => {
            return Err(ImageError::ClassCount {
                path: root.into(),
                found: some.len(),
                names: listed(&some.iter().map(String::as_str).collect::<Vec<_>>()),
                empty: if empty.is_empty() {
                    String::new()
                } else {
                    format!(" and {} without images ({})", empty.len(), listed(empty))
                },
                outputs,
            });
        }
        None => (all, "count as classes"),
    };
    if !empty.is_empty() {
        notes.push(format!(
            "{} class folder(s) without images ({}) {said}",
            empty.len(),
            listed(empty)
        ));
    }
    Ok(classes)
}

/// Labels images by the file `path`, and leaves out those that it does not name.
fn from_file(
    root: &Path,
    path: &Path,
    images: &mut Vec<Image>,
    options: &ImageOptions,
    left_out: &mut LeftOut,
) -> Result<Labels, ImageError> {
    let file = LabelFile::read(path)?;
    images.retain_mut(|(key, _, class)| match file.class(key) {
        Some(name) => {
            *class = Some(name.to_owned());
            true
        }
        None => {
            left_out.unlabelled(key);
            false
        }
    });
    if images.is_empty() {
        return Err(ImageError::format(
            path,
            format!("none of its {} names is an image in {}", file.len(), root.display()),
        ));
    }
    let named: BTreeSet<&str> =
        images.iter().filter_map(|(_, _, class)| class.as_deref()).collect();
    let index = ClassIndex::new(&options.classes);
    let numbers: Option<BTreeMap<&str, u32>> =
        named.iter().map(|name| Some((*name, name.parse().ok()?))).collect();
    // Names are looked up among the classes; otherwise numbers are the places of outputs.
    if named.iter().all(|name| index.find(name).is_some()) {
        let labels = images.iter().map(|(_, _, class)| index.find(class.as_deref()?)).collect();
        return Ok((options.classes.clone(), labels));
    }
    if let Some(numbers) = numbers {
        let labels =
            images.iter().map(|(_, _, class)| numbers.get(class.as_deref()?).copied()).collect();
        return Ok((options.classes.clone(), labels));
    }
    if !options.classes.is_empty() {
        let unknown: Vec<&str> =
            named.iter().copied().filter(|name| index.find(name).is_none()).collect();
        let known: Vec<&str> = options.classes.iter().map(String::as_str).collect();
        return Err(ImageError::UnknownClasses {
            path: path.into(),
            unknown: listed(&unknown),
            known: listed(&known),
        });
    }
    let classes: Vec<String> = named.iter().map(|&name| name.to_owned()).collect();
    if let Some(outputs) = options.outputs.filter(|&outputs| outputs != classes.len()) {
        return Err(ImageError::ClassCount {
            path: path.into(),
            found: classes.len(),
            names: listed(&named.iter().copied().collect::<Vec<_>>()),
            empty: String::new(),
            outputs,
        });
    }
    let index = ClassIndex::new(&classes);
    let labels = images.iter().map(|(_, _, class)| index.find(class.as_deref()?)).collect();
    Ok((classes, labels))
}

/// Returns the number of images of each format that file names promise.
fn formats(images: &[Image]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (key, _, _) in images {
        *counts.entry(decode::format(key).unwrap_or("other")).or_default() += 1;
    }
    let counts: Vec<String> =
        counts.into_iter().map(|(format, count)| format!("{count} {format}")).collect();
    counts.join(", ")
}

/// Returns the first few names of a list in words.
fn listed(names: &[&str]) -> String {
    const SHOWN: usize = 5;
    let mut text = names.iter().take(SHOWN).copied().collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        text += &format!(" and {} more", names.len() - SHOWN);
    }
    text
}
