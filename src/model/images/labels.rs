//! Files that name classes: the network's outputs in order, and the labels of single images.

use std::collections::BTreeMap;
use std::path::Path;

use paretune_kernels::file;

use super::error::ImageError;

/// Reads the class names in `path`, one per line in the order of the network's outputs.
///
/// # Errors
///
/// Fails if the file cannot be read, names no class, or names one twice.
pub fn read_classes(path: &Path) -> Result<Vec<String>, ImageError> {
    let text = file::read_text(path).map_err(ImageError::io(path))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let names: Vec<String> =
        text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    if names.is_empty() {
        return Err(ImageError::format(path, "names no class; one name a line is needed"));
    }
    Ok(names)
}

/// Class names that can be looked up. A name may be a whole line of the file, or its first word, as
/// in `n01440764 tench`.
pub(super) struct ClassIndex {
    indices: BTreeMap<String, u32>,
}

impl ClassIndex {
    /// Builds the index of `classes`. A name that occurs twice is not found.
    pub fn new(classes: &[String]) -> Self {
        let mut indices = BTreeMap::new();
        let mut twice = Vec::new();
        let numbered = || (0_u32..).zip(classes);
        for (index, name) in numbered() {
            if indices.insert(name.clone(), index).is_some() {
                twice.push(name.clone());
            }
        }
        for name in twice {
            indices.remove(&name);
        }
        let firsts = |name: &str| {
            name.split([' ', '\t', ',']).next().map(str::to_owned).filter(|word| word != name)
        };
        let mut words: BTreeMap<String, Option<u32>> = BTreeMap::new();
        for (index, name) in numbered() {
            if let Some(word) = firsts(name) {
                words.entry(word).and_modify(|known| *known = None).or_insert(Some(index));
            }
        }
        for (word, index) in words {
            if let Some(index) = index {
                indices.entry(word).or_insert(index);
            }
        }
        Self { indices }
    }

    /// Returns the index of a class.
    pub fn find(&self, name: &str) -> Option<u32> {
        self.indices.get(name).copied()
    }
}

/// Labels of single images, by name.
pub(super) struct LabelFile {
    classes: BTreeMap<String, String>,
}

impl LabelFile {
    /// Reads lines `NAME CLASS`, parted by the last space, tab or comma of a line.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read, or if a line has one word only.
    pub fn read(path: &Path) -> Result<Self, ImageError> {
        let text = file::read_text(path).map_err(ImageError::io(path))?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let mut classes = BTreeMap::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let separator = ['\t', ',', ' '].into_iter().find(|letter| line.contains(*letter));
            let parts = separator.and_then(|separator| line.rsplit_once(separator));
            let Some((name, class)) = parts.map(|(name, class)| (name.trim(), class.trim())) else {
                return Err(ImageError::format(
                    path,
                    format!("line {number} is no `NAME CLASS`: `{line}`"),
                ));
            };
            let name = name.trim_start_matches("./").to_owned();
            if classes.insert(name.clone(), class.to_owned()).is_some_and(|old| old != class) {
                return Err(ImageError::format(
                    path,
                    format!("line {number} gives {name} a second class"),
                ));
            }
        }
        Ok(Self { classes })
    }

    /// Returns the class of an image: by its path in the data folder, by its file name, or by
    /// either without the ending.
    pub fn class(&self, key: &str) -> Option<&str> {
        let name = key.rsplit('/').next().unwrap_or(key);
        let bare = |name: &str| name.rsplit_once('.').map(|(stem, _)| stem.to_owned());
        let known = |name: &str| self.classes.get(name).map(String::as_str);
        known(key)
            .or_else(|| known(name))
            .or_else(|| bare(key).and_then(|stem| known(&stem)))
            .or_else(|| bare(name).and_then(|stem| known(&stem)))
    }

    /// Returns the number of labelled names.
    pub fn len(&self) -> usize {
        self.classes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_found_by_line_and_by_first_word() {
        let classes = ["n01 tench, Tinca", "n02 crane", "crane", "n03 crane", "dog", "dog"];
        let index = ClassIndex::new(&classes.map(str::to_owned));
        assert_eq!(index.find("n01"), Some(0));
        assert_eq!(index.find("n01 tench, Tinca"), Some(0));
        assert_eq!(index.find("crane"), Some(2));
        assert_eq!(index.find("dog"), None);
        assert_eq!(index.find("cat"), None);
    }

    #[test]
    fn lines_of_labels_are_parted_at_the_last_separator() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("labels.txt");
        std::fs::write(&path, "# comment\na b.png cat\n./c.png\tsea lion\nd,3\n\n").unwrap();
        let labels = LabelFile::read(&path).unwrap();
        assert_eq!(labels.class("a b.png"), Some("cat"));
        assert_eq!(labels.class("test/c.png"), Some("sea lion"));
        assert_eq!(labels.class("test/d.png"), Some("3"));
        assert_eq!(labels.class("e.png"), None);
        assert_eq!(labels.len(), 3);
        std::fs::write(&path, "a.png\n").unwrap();
        assert!(LabelFile::read(&path).is_err());
        std::fs::write(&path, "a.png cat\na.png dog\n").unwrap();
        assert!(LabelFile::read(&path).is_err());
    }
}
