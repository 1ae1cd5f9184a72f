//! Ten classes of the built-in images as point tests, in whole numbers throughout.
//!
//! A shape has a frame of its own: the origin is its center and [`UNIT`] is its radius.

use super::random::Random;

/// Radius of every shape in its own frame.
pub(super) const UNIT: i32 = 1024;

/// Largest distance of any shape's points from the center: the tips of the widest stars.
pub(super) const FARTHEST: i32 = 1300;

/// Names of the classes in the order of their labels.
pub const CLASSES: [&str; 10] = [
    "checkers", "crescent", "cross", "disc", "pentagon", "ring", "square", "star", "stripes",
    "triangle",
];

/// Class of a shape, in the order of [`CLASSES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Checkers,
    Crescent,
    Cross,
    Disc,
    Pentagon,
    Ring,
    Square,
    Star,
    Stripes,
    Triangle,
}

impl Class {
    /// Classes in the order of their labels.
    pub const ALL: [Self; CLASSES.len()] = [
        Self::Checkers,
        Self::Crescent,
        Self::Cross,
        Self::Disc,
        Self::Pentagon,
        Self::Ring,
        Self::Square,
        Self::Star,
        Self::Stripes,
        Self::Triangle,
    ];

    pub fn any(random: &mut Random) -> Self {
        Self::ALL[random.range(0, CLASSES.len() as i32 - 1) as usize]
    }
}

/// Shape with the proportions that vary within its class.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    class: Class,
    /// Proportion whose meaning depends on the class.
    detail: i32,
    /// Offset of a pattern's start.
    phase: [i32; 2],
}

impl Shape {
    /// Draws a shape of a class.
    pub fn random(class: Class, random: &mut Random) -> Self {
        let detail = match class {
            // Width of a field or stripe.
            Class::Checkers => random.range(430, 620),
            Class::Stripes => random.range(300, 480),
            // Distance of the bite's center from the disc's.
            Class::Crescent => random.range(380, 640),
            // Half the width of a bar.
            Class::Cross => random.range(220, 360),
            // Inner radius of the ring.
            Class::Ring => random.range(430, 640),
            // Distance of the innermost corners' lines from the center: 316 is the pentagram.
            Class::Star => random.range(316, 400),
            _ => 0,
        };
        let phase = [random.range(0, 4095), random.range(0, 4095)];
        Self { class, detail, phase }
    }

    /// Returns whether a point of the frame belongs to the shape. Coordinates are below 2^14 in
    /// magnitude.
    pub fn contains(&self, x: i32, y: i32) -> bool {
        let square = x * x + y * y;
        let in_disc = square <= UNIT * UNIT;
        let stripe = |at: i32, phase: i32| (at + phase + (1 << 15)) / self.detail % 2 == 0;
        match self.class {
            Class::Checkers => in_disc && stripe(x, self.phase[0]) == stripe(y, self.phase[1]),
            Class::Crescent => {
                let bite = x - self.detail;
                in_disc && bite * bite + y * y > (UNIT - 180) * (UNIT - 180)
            }
            Class::Cross => {
                let (x, y) = (x.abs(), y.abs());
                x.min(y) <= self.detail && x.max(y) <= UNIT
            }
            Class::Pentagon => beyond(&FIVE, 828, x, y) == 0,
            Class::Ring => in_disc && square >= self.detail * self.detail,
            Class::Square => x.abs().max(y.abs()) <= 800,
            // Five lines bound the inner pentagon; the points of the star are beyond one line only.
            Class::Star => in_disc && beyond(&FIVE, self.detail, x, y) <= 1,
            Class::Stripes => in_disc && stripe(x, self.phase[0]),
            Class::Triangle => beyond(&THREE, 512, x, y) == 0,
            Class::Disc => in_disc,
        }
    }
}

/// Directions a third and a fifth of a turn apart, 1024 long.
const THREE: [[i32; 2]; 3] = [[0, 1024], [-887, -512], [887, -512]];
const FIVE: [[i32; 2]; 5] = [[0, 1024], [-974, 316], [-602, -828], [602, -828], [974, 316]];

/// Counts the lines at `distance` from the center that a point lies beyond.
fn beyond(directions: &[[i32; 2]], distance: i32, x: i32, y: i32) -> usize {
    directions
        .iter()
        .filter(|direction| direction[0] * x + direction[1] * y > distance * 1024)
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_fill_a_good_part_of_their_circle_and_little_beyond() {
        let mut random = Random::new(0, 0);
        for class in Class::ALL {
            for _ in 0..20 {
                let shape = Shape::random(class, &mut random);
                let points = (-1536..=1536)
                    .step_by(32)
                    .flat_map(|x| (-1536..=1536).step_by(32).map(move |y| (x, y)));
                let (mut inside, mut outside) = (0, 0);
                for (x, y) in points.filter(|&(x, y)| shape.contains(x, y)) {
                    assert!(x * x + y * y <= FARTHEST * FARTHEST, "{shape:?} reaches ({x}, {y})");
                    if x * x + y * y <= UNIT * UNIT { inside += 1 } else { outside += 1 }
                }
                // The circle has some 3,217 points.
                assert!((700..=3230).contains(&inside), "{:?} fills {inside}", class);
                assert!(outside <= 350, "{:?} has {outside} points outside", class);
            }
        }
    }
}
