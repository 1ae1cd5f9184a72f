//! PNG and JPEG files: in a folder per class, or in one folder without labels.
//!
//! Listing looks at names only. Labels follow the sorted names of the class folders (in byte order,
//! like PyTorch's `ImageFolder`).

use std::collections::BTreeSet;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};

use super::axis_order::to_channels_first;
use super::error::ImageError;
use super::source::{Item, Role, Source};

/// Depth to which a class folder is searched; deeper folders are circular links.
const MAX_DEPTH: usize = 8;
/// Largest size of an image file in bytes.
const MAX_FILE_BYTES: u64 = 128 << 20;
/// Memory that decoding one image may allocate, in bytes.
const MAX_DECODED_BYTES: u64 = 512 << 20;
/// Largest width and height of a decoded image.
const MAX_SIDE: u32 = 1 << 14;

pub(super) struct Folder {
    root: PathBuf,
    expected: [usize; 3],
    classes: Vec<String>,
    items: Vec<Item>,
}

/// Lists a folder of images.
pub(super) fn open(root: &Path, expected: [usize; 3]) -> Result<Folder, ImageError> {
    let names = Entries::read(root)?;
    let mut parts = names.parts();
    if parts.is_empty() {
        // Datasets are often unpacked into a folder of their own, and no single class is called
        // `train`.
        if let (1, Some(inner)) = (names.folders.len(), names.folders.first()) {
            let inner = root.join(inner);
            if let Some((part, _)) = Entries::read(&inner)?.parts().first() {
                return Err(ImageError::Outer { path: root.into(), inner, part });
            }
        }
        parts.push(("", Role::Whole));
    }
    let mut found = Vec::new();
    for (name, role) in parts {
        let folder = if name.is_empty() { root.to_owned() } else { root.join(name) };
        list_part(&folder, name, role, root, &mut found)?;
    }
    let classes: BTreeSet<&str> =
        found.iter().filter_map(|(_, _, class)| class.as_deref()).collect();
    let classes: Vec<String> = classes.into_iter().map(str::to_owned).collect();
    let labelled = found.iter().all(|(_, _, class)| class.is_some());
    let label = |class: &Option<String>| {
        let index = classes.binary_search(class.as_ref()?).ok()?;
        u32::try_from(index).ok()
    };
    let items: Vec<Item> = found
        .iter()
        .map(|(key, role, class)| Item {
            key: key.clone(),
            label: label(class).filter(|_| labelled),
            role: *role,
        })
        .collect();
    Ok(Folder { root: root.to_owned(), expected, classes, items })
}

type Found = (String, Role, Option<String>);

/// Lists one part: the root itself, its `train` or its `test` folder.
fn list_part(
    folder: &Path,
    prefix: &str,
    role: Role,
    root: &Path,
    found: &mut Vec<Found>,
) -> Result<(), ImageError> {
    let entries = Entries::read(folder)?;
    let loose = entries.files.iter().find(|name| is_image(name));
    if let (Some(image), Some(class)) = (loose, entries.folders.first()) {
        return Err(ImageError::Mixed {
            path: folder.into(),
            folder: class.clone(),
            image: image.clone(),
        });
    }
    if loose.is_some() {
        found.extend(
            entries
                .files
                .iter()
                .filter(|name| is_image(name))
                .map(|name| (join(prefix, name), role, None)),
        );
        return Ok(());
    }
    if entries.folders.is_empty() {
        let hint = entries
            .other_image()
            .map(|name| format!("; {name} is of a format that is not read"))
            .unwrap_or_default();
        return Err(ImageError::Nothing {
            path: if prefix.is_empty() { root.into() } else { folder.into() },
            hint,
        });
    }
    for class in &entries.folders {
        let before = found.len();
        let mut other = None;
        list_class(&folder.join(class), &join(prefix, class), class, role, 0, found, &mut other)?;
        if found.len() == before {
            let hint = other
                .map(|name| format!(" ({name} is of a format that is not read)"))
                .unwrap_or_default();
            return Err(ImageError::EmptyClass { path: folder.join(class), hint });
        }
    }
    Ok(())
}

fn list_class(
    folder: &Path,
    prefix: &str,
    class: &str,
    role: Role,
    depth: usize,
    found: &mut Vec<Found>,
    other: &mut Option<String>,
) -> Result<(), ImageError> {
    if depth > MAX_DEPTH {
        return Err(ImageError::format(
            folder,
            format!("folders are nested more than {MAX_DEPTH} deep"),
        ));
    }
    let entries = Entries::read(folder)?;
    found.extend(
        entries
            .files
            .iter()
            .filter(|name| is_image(name))
            .map(|name| (join(prefix, name), role, Some(class.to_owned()))),
    );
    if other.is_none() {
        *other = entries.other_image().cloned();
    }
    for inner in &entries.folders {
        list_class(
            &folder.join(inner),
            &join(prefix, inner),
            class,
            role,
            depth + 1,
            found,
            other,
        )?;
    }
    Ok(())
}

/// Returns the sorted names of the visible files of a folder.
pub(super) fn file_names(folder: &Path) -> Result<Vec<String>, ImageError> {
    Ok(Entries::read(folder)?.files.into_iter().collect())
}

/// Contents of a folder without hidden entries.
struct Entries {
    files: BTreeSet<String>,
    folders: BTreeSet<String>,
}

impl Entries {
    fn read(folder: &Path) -> Result<Self, ImageError> {
        let mut entries = Self { files: BTreeSet::new(), folders: BTreeSet::new() };
        for entry in std::fs::read_dir(folder).map_err(ImageError::io(folder))? {
            let entry = entry.map_err(ImageError::io(folder))?;
            let Ok(name) = entry.file_name().into_string() else {
                return Err(ImageError::format(entry.path(), "the name is not valid Unicode"));
            };
            if name.starts_with('.') {
                continue;
            }
            let mut kind = entry.file_type().map_err(ImageError::io(entry.path()))?;
            if kind.is_symlink() {
                kind = std::fs::metadata(entry.path())
                    .map_err(ImageError::io(entry.path()))?
                    .file_type();
            }
            if kind.is_dir() {
                entries.folders.insert(name);
            } else if kind.is_file() {
                entries.files.insert(name);
            }
        }
        Ok(entries)
    }

    /// Returns the folders that name a part of the dataset.
    fn parts(&self) -> Vec<(&'static str, Role)> {
        let has = |name: &&str| self.folders.contains(*name);
        let train = Some("train").filter(has).map(|name| (name, Role::Train));
        let test = ["test", "val", "valid", "validation"]
            .into_iter()
            .find(has)
            .map(|name| (name, Role::Test));
        train.into_iter().chain(test).collect()
    }

    /// Returns the name of an image file in an unsupported format, if there is one.
    fn other_image(&self) -> Option<&String> {
        const OTHERS: [&str; 8] = ["bmp", "gif", "webp", "tif", "tiff", "ppm", "avif", "heic"];
        self.files.iter().find(|name| OTHERS.contains(&extension(name).as_str()))
    }
}

fn join(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") }
}

fn extension(name: &str) -> String {
    Path::new(name)
        .extension()
        .map(|extension| extension.to_string_lossy().to_ascii_lowercase())
        .unwrap_or_default()
}

fn is_image(name: &str) -> bool {
    matches!(extension(name).as_str(), "png" | "jpg" | "jpeg")
}

impl Source for Folder {
    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn items(&self) -> &[Item] {
        &self.items
    }

    fn read(&self, item: usize, out: &mut [u8]) -> Result<(), ImageError> {
        let key = &self.items[item].key;
        let path = self.root.join(key);
        let bad = |reason: String| ImageError::format(&path, reason);
        let length = std::fs::metadata(&path).map_err(ImageError::io(&path))?.len();
        if length > MAX_FILE_BYTES {
            return Err(bad(format!("a file of {length} bytes is too long for an image")));
        }
        let bytes = std::fs::read(&path).map_err(ImageError::io(&path))?;
        // The content decides, not the name: JPEG files called .png are common.
        let mut reader = ImageReader::new(Cursor::new(&bytes))
            .with_guessed_format()
            .map_err(ImageError::io(&path))?;
        if !matches!(reader.format(), Some(ImageFormat::Png | ImageFormat::Jpeg)) {
            return Err(bad("neither PNG nor JPEG inside".to_owned()));
        }
        let mut limits = Limits::default();
        limits.max_image_width = Some(MAX_SIDE);
        limits.max_image_height = Some(MAX_SIDE);
        limits.max_alloc = Some(MAX_DECODED_BYTES);
        reader.limits(limits);
        let undecodable = |error| bad(format!("cannot be decoded: {error}"));
        let decoder = reader.into_decoder().map_err(undecodable)?;
        let (width, height) = decoder.dimensions();
        let found = [height as usize, width as usize];
        let expected = [self.expected[1], self.expected[2]];
        if found != expected {
            return Err(ImageError::Size { name: key.clone(), found, expected });
        }
        let image = DynamicImage::from_decoder(decoder).map_err(undecodable)?;
        write(image, self.expected[0], key, out)
    }
}

/// Converts a decoded image to the network's channels if the conversion is unambiguous: gray is
/// repeated over three channels, an opaque alpha channel is dropped, 16 bits become 8.
fn write(
    image: DynamicImage,
    channels: usize,
    name: &str,
    out: &mut [u8],
) -> Result<(), ImageError> {
    let wrong =
        |found, advice| ImageError::Color { name: name.to_owned(), found, channels, advice };
    let opaque = match &image {
        DynamicImage::ImageRgba8(image) => image.pixels().all(|pixel| pixel[3] == u8::MAX),
        DynamicImage::ImageLumaA8(image) => image.pixels().all(|pixel| pixel[1] == u8::MAX),
        DynamicImage::ImageRgba16(image) => image.pixels().all(|pixel| pixel[3] == u16::MAX),
        DynamicImage::ImageLumaA16(image) => image.pixels().all(|pixel| pixel[1] == u16::MAX),
        _ => true,
    };
    if !opaque && channels != 4 {
        return Err(wrong("partly transparent", "; put the images onto a background first"));
    }
    match (channels, image.color().has_color()) {
        (1, false) => to_channels_first(image.to_luma8().as_raw(), 1, out),
        (1, true) => return Err(wrong("in color", "; convert the images to gray first")),
        (3, _) => to_channels_first(image.to_rgb8().as_raw(), 3, out),
        (4, true) if image.color().has_alpha() => {
            to_channels_first(image.to_rgba8().as_raw(), 4, out)
        }
        (_, true) => return Err(wrong("in color", "")),
        (_, false) => return Err(wrong("gray", "")),
    }
    Ok(())
}
