//! Damaged files must be refused or read, and never crash the program.

use std::fs;

use proptest::prelude::*;
use tempfile::TempDir;

use super::Dataset;
use super::tests::{idx, load_test, write_npz};

fn coded(image: &image::RgbImage, format: image::ImageFormat) -> Vec<u8> {
    let mut bytes = Vec::new();
    image.write_to(&mut std::io::Cursor::new(&mut bytes), format).unwrap();
    bytes
}

/// Returns a valid file of every format that is read byte by byte, with its name.
fn files() -> Vec<(&'static str, Vec<u8>)> {
    let folder = TempDir::new().unwrap();
    let pixels: Vec<u8> = (0..240).collect();
    let npz = folder.path().join("data.npz");
    write_npz(&npz, &[("x", &[4, 3, 4, 5], &pixels)], Some(&[0, 1, 2, 3]));
    let image = image::RgbImage::from_raw(5, 4, pixels[..60].to_vec()).unwrap();
    vec![
        ("data.npz", fs::read(npz).unwrap()),
        ("images-idx4-ubyte", idx(&[4, 3, 4, 5], &pixels)),
        ("a.png", coded(&image, image::ImageFormat::Png)),
        ("a.jpg", coded(&image, image::ImageFormat::Jpeg)),
        ("a.webp", coded(&image, image::ImageFormat::WebP)),
        ("a.bmp", coded(&image, image::ImageFormat::Bmp)),
        ("a.tif", coded(&image, image::ImageFormat::Tiff)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damage_is_survived(which in 0_usize..7, changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4), length in any::<prop::sample::Index>(), cut in any::<bool>()) {
        let (name, mut bytes) = files().swap_remove(which);
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if cut {
            bytes.truncate(length.index(bytes.len()));
        }
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join(name), bytes).unwrap();
        // Success and failure are both acceptable.
        if let Ok((images, _)) = load_test(folder.path(), [3, 4, 5]) {
            prop_assert_eq!(images.pixels.len(), images.len() * 60);
        }
    }

    #[test]
    fn any_bytes_with_a_good_checksum_are_survived(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("data.images");
        let body = [b"paretune images\x01".as_slice(), &body].concat();
        fs::write(&path, [&body[..], blake3::hash(&body).as_bytes()].concat()).unwrap();
        if let Ok(data) = Dataset::load_cached(&path) {
            prop_assert!(data.report.pixels.len() <= 200);
        }
    }
}
