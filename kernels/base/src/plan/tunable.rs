//! Tunables: what an algorithm leaves to the search, with the meaning of every value.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::{LazyLock, Mutex, PoisonError};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Value that a schedule gives to a tunable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TunableValue {
    /// A number whose distances mean something.
    Size(u64),
    /// One of several unlike things, by name.
    Choice(&'static str),
    /// Value of a switch: on or off.
    Switch(bool),
}

impl TunableValue {
    /// Returns the size, or `None` for values of other kinds.
    #[must_use]
    pub fn size(self) -> Option<u64> {
        if let Self::Size(size) = self { Some(size) } else { None }
    }

    /// Returns the value with this name, or `None` if the name is too long or if this process has
    /// read too many names to keep.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        static NAMES: LazyLock<Mutex<HashSet<&'static str>>> = LazyLock::new(Mutex::default);
        let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = names.get(name) {
            return Some(Self::Choice(name));
        }
        if name.len() > LONGEST_NAME || names.len() >= MAX_NAMES {
            return None;
        }
        let name: &'static str = Box::leak(name.to_owned().into_boxed_str());
        names.insert(name);
        Some(Self::Choice(name))
    }
}

/// Names of the tunables for the two sides of a register tile, which are chosen together.
pub const TILE: [&str; 2] = ["tile_m", "tile_n"];

/// Longest name of a choice in bytes.
const LONGEST_NAME: usize = 64;

/// Largest number of names of choices that a process keeps.
const MAX_NAMES: usize = 4096;

impl From<u64> for TunableValue {
    fn from(size: u64) -> Self {
        Self::Size(size)
    }
}

impl From<bool> for TunableValue {
    fn from(on: bool) -> Self {
        Self::Switch(on)
    }
}

impl From<&'static str> for TunableValue {
    fn from(name: &'static str) -> Self {
        Self::Choice(name)
    }
}

impl fmt::Display for TunableValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Size(size) => write!(f, "{size}"),
            Self::Choice(name) => f.write_str(name),
            Self::Switch(on) => write!(f, "{on}"),
        }
    }
}

/// TensorFormat of a value in files for programs, whose formats are not self-describing.
#[derive(Serialize, Deserialize)]
enum Tagged {
    Size(u64),
    Choice(String),
    Switch(bool),
}

/// TensorFormat of a value in files for people.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Switch(bool),
    Size(u64),
    Choice(String),
}

impl Serialize for TunableValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match (*self, serializer.is_human_readable()) {
            (Self::Size(size), true) => Untagged::Size(size).serialize(serializer),
            (Self::Choice(name), true) => Untagged::Choice(name.to_owned()).serialize(serializer),
            (Self::Switch(on), true) => Untagged::Switch(on).serialize(serializer),
            (Self::Size(size), false) => Tagged::Size(size).serialize(serializer),
            (Self::Choice(name), false) => Tagged::Choice(name.to_owned()).serialize(serializer),
            (Self::Switch(on), false) => Tagged::Switch(on).serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for TunableValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let choice = |name: &str| {
            Self::named(name).ok_or_else(|| de::Error::custom("too many or too long names"))
        };
        if deserializer.is_human_readable() {
            Ok(match Untagged::deserialize(deserializer)? {
                Untagged::Size(size) => Self::Size(size),
                Untagged::Choice(name) => choice(&name)?,
                Untagged::Switch(on) => Self::Switch(on),
            })
        } else {
            Ok(match Tagged::deserialize(deserializer)? {
                Tagged::Size(size) => Self::Size(size),
                Tagged::Choice(name) => choice(&name)?,
                Tagged::Switch(on) => Self::Switch(on),
            })
        }
    }
}

/// Possible values of a tunable on this machine for a problem; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TunableDomain {
    /// Sizes in ascending order, whose ratios mean something.
    Sizes(Vec<u64>),
    /// Names of alternatives, between which there is no distance.
    Choice(Vec<&'static str>),
    /// Off, and on if the problem allows it.
    Switch {
        /// Whether it can be on.
        can_be_on: bool,
    },
}

/// Pairs of values that two tunables can have together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pairs {
    /// Name of the other tunable, which comes before this one.
    pub other: &'static str,
    /// Values of the other tunable and of this one.
    pub allowed: Vec<[u64; 2]>,
}

/// Name of the tunable for the output pixels of a Winograd tile along each axis.
pub const OUTPUT_TILE: &str = "output_tile";
/// Name of the switch that sums chunks of a product in half precision.
pub const HALF: &str = "half";

/// Returns whether the value of the tunable `name` changes how results are rounded. Names mean the
/// same in every algorithm.
#[must_use]
pub fn changes_numerics(name: &str) -> bool {
    [OUTPUT_TILE, HALF].contains(&name)
}

/// A parameter of an algorithm that the search can choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunable {
    /// Name in `snake_case`, unique within the algorithm.
    pub name: &'static str,
    /// Description of the tunable's effect, shown by `paretune space`.
    pub about: &'static str,
    /// Values that are possible for the problem on this machine.
    pub domain: TunableDomain,
    /// Value without a choice, one of the domain.
    pub default: TunableValue,
    /// The combinations with another tunable that are possible, if not all are.
    pub pairs: Option<Pairs>,
    /// Whether its value changes how results are rounded, see [`changes_numerics`].
    pub changes_numerics: bool,
}

impl Tunable {
    /// Creates a tunable with numbers; a default that is not among them becomes the nearest one.
    #[must_use]
    pub fn sizes(
        name: &'static str,
        about: &'static str,
        values: impl IntoIterator<Item = usize>,
        default: usize,
    ) -> Self {
        let mut values: Vec<u64> = values.into_iter().map(|value| value as u64).collect();
        values.sort_unstable();
        values.dedup();
        let default = nearest_size(&values, default as u64).unwrap_or(default as u64);
        if values.is_empty() {
            values.push(default);
        }
        Self {
            name,
            about,
            domain: TunableDomain::Sizes(values),
            default: TunableValue::Size(default),
            pairs: None,
            changes_numerics: changes_numerics(name),
        }
    }

    /// Creates a tunable with names.
    #[must_use]
    pub fn choice(
        name: &'static str,
        about: &'static str,
        values: Vec<&'static str>,
        default: &'static str,
    ) -> Self {
        let default = TunableValue::Choice(default);
        let domain = TunableDomain::Choice(values);
        let changes_numerics = changes_numerics(name);
        Self { name, about, domain, default, pairs: None, changes_numerics }
    }

    /// Creates a tunable that is on or off.
    #[must_use]
    pub fn switch(name: &'static str, about: &'static str, can_be_on: bool, default: bool) -> Self {
        Self {
            name,
            about,
            domain: TunableDomain::Switch { can_be_on },
            default: TunableValue::Switch(default && can_be_on),
            pairs: None,
            changes_numerics: changes_numerics(name),
        }
    }

    /// Creates the two tunables for the sides of a tile, of which only `tiles` are possible.
    #[must_use]
    pub fn tile(
        names: [&'static str; 2],
        abouts: [&'static str; 2],
        tiles: &[[usize; 2]],
        default: [usize; 2],
    ) -> [Self; 2] {
        let side = |axis: usize| {
            Self::sizes(
                names[axis],
                abouts[axis],
                tiles.iter().map(|tile| tile[axis]),
                default[axis],
            )
        };
        let [first, mut second] = [side(0), side(1)];
        let mut allowed: Vec<[u64; 2]> =
            tiles.iter().map(|tile| tile.map(|side| side as u64)).collect();
        allowed.sort_unstable();
        allowed.dedup();
        if allowed.len() < first.values().len() * second.values().len() {
            second.pairs = Some(Pairs { other: names[0], allowed });
        }
        [first, second]
    }

    /// Returns all values of the domain in their order.
    #[must_use]
    pub fn values(&self) -> Vec<TunableValue> {
        match &self.domain {
            TunableDomain::Sizes(sizes) => sizes.iter().copied().map(TunableValue::Size).collect(),
            TunableDomain::Choice(names) => {
                names.iter().copied().map(TunableValue::Choice).collect()
            }
            TunableDomain::Switch { can_be_on: true } => {
                [false, true].map(TunableValue::Switch).into()
            }
            TunableDomain::Switch { can_be_on: false } => vec![TunableValue::Switch(false)],
        }
    }

    /// Returns the values that are possible beside the `chosen` values of earlier tunables.
    #[must_use]
    pub fn values_beside(&self, chosen: &BTreeMap<String, TunableValue>) -> Vec<TunableValue> {
        let mut values = self.values();
        if let Some(Pairs { other, allowed }) = &self.pairs
            && let Some(TunableValue::Size(other)) = chosen.get(*other)
        {
            values.retain(|value| {
                allowed.iter().any(|pair| pair[0] == *other && Some(pair[1]) == value.size())
            });
        }
        values
    }

    /// Returns the value beside `chosen` that is nearest to `wanted` in meaning: the number with
    /// the smallest ratio, otherwise `wanted` itself or the default.
    #[must_use]
    pub fn nearest(
        &self,
        wanted: TunableValue,
        chosen: &BTreeMap<String, TunableValue>,
    ) -> TunableValue {
        let values = self.values_beside(chosen);
        if values.contains(&wanted) {
            return wanted;
        }
        let target = match (wanted, self.default) {
            (TunableValue::Size(size), TunableValue::Size(_)) | (_, TunableValue::Size(size)) => {
                size
            }
            _ => return self.default,
        };
        let sizes: Vec<u64> = values.iter().filter_map(|value| value.size()).collect();
        nearest_size(&sizes, target).map_or(self.default, TunableValue::Size)
    }

    /// Returns what must hold between this tunable and another one, as expressions over their
    /// names.
    #[must_use]
    pub fn constraints(&self) -> Vec<String> {
        let Some(Pairs { other, allowed }) = &self.pairs else { return Vec::new() };
        let name = self.name;
        let mut beside: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for [first, second] in allowed {
            beside.entry(*first).or_default().push(*second);
        }
        let all = self.values().len();
        let partial = beside.into_iter().filter(|(_, seconds)| seconds.len() < all);
        let constraint = |(first, seconds): (u64, Vec<u64>)| {
            let seconds: Vec<String> =
                seconds.iter().map(|second| format!("{name} == {second}")).collect();
            format!("{other} != {first} or {}", seconds.join(" or "))
        };
        partial.map(constraint).collect()
    }
}

/// Returns the size with the smallest ratio to `wanted`.
fn nearest_size(sizes: &[u64], wanted: u64) -> Option<u64> {
    #[expect(clippy::cast_precision_loss, reason = "sizes are small")]
    let log = |size: u64| (size as f64 + 1.0).ln();
    let distance = |size: &u64| (log(*size) - log(wanted)).abs();
    sizes.iter().copied().min_by(|a, b| distance(a).total_cmp(&distance(b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_value_is_near_in_meaning() {
        let none = BTreeMap::new();
        let sizes = Tunable::sizes("panel", "", [1, 8, 64], 8);
        assert_eq!(sizes.nearest(TunableValue::Size(24), &none), TunableValue::Size(64));
        assert_eq!(sizes.nearest(TunableValue::Size(20), &none), TunableValue::Size(8));
        let layout = Tunable::choice("layout", "", vec!["nchw", "nhwc"], "nhwc");
        assert_eq!(
            layout.nearest(TunableValue::Choice("nchwc"), &none),
            TunableValue::Choice("nhwc")
        );
        assert_eq!(
            layout.nearest(TunableValue::Choice("nchw"), &none),
            TunableValue::Choice("nchw")
        );
        let switch = Tunable::switch("across", "", false, true);
        assert_eq!(switch.nearest(TunableValue::Switch(true), &none), TunableValue::Switch(false));
    }

    #[test]
    fn sides_of_a_tile_belong_together() {
        let tiles = [[6, 16], [12, 8], [1, 8], [1, 16]];
        let [first, second] = Tunable::tile(["tile_m", "tile_n"], ["", ""], &tiles, [6, 16]);
        assert_eq!(first.default, TunableValue::Size(6));
        assert_eq!(
            second.constraints(),
            ["tile_m != 6 or tile_n == 16", "tile_m != 12 or tile_n == 8"]
        );
        let chosen = BTreeMap::from([("tile_m".to_owned(), TunableValue::Size(12))]);
        assert_eq!(second.nearest(TunableValue::Size(16), &chosen), TunableValue::Size(8));
    }

    #[test]
    fn values_are_what_people_would_write() {
        let values =
            [TunableValue::Size(16), TunableValue::Choice("nhwc"), TunableValue::Switch(true)];
        let text = serde_json::to_string(&values).unwrap();
        assert_eq!(text, r#"[16,"nhwc",true]"#);
        assert_eq!(serde_json::from_str::<[TunableValue; 3]>(&text).unwrap(), values);
    }
}
