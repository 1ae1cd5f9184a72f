//! Drawing of one built-in image: a shape among smaller ones, on a textured ground, partly covered,
//! under noise. Only whole numbers are used, so that every machine draws equal bytes.
//!
//! Contrast, stretch, cover and noise are set so that a small network is right some 94 times in
//! 100: with easier images (99 of 100), no realistic compression costs measurable accuracy.

use super::random::Random;
use super::shape::{Class, FARTHEST, Shape, UNIT};

/// Height and width of an image.
pub(super) const SIDE: usize = 32;
/// Channels red, green and blue.
pub(super) const CHANNELS: usize = 3;
/// Number of bytes of one image.
pub(super) const BYTES: usize = CHANNELS * SIDE * SIDE;

/// Units per pixel: positions are in 1/64 pixel.
const PIXEL: i32 = 64;
/// Samples of a pixel in each direction.
const SAMPLES: i32 = 4;

type Color = [i32; CHANNELS];

/// Draws an image of `class` into `out`, `[channels, height, width]`.
pub(super) fn draw(class: Class, random: &mut Random, out: &mut [u8; BYTES]) {
    let mut canvas = ground(random);
    let average = mean(&canvas);
    let color = contrasting(average, 30, random);
    let placement = Placement::random(PIXEL * 7, PIXEL * 13, 65, random);

    for _ in 0..random.range(1, 3) {
        let other = Shape::random(Class::any(random), random);
        let color = contrasting(average, 40, random);
        let place = Placement::beside(&placement, random);
        paint(&mut canvas, &other, &place, color, color);
    }
    let shade = color.map(|value| (value + random.range(-35, 35)).clamp(0, 255));
    paint(&mut canvas, &Shape::random(class, random), &placement, color, shade);
    if random.chance(90) {
        cover(&mut canvas, &placement, random);
    }

    let strength = random.range(6, 58);
    for (index, pixel) in canvas.iter().enumerate() {
        let [a, b] = random.noise();
        let [c, _] = random.noise();
        for (channel, noise) in [a, b, c].into_iter().enumerate() {
            let value = pixel[channel] + noise * strength / 37;
            out[channel * SIDE * SIDE + index] = value.clamp(0, 255) as u8;
        }
    }
}

/// Draws a ground with a gradient of two colors, soft blobs and faint stripes.
fn ground(random: &mut Random) -> Vec<Color> {
    let from = any_color(random);
    let to = from.map(|value| (value + random.range(-70, 70)).clamp(0, 255));
    let (dx, dy) = turn(random.range(0, 359));
    let (sx, sy) = turn(random.range(0, 359));
    let period = random.range(3, 9) * PIXEL;
    let depth = if random.chance(50) { random.range(4, 22) } else { 0 };
    let blobs: Vec<([i32; 2], i32, Color)> = (0..random.range(1, 4))
        .map(|_| {
            let at = [random.range(0, 31), random.range(0, 31)];
            let color = [random.range(-50, 50), random.range(-50, 50), random.range(-50, 50)];
            (at, random.range(4, 11), color)
        })
        .collect();
    let mut canvas = Vec::with_capacity(SIDE * SIDE);
    for y in 0..SIDE as i32 {
        for x in 0..SIDE as i32 {
            let (u, v) = ((2 * x - 31) * PIXEL / 2, (2 * y - 31) * PIXEL / 2);
            // Ranges from 0 to 256 across the image in any direction.
            let share = ((u * dx + v * dy) / 1024 * 256 / (44 * PIXEL) + 128).clamp(0, 256);
            let stripe = triangle_wave((u * sx + v * sy) / 1024, period) * depth / 256;
            let mut color = [0; CHANNELS];
            for channel in 0..CHANNELS {
                let mut value =
                    (from[channel] * (256 - share) + to[channel] * share) / 256 + stripe;
                for (at, radius, tint) in &blobs {
                    let distance = (x - at[0]) * (x - at[0]) + (y - at[1]) * (y - at[1]);
                    let reach = radius * radius;
                    if distance < reach {
                        let falloff = (reach - distance) * 256 / reach;
                        value += tint[channel] * falloff / 256;
                    }
                }
                color[channel] = value.clamp(0, 255);
            }
            canvas.push(color);
        }
    }
    canvas
}

/// Placement of a shape: the transformation from the image to the shape's frame.
struct Placement {
    /// Center in units of 1/64 pixel.
    middle: [i32; 2],
    /// Radius in units of 1/64 pixel.
    radius: i32,
    /// Matrix from image to frame, times 2^16.
    matrix: [[i64; 2]; 2],
}

impl Placement {
    /// Draws a placement in the image, mostly visible, stretched by at most `stretch` percent.
    fn random(smallest: i32, largest: i32, stretch: i32, random: &mut Random) -> Self {
        let radius = random.range(smallest, largest);
        let free = (SIDE as i32 * PIXEL / 2 - radius * 9 / 10).max(0);
        let middle = [0, 1].map(|_| SIDE as i32 * PIXEL / 2 + random.range(-free, free));
        Self::new(middle, radius, stretch, random)
    }

    /// Draws a placement of a small shape that is mostly beside a large one.
    fn beside(large: &Self, random: &mut Random) -> Self {
        let radius = large.radius * random.range(25, 50) / 100;
        let (dx, dy) = turn(random.range(0, 359));
        let distance = (large.radius + radius) * random.range(80, 130) / 100;
        let middle =
            [large.middle[0] + dx * distance / 1024, large.middle[1] + dy * distance / 1024];
        Self::new(middle, radius, 30, random)
    }

    fn new(middle: [i32; 2], radius: i32, stretch: i32, random: &mut Random) -> Self {
        let (cos, sin) = turn(random.range(0, 359));
        // The frame is rotated, stretched, and rotated again, so that shapes lean as well.
        let (lean_cos, lean_sin) = turn(random.range(0, 359));
        let longer = 100 + random.range(0, stretch);
        let (wide, high) =
            (i64::from(UNIT) * 100 / i64::from(longer), i64::from(UNIT) * i64::from(longer) / 100);
        let product = |a: [[i64; 2]; 2], b: [[i64; 2]; 2]| {
            [0, 1].map(|row: usize| {
                [0, 1].map(|column: usize| a[row][0] * b[0][column] + a[row][1] * b[1][column])
            })
        };
        let turned = |cos: i32, sin: i32| {
            [[i64::from(cos), i64::from(sin)], [i64::from(-sin), i64::from(cos)]]
        };
        let stretched = product([[wide, 0], [0, high]], turned(cos, sin));
        let leaning = product(turned(lean_cos, lean_sin), stretched);
        let matrix =
            leaning.map(|row| row.map(|value| (value << 16) / (1 << 20) / i64::from(radius)));
        Self { middle, radius, matrix }
    }

    /// Maps a point of the image, in 1/64 pixel, to the shape's frame.
    fn frame(&self, x: i32, y: i32) -> [i32; 2] {
        let (x, y) = (i64::from(x - self.middle[0]), i64::from(y - self.middle[1]));
        self.matrix.map(|row| ((row[0] * x + row[1] * y) >> 16) as i32)
    }

    /// Returns an upper bound of the distance in the frame from the center of a pixel to any of its
    /// points.
    fn half_pixel(&self) -> i64 {
        let sum: i64 = self.matrix.iter().flatten().map(|value| value.abs()).sum();
        ((sum * i64::from(PIXEL / 2)) >> 16) + 4
    }
}

/// Paints a shape with a color gradient along its frame.
fn paint(canvas: &mut [Color], shape: &Shape, place: &Placement, from: Color, to: Color) {
    let reach = place.radius * 2;
    let first = |middle: i32| ((middle - reach) / PIXEL).clamp(0, SIDE as i32);
    let last = |middle: i32| ((middle + reach) / PIXEL + 1).clamp(0, SIDE as i32);
    // No point of a pixel with a center farther out than this can belong to the shape.
    let outer = i64::from(FARTHEST) + place.half_pixel();
    for y in first(place.middle[1])..last(place.middle[1]) {
        for x in first(place.middle[0])..last(place.middle[0]) {
            let [u, v] = place.frame(x * PIXEL + PIXEL / 2, y * PIXEL + PIXEL / 2);
            let (across, down) = (i64::from(u), i64::from(v));
            if across * across + down * down > outer * outer {
                continue;
            }
            let mut covered = 0;
            for sample in 0..SAMPLES * SAMPLES {
                let at = |pixel: i32, sample: i32| {
                    pixel * PIXEL + (2 * sample + 1) * PIXEL / (2 * SAMPLES)
                };
                let [u, v] = place.frame(at(x, sample % SAMPLES), at(y, sample / SAMPLES));
                covered +=
                    i32::from(u.abs() < 4 * UNIT && v.abs() < 4 * UNIT && shape.contains(u, v));
            }
            if covered > 0 {
                let share = ((u + UNIT) / 8).clamp(0, 256);
                let color = [0, 1, 2]
                    .map(|channel| (from[channel] * (256 - share) + to[channel] * share) / 256);
                blend(&mut canvas[(y * SIDE as i32 + x) as usize], color, covered);
            }
        }
    }
}

/// Paints a bar over the outer part of a shape.
fn cover(canvas: &mut [Color], place: &Placement, random: &mut Random) {
    let color = any_color(random);
    let (dx, dy) = turn(random.range(0, 359));
    let near = place.radius * random.range(20, 65) / 100;
    let far = near + place.radius * random.range(15, 35) / 100;
    for y in 0..SIDE as i32 {
        for x in 0..SIDE as i32 {
            let (u, v) =
                (x * PIXEL + PIXEL / 2 - place.middle[0], y * PIXEL + PIXEL / 2 - place.middle[1]);
            let along = (u * dx + v * dy) / 1024;
            if (near..far).contains(&along) {
                blend(&mut canvas[(y * SIDE as i32 + x) as usize], color, SAMPLES * SAMPLES);
            }
        }
    }
}

fn blend(pixel: &mut Color, color: Color, covered: i32) {
    let whole = SAMPLES * SAMPLES;
    for (value, color) in pixel.iter_mut().zip(color) {
        *value = (*value * (whole - covered) + color * covered) / whole;
    }
}

fn any_color(random: &mut Random) -> Color {
    [random.range(20, 235), random.range(20, 235), random.range(20, 235)]
}

/// Draws a color whose channels differ from another's by at least `least` in sum.
fn contrasting(other: Color, least: i32, random: &mut Random) -> Color {
    let mut best = any_color(random);
    let difference =
        |color: &Color| color.iter().zip(other).map(|(a, b)| (a - b).abs()).sum::<i32>();
    for _ in 0..8 {
        if difference(&best) >= least {
            break;
        }
        let next = any_color(random);
        if difference(&next) > difference(&best) {
            best = next;
        }
    }
    best
}

fn mean(canvas: &[Color]) -> Color {
    [0, 1, 2]
        .map(|channel| canvas.iter().map(|color| color[channel]).sum::<i32>() / canvas.len() as i32)
}

/// Rises from -256 to 256 and falls back within a period.
fn triangle_wave(at: i32, period: i32) -> i32 {
    let at = at.rem_euclid(period) * 1024 / period;
    if at < 512 { at - 256 } else { 768 - at }
}

/// Returns cosine and sine of whole degrees, times 1024, by Bhaskara's formula (within 0.2 %).
fn turn(degrees: i32) -> (i32, i32) {
    let sine = |degrees: i32| {
        let degrees = degrees.rem_euclid(360);
        let (half, sign) = if degrees < 180 { (degrees, 1) } else { (degrees - 180, -1) };
        let product = half * (180 - half);
        sign * 4096 * product / (40500 - product)
    };
    (sine(degrees + 90), sine(degrees))
}
