//! Reads generated files of every format, checks the errors, and checks the split.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::*;

const DIMS: [usize; 3] = [3, 4, 5];

fn sizes(calibration: usize, search: usize, report: usize) -> SplitSizes {
    SplitSizes { calibration, search, report }
}

const ALL: SplitSizes =
    SplitSizes { calibration: usize::MAX, search: usize::MAX, report: usize::MAX };

/// Returns an interleaved color image of [`DIMS`] with pixels that distinguish images.
fn interleaved(number: u8) -> Vec<u8> {
    (0..60_u8).map(|index| index.wrapping_mul(3).wrapping_add(number)).collect()
}

fn planes(number: u8) -> Vec<u8> {
    let pixels = interleaved(number);
    (0..3)
        .flat_map(|channel| pixels.iter().skip(channel).step_by(3).copied().collect::<Vec<u8>>())
        .collect()
}

fn write_png(path: &Path, number: u8) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    image::RgbImage::from_raw(5, 4, interleaved(number)).unwrap().save(path).unwrap();
}

/// Writes `count` images in each of two classes.
fn write_classes(root: &Path, count: u8) {
    for (offset, class) in ["cat", "dog"].into_iter().enumerate() {
        for index in 0..count {
            write_png(&root.join(class).join(format!("{index:03}.png")), index * 2 + offset as u8);
        }
    }
}

fn fault(path: &Path, expected: [usize; 3]) -> String {
    load(path, expected, ALL).unwrap_err().to_string()
}

/// Loads with default options.
fn load(path: &Path, expected: [usize; 3], sizes: SplitSizes) -> Result<Dataset, ImageError> {
    super::load(path, expected, sizes, &ImageOptions::default()).map(|loaded| loaded.images)
}

pub(super) fn load_test(
    path: &Path,
    expected: [usize; 3],
) -> Result<(Images, Vec<String>), ImageError> {
    test_with(path, expected, &ImageOptions::default())
}

fn pixels_of(images: &Images) -> HashSet<Vec<u8>> {
    (0..images.len()).map(|index| images.image(index).to_vec()).collect()
}

#[test]
fn a_folder_per_class() {
    let folder = TempDir::new().unwrap();
    write_classes(folder.path(), 20);
    fs::write(folder.path().join("readme.txt"), "not an image").unwrap();
    fs::write(folder.path().join("cat/notes.txt"), "not an image").unwrap();
    let data = load(folder.path(), DIMS, ALL).unwrap();
    assert_eq!(data.classes, ["cat", "dog"]);
    let parts = [&data.calibration, &data.search, &data.report];
    assert_eq!(parts.iter().map(|part| part.len()).sum::<usize>(), 40);
    let mut seen = HashSet::new();
    for part in parts {
        assert!(!part.is_empty());
        assert_eq!(part.labels.len(), part.len());
        for index in 0..part.len() {
            let number = part.image(index)[0];
            assert_eq!(part.image(index), planes(number), "planar order");
            assert_eq!(part.label(index), Some(u32::from(number % 2)));
            assert!(seen.insert(number), "image {number} is in two parts");
        }
    }
}

#[test]
fn train_and_test_are_kept_apart() {
    let folder = TempDir::new().unwrap();
    write_classes(&folder.path().join("train"), 6);
    for index in 0..30 {
        write_png(&folder.path().join(format!("test/dog/{index}.png")), 100 + index);
    }
    let data = load(folder.path(), DIMS, ALL).unwrap();
    assert_eq!(data.calibration.len(), 12);
    assert!((0..12).all(|index| data.calibration.image(index)[0] < 100));
    assert_eq!(data.search.len() + data.report.len(), 30);
    assert!(data.search.len() > 5 && data.report.len() > 5);
    assert!(pixels_of(&data.search).is_disjoint(&pixels_of(&data.report)));
    // The test part has no cats, yet its dogs are class 1.
    assert!(data.report.labels.iter().all(|&label| label == 1));
    let (test, classes) = load_test(folder.path(), DIMS).unwrap();
    assert_eq!((test.len(), classes.len()), (30, 2));
    assert!((0..30).all(|index| test.image(index)[0] >= 100));
}

#[test]
fn larger_parts_contain_the_smaller_ones_and_only_chosen_files_are_read() {
    let folder = TempDir::new().unwrap();
    write_classes(folder.path(), 40);
    let large = load(folder.path(), DIMS, ALL).unwrap();
    let small = load(folder.path(), DIMS, sizes(3, 5, 4)).unwrap();
    assert_eq!(small.calibration, large.calibration.take(3));
    assert_eq!(small.search, large.search.slice(0..5));
    assert_eq!(small.report, large.report.take(4));
    // Neither order nor new files change the part of an image.
    for index in 0..10 {
        write_png(&folder.path().join(format!("dog/late{index}.png")), 200 + index);
    }
    let grown = load(folder.path(), DIMS, ALL).unwrap();
    assert!(pixels_of(&large.report).is_subset(&pixels_of(&grown.report)));
    assert!(pixels_of(&large.search).is_subset(&pixels_of(&grown.search)));
    // A damaged file that is not chosen does no harm.
    let unused = large.search.image(large.search.len() - 1)[0];
    let class = if unused.is_multiple_of(2) { "cat" } else { "dog" };
    fs::write(folder.path().join(format!("{class}/{:03}.png", unused / 2)), "damaged").unwrap();
    assert_eq!(load(folder.path(), DIMS, sizes(3, 5, 4)).unwrap().report, small.report);
}

#[test]
fn a_folder_around_a_data_set_is_no_class() {
    let folder = TempDir::new().unwrap();
    let inner = folder.path().join("birds");
    write_classes(&inner.join("train"), 6);
    write_classes(&inner.join("val"), 6);
    let error = load(folder.path(), DIMS, ALL).unwrap_err();
    let wanted = format!("give that folder instead: {}", inner.display());
    assert!(error.to_string().ends_with(&wanted), "{error}");
    assert!(load(&inner, DIMS, ALL).is_ok());
    // Beside a second folder it is a class like any other.
    write_classes(&folder.path().join("cars"), 6);
    assert_eq!(load(folder.path(), DIMS, ALL).unwrap().classes, ["birds", "cars"]);
}

#[test]
fn a_flat_folder_has_no_labels() {
    let folder = TempDir::new().unwrap();
    for index in 0..9 {
        write_png(&folder.path().join(format!("{index}.PNG")), index);
    }
    let data = load(folder.path(), DIMS, ALL).unwrap();
    assert!(data.classes.is_empty() && !data.report.is_labelled());
    assert_eq!(data.calibration.len() + data.search.len() + data.report.len(), 9);
    assert_eq!(data.search.slice(0..1).len(), 1);
}

#[test]
fn jpeg_and_gray() {
    let folder = TempDir::new().unwrap();
    for index in 0..3_u8 {
        let path = folder.path().join(format!("{index}.jpg"));
        image::GrayImage::from_pixel(5, 4, image::Luma([index * 80])).save(path).unwrap();
    }
    let (gray, _) = load_test(folder.path(), [1, 4, 5]).unwrap();
    assert_eq!(gray.image(2), [160; 20]);
    let (color, _) = load_test(folder.path(), DIMS).unwrap();
    assert_eq!(color.image(1), [80; 60]);
}

#[test]
fn alpha_is_dropped_only_where_it_hides_nothing() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.png");
    image::RgbaImage::from_pixel(5, 4, image::Rgba([1, 2, 3, 255])).save(&path).unwrap();
    assert_eq!(load_test(folder.path(), DIMS).unwrap().0.image(0)[..2], [1, 1]);
    image::RgbaImage::from_pixel(5, 4, image::Rgba([1, 2, 3, 0])).save(&path).unwrap();
    let error = load_test(folder.path(), DIMS).unwrap_err().to_string();
    assert!(error.contains("a.png is partly transparent"), "{error}");
}

#[test]
fn faults_of_folders_name_the_file() {
    let folder = TempDir::new().unwrap();
    let root = folder.path();
    let error = fault(root, DIMS);
    assert!(
        error.contains("no images found in") && error.contains("a folder per class"),
        "{error}"
    );
    assert!(fault(&root.join("missing"), DIMS).contains("cannot read"));

    write_classes(root, 8);
    let error = fault(root, [3, 8, 8]);
    assert!(error.contains(".png: the images are 5x4, but the network takes 8x8"), "{error}");
    assert!(fault(root, [1, 4, 5]).contains("is in color, but the network takes 1 channel"));
    image::RgbImage::new(7, 7).save(root.join("dog/005.png")).unwrap();
    let error = fault(root, DIMS);
    assert!(error.contains("mixed sizes: dog/005.png is 7x7, while"), "{error}");
    fs::write(root.join("dog/005.png"), "nonsense").unwrap();
    assert!(fault(root, DIMS).contains("005.png: none of PNG, JPEG, WebP, BMP, TIFF inside"));
    let whole = fs::read(root.join("dog/004.png")).unwrap();
    fs::write(root.join("dog/005.png"), &whole[..whole.len() / 2]).unwrap();
    assert!(fault(root, DIMS).contains("005.png: cannot be decoded"), "{}", fault(root, DIMS));
    fs::write(root.join("loose.png"), &whole).unwrap();
    assert!(
        fault(root, DIMS).contains("holds both class folders (cat) and loose images (loose.png)")
    );
}

#[test]
fn too_few_images() {
    let folder = TempDir::new().unwrap();
    write_png(&folder.path().join("a/0.png"), 0);
    write_png(&folder.path().join("b/0.png"), 1);
    assert!(fault(folder.path(), DIMS).contains("has only 2 image(s); at least 3 are needed"));
    write_png(&folder.path().join("b/1.png"), 2);
    let data = load(folder.path(), DIMS, ALL).unwrap();
    assert_eq!([data.calibration.len(), data.search.len(), data.report.len()], [1; 3]);
}

fn cifar_batch(path: PathBuf, start: u8, count: u8) {
    let mut bytes = Vec::new();
    for index in start..start + count {
        bytes.push(index % 10);
        bytes.extend([[index; 1024], [index + 1; 1024], [index + 2; 1024]].concat());
    }
    fs::write(path, bytes).unwrap();
}

#[test]
fn cifar_binary_batches() {
    let folder = TempDir::new().unwrap();
    let inner = folder.path().join("cifar-10-batches-bin");
    fs::create_dir(&inner).unwrap();
    cifar_batch(inner.join("data_batch_1.bin"), 0, 20);
    cifar_batch(inner.join("data_batch_2.bin"), 20, 20);
    cifar_batch(inner.join("test_batch.bin"), 100, 20);
    let names: Vec<String> = (0..10).map(|index| format!("class{index}\n")).collect();
    fs::write(inner.join("batches.meta.txt"), names.concat() + "\n").unwrap();
    for root in [folder.path(), &inner] {
        let data = load(root, [3, 32, 32], ALL).unwrap();
        assert_eq!(data.classes[9], "class9");
        assert_eq!(data.calibration.len(), 40);
        for index in 0..40 {
            let image = data.calibration.image(index);
            assert_eq!(data.calibration.label(index), Some(u32::from(image[0] % 10)));
            assert_eq!(
                [image[1023], image[1024], image[3071]],
                [image[0], image[0] + 1, image[0] + 2]
            );
        }
        assert_eq!(data.search.len() + data.report.len(), 20);
        assert!(data.search.pixels.iter().all(|&pixel| pixel >= 100));
    }
    assert_eq!(load_test(&inner.join("data_batch_2.bin"), [3, 32, 32]).unwrap().0.len(), 20);
    fs::write(inner.join("data_batch_2.bin"), [0; 100]).unwrap();
    assert!(fault(&inner, [3, 32, 32]).contains("data_batch_2.bin: 100 bytes are no whole number"));
    assert!(fault(&inner, DIMS).contains("the images are 32x32, but the network takes 5x4"));
}

pub(super) fn idx(sizes: &[u32], data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, sizes.len() as u8];
    sizes.iter().for_each(|size| bytes.extend(size.to_be_bytes()));
    bytes.extend(data);
    bytes
}

#[test]
fn idx_files() {
    let folder = TempDir::new().unwrap();
    let root = folder.path();
    let images: Vec<u8> = (0..10_u8).flat_map(|index| [index; 6]).collect();
    let labels: Vec<u8> = (0..10).collect();
    fs::write(root.join("train-images-idx3-ubyte"), idx(&[10, 2, 3], &images)).unwrap();
    fs::write(root.join("train-labels-idx1-ubyte"), idx(&[10], &labels)).unwrap();
    fs::write(root.join("t10k-images-idx3-ubyte"), idx(&[5, 2, 3], &images[30..])).unwrap();
    fs::write(root.join("t10k-labels-idx1-ubyte"), idx(&[5], &labels[5..])).unwrap();
    let data = load(root, [1, 2, 3], ALL).unwrap();
    assert_eq!((data.calibration.len(), data.search.len() + data.report.len()), (10, 5));
    for part in [&data.calibration, &data.search, &data.report] {
        assert!(
            (0..part.len()).all(|index| part.label(index) == Some(part.image(index)[5].into()))
        );
    }
    let file = root.join("train-images-idx3-ubyte");
    assert_eq!(load_test(&file, [3, 2, 3]).unwrap().0.image(7), [7; 18]);
    fs::remove_file(root.join("t10k-labels-idx1-ubyte")).unwrap();
    assert!(!load(root, [1, 2, 3], ALL).unwrap().search.is_labelled());
    fs::write(&file, idx(&[11, 2, 3], &images)).unwrap();
    assert!(fault(root, [1, 2, 3]).contains("sizes [11, 2, 3] do not fit 60 bytes of data"));
    fs::write(&file, idx(&[u32::MAX, u32::MAX, u32::MAX], &images)).unwrap();
    assert!(fault(root, [1, 2, 3]).contains("do not fit"));
}

pub(super) fn write_npz<T: npyz::AutoSerialize + Copy>(
    path: &Path,
    arrays: &[(&str, &[u64], &[T])],
    labels: Option<&[i64]>,
) {
    use npyz::WriterBuilder;
    let mut archive = zip::ZipWriter::new(fs::File::create(path).unwrap());
    let options =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, shape, data) in arrays {
        archive.start_file(format!("{name}.npy"), options).unwrap();
        let array = npyz::WriteOptions::new().writer(&mut archive);
        let mut writer = array.default_dtype().shape(shape).begin_nd().unwrap();
        writer.extend(data.iter().copied()).unwrap();
        writer.finish().unwrap();
    }
    if let Some(labels) = labels {
        archive.start_file("y.npy", options).unwrap();
        let array = npyz::WriteOptions::new().writer(&mut archive);
        let mut writer = array.default_dtype().shape(&[labels.len() as u64]).begin_nd().unwrap();
        writer.extend(labels.iter().copied()).unwrap();
        writer.finish().unwrap();
    }
    archive.finish().unwrap();
}

#[test]
fn archives_whose_numbers_fail_their_checksum_are_refused_by_the_name_of_the_array() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("data.npz");
    let pixels = [7_u8; 60];
    write_npz(&path, &[("x", &[1, 3, 4, 5], &pixels)], None);
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(60).position(|window| window == pixels).unwrap();
    bytes[at + 59] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert!(fault(&path, DIMS).contains("array x cannot be unpacked"), "{}", fault(&path, DIMS));
}

#[test]
fn npz_archives() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("data.npz");
    let planar: Vec<u8> = (0..4).flat_map(planes).collect();
    let mixed: Vec<u8> = (0..4).flat_map(interleaved).collect();
    let floats: Vec<f32> = planar.iter().map(|&pixel| f32::from(pixel) + 0.25).collect();
    let labels = [3, 2, 1, 0];
    let expected = {
        write_npz(&path, &[("x", &[4, 3, 4, 5], &planar)], Some(&labels));
        load_test(&path, DIMS).unwrap().0
    };
    assert_eq!((&*expected.pixels, &*expected.labels), (&*planar, &[3, 2, 1, 0][..]));
    write_npz(&path, &[("x", &[4, 4, 5, 3], &mixed)], Some(&labels));
    assert_eq!(load_test(folder.path(), DIMS).unwrap().0, expected);
    write_npz(&path, &[("x", &[4, 3, 4, 5], &floats)], Some(&labels));
    assert_eq!(load_test(&path, DIMS).unwrap().0, expected);
    write_npz(&path, &[("x", &[4, 3, 4, 5], &planar)], None);
    assert!(!load(&path, DIMS, ALL).unwrap().report.is_labelled());
    write_npz(
        &path,
        &[("x_train", &[4, 3, 4, 5], &planar), ("x_test", &[2, 3, 4, 5], &planar[120..])],
        None,
    );
    assert_eq!(load(&path, DIMS, ALL).unwrap().calibration.len(), 4);

    write_npz(&path, &[("x", &[4, 3, 4, 5], &planar)], Some(&labels[1..]));
    assert!(fault(&path, DIMS).contains("y has 3 labels for 4 images in x"));
    write_npz(&path, &[("x", &[4, 3, 4, 5], &planar)], Some(&[-1, 0, 0, 0]));
    assert!(fault(&path, DIMS).contains("y holds -1, which is no class index"));
    write_npz(&path, &[("images", &[4, 3, 4, 5], &planar)], None);
    assert!(fault(&path, DIMS).contains("has no array x (or x_train, x_test); it holds images"));
    write_npz(&path, &[("x", &[8, 30], &planar)], None);
    assert!(fault(&path, DIMS).contains("x has shape [8, 30]"));
    let small: Vec<f64> = planar.iter().map(|&pixel| f64::from(pixel) / 255.0).collect();
    write_npz(&path, &[("x", &[4, 3, 4, 5], &small)], None);
    assert!(fault(&path, DIMS).contains("lies between 0 and 1; multiply it by 255"));
    write_npz(&path, &[("x", &[4, 3, 4, 5], &[f32::NAN; 240])], None);
    assert!(fault(&path, DIMS).contains("x holds NaN"));
    write_npz(&path, &[("x", &[4, 3, 4, 5], &[7_i32; 240])], None);
    assert!(
        fault(&path, DIMS).contains("uint8, float32 or float64 is needed"),
        "{}",
        fault(&path, DIMS)
    );
    fs::write(&path, "no archive").unwrap();
    assert!(fault(&path, DIMS).contains("is no readable .npz archive"));
}

#[test]
fn the_cache_gives_back_what_went_in() {
    let folder = TempDir::new().unwrap();
    write_classes(folder.path(), 10);
    let data = load(folder.path(), DIMS, ALL).unwrap();
    let path = folder.path().join("data.images");
    data.save(&path).unwrap();
    assert_eq!(Dataset::load_cached(&path).unwrap(), data);
    let bytes = fs::read(&path).unwrap();
    for (at, flip) in [(20, 1), (bytes.len() / 2, 1), (bytes.len() - 1, 128)] {
        let mut damaged = bytes.clone();
        damaged[at] ^= flip;
        fs::write(&path, damaged).unwrap();
        assert!(Dataset::load_cached(&path).unwrap_err().to_string().contains("is damaged"));
    }
    for length in [0, 15, 16, 40] {
        fs::write(&path, &bytes[..length]).unwrap();
        assert!(Dataset::load_cached(&path).is_err());
    }
    // A valid checksum over sizes beyond the end of the file.
    let mut body = bytes[..24].to_vec();
    body[16..24].copy_from_slice(&u64::MAX.to_le_bytes());
    let checksum = blake3::hash(&body);
    fs::write(&path, [&body[..], checksum.as_bytes()].concat()).unwrap();
    assert!(Dataset::load_cached(&path).unwrap_err().to_string().contains("is cut short"));
}

#[test]
fn hashes_tell_images_apart() {
    let images = Images { dims: [1, 1, 2], pixels: [1, 2, 3, 4].into(), labels: [0, 1].into() };
    let mut others = [images.take(1), images.clone(), images.clone(), images.clone()];
    others[1].dims = [1, 2, 1];
    others[2].labels = [1, 1].into();
    others[3].labels = [].into();
    let mut seen = HashSet::from([images.content_hash()]);
    assert!(others.iter().all(|images| seen.insert(images.content_hash())));
    assert_eq!(images.content_hash(), images.slice(0..2).content_hash());
    assert_eq!(images.slice(1..9).image(0), [3, 4]);
}

#[test]
fn normalization_is_per_channel() {
    let mut out = [0.0; 8];
    normalize_into(&[0, 255, 10, 20, 1, 2, 3, 4], &[100.0, 15.0], &[2.0, 5.0], [2, 1, 2], &mut out);
    assert_eq!(out, [-50.0, 77.5, -1.0, 1.0, -49.5, -49.0, -2.4, -2.2]);
}

/// Loads all test images.
fn test_with(
    path: &Path,
    expected: [usize; 3],
    options: &ImageOptions,
) -> Result<(Images, Vec<String>), ImageError> {
    let set = TestSet::open(path, expected, options)?;
    Ok((set.read(0..set.len())?, set.classes().to_vec()))
}

/// Loads with options and returns the report part's class names and notes.
fn with(
    path: &Path,
    options: &ImageOptions,
) -> Result<(Vec<String>, Vec<u32>, String), ImageError> {
    let loaded = super::load(path, DIMS, ALL, options)?;
    let labels = loaded.images.search.labels.to_vec();
    Ok((loaded.images.classes, labels, loaded.notes.join("\n")))
}

fn outputs(outputs: usize) -> ImageOptions {
    ImageOptions { outputs: Some(outputs), ..ImageOptions::default() }
}

#[test]
fn parts_are_known_by_many_names() {
    for (train, test) in [("Train", "Val"), ("Training", "Testing"), ("TRAIN", "validation")] {
        let folder = TempDir::new().unwrap();
        write_classes(&folder.path().join(train), 6);
        write_classes(&folder.path().join(test), 6);
        fs::create_dir(folder.path().join("__MACOSX")).unwrap();
        let data = load(folder.path(), DIMS, ALL).unwrap();
        assert_eq!(
            (data.calibration.len(), &*data.classes),
            (12, &["cat", "dog"].map(str::to_owned)[..])
        );
    }
    // Beside buses and cars, a train is no part.
    let folder = TempDir::new().unwrap();
    for class in ["bus", "car", "train"] {
        write_png(&folder.path().join(class).join("0.png"), 1);
    }
    assert_eq!(load(folder.path(), DIMS, ALL).unwrap().classes, ["bus", "car", "train"]);
    // Two folders that differ by capitals alone are a question.
    let folder = TempDir::new().unwrap();
    write_classes(&folder.path().join("train"), 3);
    write_classes(&folder.path().join("Train"), 3);
    assert!(fault(folder.path(), DIMS).contains("rename one of them"));
}

#[test]
fn whatever_is_no_image_is_left_out_by_name_and_count() {
    let folder = TempDir::new().unwrap();
    let root = folder.path();
    write_classes(root, 5);
    for name in [".DS_Store", "cat/._0.png", "cat/Thumbs.db", "dog/notes.txt", "dog/a.gif"] {
        fs::write(root.join(name), "clutter").unwrap();
    }
    #[cfg(unix)]
    std::os::unix::fs::symlink("/nowhere", root.join("cat/link.png")).unwrap();
    fs::write(root.join("cat/b.webp"), fs::read(root.join("cat/000.png")).unwrap()).unwrap();
    let (classes, _, notes) = with(root, &outputs(2)).unwrap();
    assert_eq!(classes, ["cat", "dog"]);
    assert!(notes.contains("images: 10 PNG, 1 WebP"), "{notes}");
    assert!(notes.contains("left out: 1 image(s) of formats that are not read, such as dog/a.gif"));
    assert!(notes.contains("1 link(s) that lead nowhere, such as cat/link.png"), "{notes}");
    assert!(notes.contains("ignored 4 file(s) that are no images"), "{notes}");
}

#[test]
fn classes_are_those_of_the_network() {
    let folder = TempDir::new().unwrap();
    let root = folder.path();
    write_classes(root, 8);
    let error = with(root, &outputs(3)).unwrap_err().to_string();
    assert!(
        error.contains("2 class(es) with images (cat, dog), but the network tells 3"),
        "{error}"
    );
    assert!(error.contains("`--classes FILE`"), "{error}");
    // An empty folder is a class where the network has an output for it.
    fs::create_dir(root.join("cow")).unwrap();
    let (classes, labels, notes) = with(root, &outputs(3)).unwrap();
    assert_eq!(classes, ["cat", "cow", "dog"]);
    assert!(labels.contains(&2) && !labels.contains(&1));
    assert!(notes.contains("1 class folder(s) without images (cow) count as classes"), "{notes}");
    assert_eq!(with(root, &outputs(2)).unwrap().0, ["cat", "dog"]);
    assert!(with(root, &outputs(4)).unwrap_err().to_string().contains("1 without images (cow)"));
    // Names in the order of the outputs.
    let names = ["bird", "dog", "fish", "cat"].map(str::to_owned).to_vec();
    let given = ImageOptions { classes: names, ..outputs(4) };
    let (_, labels, _) = with(root, &given).unwrap();
    assert!(labels.contains(&1) && labels.contains(&3) && !labels.contains(&0));
    let given = ImageOptions { classes: vec!["dog".to_owned()], ..outputs(1) };
    assert!(with(root, &given).unwrap_err().to_string().contains("cat is none of the network's"));
}

#[test]
fn a_flat_folder_gets_labels_from_a_file() {
    let folder = TempDir::new().unwrap();
    let root = folder.path().join("images");
    for index in 0..9 {
        write_png(&root.join(format!("{index}.png")), index);
    }
    let lines = |class: fn(u8) -> String| -> String {
        (0..8).map(|index| format!("{index}.png {}\n", class(index))).collect()
    };
    let path = folder.path().join("labels.txt");
    let options = ImageOptions { labels: Some(path.clone()), ..outputs(2) };
    fs::write(&path, lines(|index| ["even", "odd"][usize::from(index % 2)].to_owned())).unwrap();
    let (classes, labels, notes) = with(&root, &options).unwrap();
    assert_eq!(classes, ["even", "odd"]);
    assert!(!labels.is_empty());
    assert!(notes.contains("1 image(s) without a line in the file of labels, such as 8.png"));
    fs::write(&path, lines(|index| (index % 2).to_string())).unwrap();
    assert_eq!(with(&root, &options).unwrap().1, labels);
    let three = ImageOptions { outputs: Some(3), ..options.clone() };
    fs::write(&path, lines(|index| ["even", "odd"][usize::from(index % 2)].to_owned())).unwrap();
    assert!(with(&root, &three).unwrap_err().to_string().contains("`--classes FILE`"));
    fs::write(&path, "x.png 1\n").unwrap();
    assert!(with(&root, &options).unwrap_err().to_string().contains("none of its 1 names"));
}

#[test]
fn photos_of_any_size_are_resized_where_that_is_asked_for() {
    use paretune_kernels::image::{Channels, Interpolation, Resize, Transform};
    let folder = TempDir::new().unwrap();
    for (index, (width, height)) in [(20, 16), (5, 4), (31, 9)].into_iter().enumerate() {
        let path = folder.path().join(format!("{index}.png"));
        image::RgbImage::from_pixel(width, height, image::Rgb([10, 20, 30])).save(path).unwrap();
    }
    assert!(fault(folder.path(), DIMS).contains("--resize"));
    let transform = Transform {
        resize: Some(Resize::Shorter(5)),
        crop: true,
        interpolation: Interpolation::Bicubic,
        channels: Channels::Bgr,
    };
    let options = ImageOptions { transform, ..ImageOptions::default() };
    let images = test_with(folder.path(), DIMS, &options).unwrap().0;
    assert_eq!(images.len(), 3);
    assert_eq!([images.image(2)[0], images.image(2)[20], images.image(2)[59]], [30, 20, 10]);
    let small = Transform { resize: Some(Resize::Shorter(3)), ..transform };
    let options = ImageOptions { transform: small, ..ImageOptions::default() };
    let error = test_with(folder.path(), DIMS, &options).unwrap_err().to_string();
    assert!(error.contains("give a larger `--resize`"), "{error}");
    // Arrays go through the same operations.
    let pixels: Vec<u8> = (0..2 * 3 * 8 * 10).map(|_| 7).collect();
    let path = folder.path().join("data.npz");
    write_npz(&path, &[("x", &[2, 3, 8, 10], &pixels)], None);
    let options = ImageOptions { transform, ..ImageOptions::default() };
    assert_eq!(test_with(&path, DIMS, &options).unwrap().0.image(1), [7; 60]);
}

#[test]
fn packed_idx_files_are_read() {
    use std::io::Write;
    let folder = TempDir::new().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let file = fs::File::create(folder.path().join(name)).unwrap();
        let mut packed = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
        packed.write_all(bytes).unwrap();
        packed.finish().unwrap();
    };
    let images: Vec<u8> = (0..10_u8).flat_map(|index| [index; 6]).collect();
    write("train-images-idx3-ubyte.gz", &idx(&[10, 2, 3], &images));
    write("train-labels-idx1-ubyte.gz", &idx(&[10], &images[..10]));
    fs::write(folder.path().join("t10k-images-idx3-ubyte"), idx(&[4, 2, 3], &images[..24]))
        .unwrap();
    write("t10k-labels-idx1-ubyte.gz", &idx(&[4], &[0, 1, 2, 3]));
    let data = load(folder.path(), [1, 2, 3], ALL).unwrap();
    assert_eq!((data.calibration.len(), data.search.len() + data.report.len()), (10, 4));
    assert!(data.report.is_labelled());
}

#[test]
fn a_cut_jpeg_is_no_image() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.jpg");
    let picture =
        image::RgbImage::from_fn(5, 4, |x, y| image::Rgb([x as u8 * 50, y as u8 * 60, 9]));
    picture.save(&path).unwrap();
    assert!(load_test(folder.path(), DIMS).is_ok());
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 10]).unwrap();
    let error = load_test(folder.path(), DIMS).unwrap_err().to_string();
    assert!(error.contains("a.jpg") && error.contains("cut off"), "{error}");
    fs::write(&path, "").unwrap();
    assert!(load_test(folder.path(), DIMS).unwrap_err().to_string().contains("empty"));
}

#[test]
fn many_images_are_kept_in_a_file_and_within_a_budget() {
    // 40 images of 2 MiB are more than stay in memory.
    let folder = TempDir::new().unwrap();
    let dims = [1, 1024, 2048];
    let pixels: Vec<u8> = (0..40_u8).flat_map(|index| [index, index + 1]).collect();
    let path = folder.path().join("data.npz");
    write_npz(&path, &[("x", &[40, 1, 1, 2], &pixels)], None);
    let transform = paretune_kernels::image::Transform {
        resize: Some(paretune_kernels::image::Resize::Exact(1024, 2048)),
        interpolation: paretune_kernels::image::Interpolation::Nearest,
        ..Default::default()
    };
    let options = ImageOptions {
        transform,
        scratch: Some(folder.path().to_owned()),
        ..ImageOptions::default()
    };
    let split = sizes(1, 38, 1);
    let filed = super::load(&path, dims, split, &options).unwrap().images;
    let held = super::load(&path, dims, split, &ImageOptions { scratch: None, ..options });
    assert_eq!(filed, held.unwrap().images);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "the file has no name");
    let mut parts = split::three_ways(&items(40), ALL, &path).unwrap();
    assert_eq!(parts.shrink(40), None);
    assert!(parts.shrink(20).unwrap().contains("of 40 images are used"));
    assert!(parts.calibration.len() + parts.search.len() + parts.report.len() <= 20);
}

fn items(count: usize) -> Vec<source::Item> {
    let item =
        |index| source::Item { key: format!("{index}"), label: None, role: source::Role::Whole };
    (0..count).map(item).collect()
}
