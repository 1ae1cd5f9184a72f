//! Normalization of bytes to a network's input.

/// Writes `(pixel - mean) / standard deviation` per channel for all images in `images`.
///
/// `mean` and `std` are on the scale 0 to 255, `dims` is `[channels, height, width]`. The division
/// equals that of training frameworks to the last bit.
///
/// # Panics
///
/// Panics if `mean` or `std` do not have one value per channel, or if `out` and `images` differ in
/// length.
pub fn normalize_into(images: &[u8], mean: &[f32], std: &[f32], dims: [usize; 3], out: &mut [f32]) {
    let [channels, height, width] = dims;
    assert_eq!(mean.len(), channels, "one mean per channel");
    assert_eq!(std.len(), channels, "one standard deviation per channel");
    assert_eq!(images.len(), out.len(), "one output value per pixel");
    let plane = height * width;
    if plane == 0 || channels == 0 {
        return;
    }
    let planes = images.chunks_exact(plane).zip(out.chunks_exact_mut(plane));
    for ((from, to), (&mean, &std)) in planes.zip(mean.iter().zip(std).cycle()) {
        for (to, &from) in to.iter_mut().zip(from) {
            *to = (f32::from(from) - mean) / std;
        }
    }
}
