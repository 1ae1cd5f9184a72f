//! Change of an image's size with the filters and the fixed point of Pillow (`Resample.c` and, for
//! the nearest pixel, `Geometry.c`).

use super::Interpolation;

/// Bits behind the point of a coefficient: 8 bits of a pixel and two of overshoot fit beside them.
const PRECISION: u32 = 32 - 8 - 2;

/// Resizes an image of `channels` interleaved bytes per pixel. Sizes are `[height, width]`, none of
/// them zero.
pub(super) fn resize(
    pixels: &[u8],
    from: [usize; 2],
    to: [usize; 2],
    channels: usize,
    interpolation: Interpolation,
) -> Vec<u8> {
    let filter = match interpolation {
        Interpolation::Nearest => return nearest(pixels, from, to, channels),
        Interpolation::Bilinear => Filter { support: 1.0, at: triangle },
        Interpolation::Bicubic => Filter { support: 2.0, at: cubic },
        Interpolation::Lanczos => Filter { support: 3.0, at: lanczos },
    };
    let [height, width] = from;
    let wide = if width == to[1] {
        pixels.to_vec()
    } else {
        rows(pixels, width, channels, &Window::all(width, to[1], &filter))
    };
    if height == to[0] {
        wide
    } else {
        columns(&wide, to[1] * channels, &Window::all(height, to[0], &filter))
    }
}

/// Filter function with its reach in pixels.
struct Filter {
    support: f64,
    at: fn(f64) -> f64,
}

/// Pixels that make up one pixel of the result: the first of them, and a weight for each.
struct Window {
    first: usize,
    weights: Vec<i32>,
}

impl Window {
    /// Returns the windows of all pixels along one axis.
    fn all(from: usize, to: usize, filter: &Filter) -> Vec<Self> {
        let scale = from as f64 / to as f64;
        let stretch = scale.max(1.0);
        let support = filter.support * stretch;
        (0..to)
            .map(|index| {
                let center = (index as f64 + 0.5) * scale;
                // Conversions saturate at zero.
                let first = (center - support + 0.5) as usize;
                let end = ((center + support + 0.5) as usize).min(from);
                let weights: Vec<f64> = (first..end)
                    .map(|at| (filter.at)((at as f64 - center + 0.5) * (1.0 / stretch)))
                    .collect();
                let sum: f64 = weights.iter().sum();
                let fixed = |weight: &f64| {
                    let weight = if sum == 0.0 { *weight } else { weight / sum };
                    let scaled = weight * f64::from(1_u32 << PRECISION);
                    (if weight < 0.0 { scaled - 0.5 } else { scaled + 0.5 }) as i32
                };
                Self { first, weights: weights.iter().map(fixed).collect() }
            })
            .collect()
    }
}

/// Rounds a sum of weighted pixels to a byte.
fn byte(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}

const HALF: i32 = 1 << (PRECISION - 1);

fn rows(pixels: &[u8], width: usize, channels: usize, windows: &[Window]) -> Vec<u8> {
    let mut out = Vec::with_capacity(pixels.len() / width * windows.len());
    for row in pixels.chunks_exact(width * channels) {
        for window in windows {
            let seen = &row[window.first * channels..];
            for channel in 0..channels {
                let values = seen.iter().skip(channel).step_by(channels);
                let sum = values.zip(&window.weights).fold(HALF, |sum, (&pixel, &weight)| {
                    sum.wrapping_add(i32::from(pixel).wrapping_mul(weight))
                });
                out.push(byte(sum));
            }
        }
    }
    out
}

fn columns(pixels: &[u8], stride: usize, windows: &[Window]) -> Vec<u8> {
    let mut out = Vec::with_capacity(stride * windows.len());
    let mut sums = vec![0_i32; stride];
    for window in windows {
        sums.fill(HALF);
        let seen = pixels[window.first * stride..].chunks_exact(stride);
        for (row, &weight) in seen.zip(&window.weights) {
            for (sum, &pixel) in sums.iter_mut().zip(row) {
                *sum = sum.wrapping_add(i32::from(pixel).wrapping_mul(weight));
            }
        }
        out.extend(sums.iter().map(|&sum| byte(sum)));
    }
    out
}

fn nearest(pixels: &[u8], from: [usize; 2], to: [usize; 2], channels: usize) -> Vec<u8> {
    let picked = |from: usize, to: usize| -> Vec<usize> {
        let scale = from as f64 / to as f64;
        // Pillow adds up the places, whose rounding decides between neighbors.
        let mut place = scale * 0.5;
        (0..to)
            .map(|_| {
                let at = (place as usize).min(from - 1);
                place += scale;
                at
            })
            .collect()
    };
    let (down, across) = (picked(from[0], to[0]), picked(from[1], to[1]));
    let mut out = Vec::with_capacity(to[0] * to[1] * channels);
    for row in down {
        let row = &pixels[row * from[1] * channels..][..from[1] * channels];
        for &column in &across {
            out.extend_from_slice(&row[column * channels..][..channels]);
        }
    }
    out
}

fn triangle(x: f64) -> f64 {
    (1.0 - x.abs()).max(0.0)
}

/// Keys' cubic convolution with a = -0.5.
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

fn lanczos(x: f64) -> f64 {
    let sinc = |x: f64| {
        let x = x * std::f64::consts::PI;
        if x == 0.0 { 1.0 } else { x.sin() / x }
    };
    if (-3.0..3.0).contains(&x) { sinc(x) * sinc(x / 3.0) } else { 0.0 }
}
