//! Runs ONNX files without a search.

use std::path::Path;

use super::{Home, write_npy};

/// Returns the shape and the numbers of a NumPy array of floats.
fn read_npy(path: &Path) -> (String, Vec<f32>) {
    let bytes = std::fs::read(path).expect("an array");
    let start = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = String::from_utf8_lossy(&bytes[10..start]).into_owned();
    let shape = header.split_once("'shape': (").and_then(|(_, rest)| rest.split_once(')'));
    let numbers = bytes[start..].as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes));
    let shape = shape.expect("a shape").0.trim_end_matches([',', ' ']);
    (shape.to_owned(), numbers.collect())
}

fn fixture(name: &str) -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/onnx");
    format!("{folder}/{name}.onnx")
}

#[test]
fn files_run_on_arrays() {
    let home = Home::new();
    let image: Vec<f32> = (0..2_u16 * 4 * 6 * 5).map(|x| f32::from(x % 11) / 4.0 - 1.0).collect();
    write_npy(&home.path("x.npy"), &[2, 4, 6, 5], &image);
    let file = fixture("two_outputs");
    home.ok(&["run", &file, "--input", "x.npy", "--output", "y.npy"]);
    let (shape, first) = read_npy(&home.path("y.npy"));
    assert_eq!(shape, "2, 4, 6, 5");
    // The first output is the input's absolute value, the second the largest number by channel.
    let want: Vec<f32> = image.iter().map(|x| x.abs()).collect();
    assert_eq!(first, want);
    assert_eq!(read_npy(&home.path("y/magnitude.npy")).1, want);
    let (shape, largest) = read_npy(&home.path("y/largest.npy"));
    assert_eq!(shape, "2, 4");
    let want: Vec<f32> = want.chunks(30).map(|x| x.iter().copied().fold(0.0, f32::max)).collect();
    assert_eq!(largest, want);

    write_npy(&home.path("z.npy"), &[2, 4, 6, 4], &image[..192]);
    let said = home.fails(&["run", &file, "--input", "z.npy", "--output", "y.npy"], 2);
    assert!(said.contains("takes [batch, 4, 6, 5]"), "{said}");
    assert!(home.fails(&["run", &file], 2).contains("--input"));
}

#[test]
fn open_sizes_are_given_by_an_option() {
    let home = Home::new();
    let image: Vec<f32> = (0..3_u16 * 7 * 9).map(|x| f32::from(x % 13) / 5.0 - 1.0).collect();
    write_npy(&home.path("x.npy"), &[1, 3, 7, 9], &image);
    let file = fixture("open_size");
    let said = home.fails(&["run", &file, "--input", "x.npy", "--output", "y.npy"], 2);
    assert!(said.contains("--input-size"), "{said}");
    let size = ["--input-size", "7x9"];
    home.ok(&["run", &file, "--input", "x.npy", "--output", "y.npy", size[0], size[1]]);
    let (shape, numbers) = read_npy(&home.path("y.npy"));
    assert_eq!(shape, "1, 3, 14, 18");
    assert_eq!(numbers[2 * 18 + 4], image[9 + 2]);
}
