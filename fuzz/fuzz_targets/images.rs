//! Images: the first byte chooses the kind of file (npz, IDX, CIFAR-10 batch, PNG, JPEG).
#![no_main]

use libfuzzer_sys::fuzz_target;
use paretune_fuzz::with_files;
use paretune_model::images;

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let names = ["data.npz", "t10k-images-idx3-ubyte", "test_batch.bin", "0.png", "0.jpg"];
    with_files(&[(names[usize::from(*kind) % names.len()], bytes)], |folder| {
        let _ = images::load_test(folder, [3, 4, 5]);
    });
});
