//! Contents of folders of images, and what was left out of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::decode::{OTHERS, ending, format};
use super::error::ImageError;

/// Files that were left out of a data set.
#[derive(Debug, Default)]
pub(super) struct LeftOut {
    /// Number of files that are no images, by name or ending.
    clutter: BTreeMap<String, usize>,
    /// Number of images in formats that are not read, by ending, and one of them.
    others: BTreeMap<String, (usize, String)>,
    /// Links that lead nowhere.
    dangling: Vec<String>,
    /// Number of images without a line in the file of labels, and one of them.
    unlabelled: Option<(usize, String)>,
}

impl LeftOut {
    /// Counts a file or folder that is hidden, or that a system keeps for itself.
    fn clutter(&mut self, name: &str) {
        let kind = match name {
            name if name.starts_with("._") => "._*".to_owned(),
            name if name.starts_with('.') => name.to_owned(),
            "Thumbs.db" | "desktop.ini" | "__MACOSX" => name.to_owned(),
            name => match ending(name) {
                ending if ending.is_empty() => name.to_owned(),
                ending => format!("*.{ending}"),
            },
        };
        *self.clutter.entry(kind).or_default() += 1;
    }

    /// Counts an image without a label.
    pub fn unlabelled(&mut self, key: &str) {
        self.unlabelled.get_or_insert_with(|| (0, key.to_owned())).0 += 1;
    }

    /// Returns a sentence about images in other formats, with an example.
    pub fn other_formats(&self) -> Option<String> {
        let (count, example) = self.others.values().fold(
            None,
            |seen: Option<(usize, &String)>, (count, example)| match seen {
                Some((before, first)) => Some((before + count, first)),
                None => Some((*count, example)),
            },
        )?;
        Some(format!("{count} image(s) of formats that are not read, such as {example}"))
    }

    /// Returns a sentence for each kind of file that was left out.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        notes.extend(self.other_formats().map(|found| format!("left out: {found}")));
        if let Some(first) = self.dangling.first() {
            let count = self.dangling.len();
            notes.push(format!("left out: {count} link(s) that lead nowhere, such as {first}"));
        }
        if let Some((count, example)) = &self.unlabelled {
            notes.push(format!(
                "left out: {count} image(s) without a line in the file of labels, such as {example}"
            ));
        }
        if !self.clutter.is_empty() {
            let total: usize = self.clutter.values().sum();
            let mut kinds: Vec<(&String, usize)> =
                self.clutter.iter().map(|(kind, count)| (kind, *count)).collect();
            kinds.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
            const SHOWN: usize = 5;
            let more = kinds.len().saturating_sub(SHOWN);
            let mut named: Vec<String> = kinds
                .into_iter()
                .take(SHOWN)
                .map(|(kind, count)| format!("{count} {kind}"))
                .collect();
            if more > 0 {
                named.push(format!("{more} more kinds"));
            }
            notes.push(format!("ignored {total} file(s) that are no images: {}", named.join(", ")));
        }
        notes
    }
}

/// Visible contents of a folder.
pub(super) struct Entries {
    /// Names of all files.
    pub files: BTreeSet<String>,
    /// Names of all folders.
    pub folders: BTreeSet<String>,
    /// Names that are hidden or that a system keeps for itself.
    hidden: Vec<String>,
    /// Names of links that lead nowhere.
    dangling: Vec<String>,
}

impl Entries {
    /// Lists a folder.
    pub fn read(folder: &Path) -> Result<Self, ImageError> {
        let (files, folders) = (BTreeSet::new(), BTreeSet::new());
        let mut entries = Self { files, folders, hidden: Vec::new(), dangling: Vec::new() };
        for entry in std::fs::read_dir(folder).map_err(ImageError::io(folder))? {
            let entry = entry.map_err(ImageError::io(folder))?;
            let Ok(name) = entry.file_name().into_string() else {
                return Err(ImageError::format(entry.path(), "the name is not valid Unicode"));
            };
            if name.starts_with('.') || name == "__MACOSX" {
                entries.hidden.push(name);
                continue;
            }
            let mut kind = entry.file_type().map_err(ImageError::io(entry.path()))?;
            if kind.is_symlink() {
                kind = match std::fs::metadata(entry.path()) {
                    Ok(metadata) => metadata.file_type(),
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                        entries.dangling.push(name);
                        continue;
                    }
                    Err(error) => return Err(ImageError::io(entry.path())(error)),
                };
            }
            if kind.is_dir() {
                entries.folders.insert(name);
            } else if kind.is_file() {
                entries.files.insert(name);
            } else {
                entries.hidden.push(name);
            }
        }
        Ok(entries)
    }

    /// Returns the names of the images, and counts everything else in `left_out`. `prefix` stands
    /// before names in messages.
    pub fn images(&self, prefix: &str, left_out: &mut LeftOut) -> Vec<&String> {
        for name in &self.hidden {
            left_out.clutter(name);
        }
        for name in &self.dangling {
            left_out.dangling.push(join(prefix, name));
        }
        let mut images = Vec::new();
        for name in &self.files {
            let ending = ending(name);
            if format(name).is_some() {
                images.push(name);
            } else if OTHERS.contains(&ending.as_str()) {
                left_out.others.entry(ending).or_insert_with(|| (0, join(prefix, name))).0 += 1;
            } else {
                left_out.clutter(name);
            }
        }
        images
    }

    /// Returns the name of an image in the folder itself.
    pub fn any_image(&self) -> Option<&String> {
        self.files.iter().find(|name| format(name).is_some())
    }
}

/// Returns the sorted names of the visible files of a folder.
pub(super) fn file_names(folder: &Path) -> Result<Vec<String>, ImageError> {
    Ok(Entries::read(folder)?.files.into_iter().collect())
}

/// Joins a path within a data folder with a name.
pub(super) fn join(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") }
}
