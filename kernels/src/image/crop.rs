//! The middle of an image, as torchvision's `CenterCrop` cuts it out.

/// Cuts the middle of `to` out of an image of `from`, both `[height, width]` and `to` no larger.
pub(super) fn center(pixels: &[u8], from: [usize; 2], to: [usize; 2], channels: usize) -> Vec<u8> {
    let (top, left) = (offset(from[0] - to[0]), offset(from[1] - to[1]));
    let mut out = Vec::with_capacity(to[0] * to[1] * channels);
    for row in pixels.chunks_exact(from[1] * channels).skip(top).take(to[0]) {
        out.extend_from_slice(&row[left * channels..][..to[1] * channels]);
    }
    out
}

/// Returns half of `rest`; of a half pixel, the even neighbor, like Python's `round`.
fn offset(rest: usize) -> usize {
    let half = rest / 2;
    if rest % 2 == 1 && half % 2 == 1 { half + 1 } else { half }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_rounded_to_even_like_those_of_torchvision() {
        assert_eq!([0, 1, 2, 3, 4, 5, 32, 33, 35].map(offset), [0, 0, 1, 2, 2, 2, 16, 16, 18]);
    }

    #[test]
    fn the_middle_is_cut_out() {
        let pixels: Vec<u8> = (0..5 * 6 * 2).map(|index| index / 2).collect();
        assert_eq!(
            center(&pixels, [5, 6], [3, 2], 2),
            [8, 8, 9, 9, 14, 14, 15, 15, 20, 20, 21, 21]
        );
    }
}
