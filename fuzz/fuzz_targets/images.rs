//! Images: the first byte chooses the kind of file (npz, IDX, CIFAR-10 batch, PNG, JPEG, WebP, BMP,
//! TIFF).
#![no_main]

use libfuzzer_sys::fuzz_target;
use paretune_fuzz::with_files;
use paretune_model::images;

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let names = [
        "data.npz",
        "t10k-images-idx3-ubyte",
        "test_batch.bin",
        "0.png",
        "0.jpg",
        "0.webp",
        "0.bmp",
        "0.tif",
    ];
    with_files(&[(names[usize::from(*kind) % names.len()], bytes)], |folder| {
        let options = images::ImageOptions::default();
        let _ = images::TestSet::open(folder, [3, 4, 5], &options)
            .and_then(|set| set.read(0..set.len()));
    });
});
