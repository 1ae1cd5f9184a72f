//! Image files: in a folder per class, or in one folder with or without a file of labels.
//!
//! Listing looks at names only. Labels follow the sorted names of the class folders (in byte order,
//! like PyTorch's `ImageFolder`), or the order of the classes that the user gives.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use paretune_kernels::image::Transform;

use super::classes;
use super::decode;
use super::error::ImageError;
use super::fit::fit;
use super::listing::{Entries, LeftOut, join};
use super::options::ImageOptions;
use super::parts::{self, Parts};
use super::source::{Item, Role, Source};

/// Depth to which a class folder is searched; deeper folders are circular links.
const MAX_DEPTH: usize = 8;

pub(super) struct Folder {
    root: PathBuf,
    expected: [usize; 3],
    transform: Transform,
    classes: Vec<String>,
    items: Vec<Item>,
    notes: Vec<String>,
}

/// Images and classes found in a folder.
#[derive(Default)]
pub(super) struct Found {
    /// Path, part, and class folder of each image.
    pub images: Vec<(String, Role, Option<String>)>,
    /// Names of all class folders, empty ones included.
    pub classes: BTreeSet<String>,
    /// Everything else.
    pub left_out: LeftOut,
}

/// Lists a folder of images.
pub(super) fn open(
    root: &Path,
    expected: [usize; 3],
    options: &ImageOptions,
) -> Result<Folder, ImageError> {
    let entries = Entries::read(root)?;
    let Parts { mut parts, unused } = parts::find(root, &entries)?;
    let mut notes = Vec::new();
    if parts.is_empty() {
        // Datasets are often unpacked into a folder of their own, and no single class is called
        // `train`.
        if let (1, Some(inner)) = (entries.folders.len(), entries.folders.first()) {
            let inner = root.join(inner);
            if let Some((part, _)) = parts::find(&inner, &Entries::read(&inner)?)?.parts.first() {
                return Err(ImageError::Outer { path: root.into(), inner, part: part.clone() });
            }
        }
        parts.push((String::new(), Role::Whole));
    } else if !unused.is_empty() {
        notes.push(format!(
            "not used beside {}: {}",
            parts.iter().map(|(part, _)| format!("{part}/")).collect::<Vec<_>>().join(" and "),
            unused.join(", ")
        ));
    }
    let mut found = Found::default();
    for (name, role) in &parts {
        let folder = if name.is_empty() { root.to_owned() } else { root.join(name) };
        list_part(&folder, name, *role, &mut found)?;
    }
    if found.images.is_empty() {
        let hint = match found.left_out.other_formats() {
            Some(others) => format!("; there are {others}"),
            None => String::new(),
        };
        return Err(ImageError::Nothing { path: root.into(), hint });
    }
    let labelled = classes::assign(root, found, options)?;
    notes.extend(labelled.notes);
    Ok(Folder {
        root: root.to_owned(),
        expected,
        transform: options.transform,
        classes: labelled.classes,
        items: labelled.items,
        notes,
    })
}

/// Lists one part: the root itself, or its folder of training or test images.
fn list_part(folder: &Path, prefix: &str, role: Role, found: &mut Found) -> Result<(), ImageError> {
    let entries = Entries::read(folder)?;
    let images = entries.images(prefix, &mut found.left_out);
    if let (Some(image), Some(class)) = (images.first(), entries.folders.first()) {
        return Err(ImageError::Mixed {
            path: folder.into(),
            folder: class.clone(),
            image: (*image).clone(),
        });
    }
    found.images.extend(images.into_iter().map(|name| (join(prefix, name), role, None)));
    for class in &entries.folders {
        found.classes.insert(class.clone());
        list_class(&folder.join(class), &join(prefix, class), class, role, 0, found)?;
    }
    Ok(())
}

fn list_class(
    folder: &Path,
    prefix: &str,
    class: &str,
    role: Role,
    depth: usize,
    found: &mut Found,
) -> Result<(), ImageError> {
    if depth > MAX_DEPTH {
        return Err(ImageError::format(
            folder,
            format!("folders are nested more than {MAX_DEPTH} deep"),
        ));
    }
    let entries = Entries::read(folder)?;
    let images = entries.images(prefix, &mut found.left_out);
    found
        .images
        .extend(images.into_iter().map(|name| (join(prefix, name), role, Some(class.to_owned()))));
    for inner in &entries.folders {
        list_class(&folder.join(inner), &join(prefix, inner), class, role, depth + 1, found)?;
    }
    Ok(())
}

impl Source for Folder {
    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn items(&self) -> &[Item] {
        &self.items
    }

    fn notes(&self) -> &[String] {
        &self.notes
    }

    fn read(&self, item: usize, out: &mut [u8]) -> Result<(), ImageError> {
        let key = &self.items[item].key;
        let photo = decode::photo(&self.root.join(key), key, self.expected[0])?;
        fit(&photo, key, &self.transform, self.expected, out)
    }
}
