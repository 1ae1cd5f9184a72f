//! Augmentation of training images: random flips, shifts, mixtures and pasted rectangles.

use rand::RngExt;
use rand_xoshiro::Xoshiro256PlusPlus;

use super::options::Distillation;

/// Draws a batch of random images, flipped, shifted and mixed at random.
pub(super) fn augmented(
    images: &[f32],
    dims: &[usize],
    batch: usize,
    options: &Distillation,
    random: &mut Xoshiro256PlusPlus,
) -> Vec<f32> {
    let len: usize = dims.iter().product();
    let count = images.len() / len.max(1);
    let one = |random: &mut Xoshiro256PlusPlus| -> Vec<f32> {
        let image = &images[random.random_range(0..count) * len..][..len];
        let &[_, height, width] = dims else { return image.to_vec() };
        let flip = random.random_bool(0.5);
        let reach = i32::try_from(options.shift.min(height / 8).min(width / 8)).unwrap_or(0);
        let mut shift = || random.random_range(-reach..=reach) as isize;
        let (down, right) = (shift(), shift());
        let mut out = Vec::with_capacity(len);
        for plane in image.chunks(height * width) {
            for row in 0..height {
                // Edge pixels are repeated.
                let from = row.saturating_add_signed(down).min(height - 1) * width;
                for column in 0..width {
                    let column = column.saturating_add_signed(right).min(width - 1);
                    out.push(plane[from + if flip { width - 1 - column } else { column }]);
                }
            }
        }
        out
    };
    let mut all = Vec::with_capacity(batch * len);
    for _ in 0..batch {
        let mut image = one(random);
        if random.random_bool(options.mixup.clamp(0.0, 1.0)) {
            let other = one(random);
            let fraction: f32 = random.random();
            image.iter_mut().zip(&other).for_each(|(x, y)| *x += fraction * (y - *x));
        }
        if random.random_bool(options.cutmix.clamp(0.0, 1.0)) {
            paste(&mut image, &one(random), dims, random);
        }
        all.extend(image);
    }
    all
}

/// Pastes a rectangle of `other` with a random fraction of the area into `image` (Yun et al.,
/// "CutMix", ICCV 2019).
fn paste(image: &mut [f32], other: &[f32], dims: &[usize], random: &mut Xoshiro256PlusPlus) {
    let &[_, height, width] = dims else { return };
    let side = random.random::<f64>().sqrt();
    let mut range = |size: usize| {
        let long = ((side * size as f64).round() as usize).clamp(1, size);
        let first = random.random_range(0..=size - long);
        first..first + long
    };
    let (rows, columns) = (range(height), range(width));
    let planes = image.chunks_mut(height * width).zip(other.chunks(height * width));
    for (plane, other) in planes {
        for row in rows.clone() {
            let row = row * width + columns.start..row * width + columns.end;
            plane[row.clone()].copy_from_slice(&other[row]);
        }
    }
}
