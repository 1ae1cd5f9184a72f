//! Seeds of every search: the baseline, each technique alone in every layer, and the obvious
//! combinations. The search begins with them, so that its front always covers them.

use paretune_kernels::weights::{Grid, Numbers};
use paretune_names::numbers::{bits_value, offered};
use paretune_names::{LayerPart, Name, THREADS, layers_of};
use paretune_spaces::{CompiledSpace, Configuration, Point, Value};

/// A named point that a search starts from.
#[derive(Clone, Debug, PartialEq)]
pub struct Seed {
    /// Name of the recipe: `baseline`, `8 bits everywhere`, ...
    pub origin: String,
    /// The valid point that is closest to the recipe.
    pub point: Point,
    /// Whether it needs reconstructed weights, which take long to compute the first time.
    pub reconstructs: bool,
}

/// Name of the baseline, the first seed.
pub use paretune_record::front::BASELINE;

/// A uniform recipe: the same values for every layer that offers them.
#[derive(Clone, Copy, Default)]
struct Uniform {
    bits: Option<Numbers>,
    sparsity: Option<f64>,
    channels: Option<f64>,
    algorithm: Option<&'static str>,
}

/// Lists the seeds of `space` in the order in which they should be tried, without repetitions.
#[must_use]
pub fn seeds(space: &CompiledSpace) -> Vec<Seed> {
    let integer = |grid: Grid| Some(Numbers::Integer(grid));
    let int8 = integer(Grid::Bits8);
    let uniform: &[(&str, Uniform)] = &[
        (BASELINE, Uniform::default()),
        ("8 bits everywhere", Uniform { bits: int8, ..Uniform::default() }),
        ("bfloat16 everywhere", Uniform { bits: Some(Numbers::Bf16), ..Uniform::default() }),
        ("half precision everywhere", Uniform { bits: Some(Numbers::Fp16), ..Uniform::default() }),
        ("75 % of channels", Uniform { channels: Some(0.75), ..Uniform::default() }),
        (
            "8 bits, 87.5 % of channels",
            Uniform { bits: int8, channels: Some(0.875), ..Uniform::default() },
        ),
        (
            "8 bits, 75 % of channels",
            Uniform { bits: int8, channels: Some(0.75), ..Uniform::default() },
        ),
        ("50 % of channels", Uniform { channels: Some(0.5), ..Uniform::default() }),
        ("Winograd", Uniform { algorithm: Some("winograd"), ..Uniform::default() }),
        ("im2col", Uniform { algorithm: Some("im2col_gemm"), ..Uniform::default() }),
        (
            "8 bits, 50 % of channels",
            Uniform { bits: int8, channels: Some(0.5), ..Uniform::default() },
        ),
        (
            "70 % sparse, CSR",
            Uniform { sparsity: Some(0.7), algorithm: Some("csr_naive"), ..Uniform::default() },
        ),
        ("50 % sparse, dense kernels", Uniform { sparsity: Some(0.5), ..Uniform::default() }),
        (
            "80 % sparse, CSR",
            Uniform { sparsity: Some(0.8), algorithm: Some("csr_naive"), ..Uniform::default() },
        ),
        ("4 bits everywhere", Uniform { bits: integer(Grid::Bits4), ..Uniform::default() }),
        ("3 bits everywhere", Uniform { bits: integer(Grid::Bits3), ..Uniform::default() }),
        ("2 bits everywhere", Uniform { bits: integer(Grid::Bits2), ..Uniform::default() }),
        ("ternary everywhere", Uniform { bits: integer(Grid::Ternary), ..Uniform::default() }),
    ];
    let threads: Vec<Value> = space
        .parameters()
        .iter()
        .find(|parameter| parameter.name == THREADS)
        .map(|parameter| parameter.domain.values().to_vec())
        .unwrap_or_default();
    let mut seeds: Vec<Seed> = Vec::new();
    let mut add = |origin: String, wanted: &Configuration, reconstructs: bool| {
        let point = space.closest(wanted);
        if seeds.iter().all(|seed| seed.point != point) {
            seeds.push(Seed { origin, point, reconstructs });
        }
    };
    for (origin, recipe) in uniform {
        add((*origin).to_owned(), &recipe.wanted(space), recipe.reconstructs());
    }
    // The first two recipes are repeated with every other number of threads.
    for (origin, recipe) in &uniform[..2] {
        for count in threads.iter().rev() {
            let mut wanted = recipe.wanted(space);
            wanted.insert(THREADS, count.clone());
            add(format!("{origin}, {count} threads"), &wanted, false);
        }
    }
    seeds
}

impl Uniform {
    fn reconstructs(&self) -> bool {
        self.sparsity.is_some() || self.bits.is_some_and(|numbers| numbers.bits() < 8.0)
    }

    /// Returns the recipe's values for all parameters that it fixes.
    fn wanted(&self, space: &CompiledSpace) -> Configuration {
        let mut wanted = Configuration::new();
        let layers = layers_of(space.parameters().iter().map(|parameter| parameter.name.as_str()));
        for parameter in space.parameters() {
            if let Some(value) = self.wants(Name::parse(&parameter.name, &layers)) {
                // A layer that does not offer this 16-bit type stays at 32 bits. The nearest number
                // of bits could be 8, which would make the layer an integer one.
                let layer = match Name::parse(&parameter.name, &layers) {
                    Some(Name::Layer(layer, LayerPart::Bits)) => Some(layer),
                    _ => None,
                };
                let half = self.bits.filter(|numbers| numbers.half().is_some());
                let value = match (layer, half) {
                    (Some(layer), Some(numbers)) if !offered(space, layer).contains(&numbers) => {
                        bits_value(Numbers::F32)
                    }
                    _ => value,
                };
                wanted.insert(parameter.name.clone(), value);
            }
        }
        wanted
    }

    fn wants(&self, name: Option<Name<'_>>) -> Option<Value> {
        match name? {
            Name::Channels(_) => self.channels.map(Value::Real),
            Name::Layer(_, LayerPart::Bits) => self.bits.map(bits_value),
            Name::Layer(_, LayerPart::Half) => {
                self.bits.and_then(Numbers::half).map(|half| Value::Text(half.to_owned()))
            }
            Name::Layer(_, LayerPart::Sparsity) => self.sparsity.map(Value::Real),
            Name::Layer(_, LayerPart::Algorithm) => {
                self.algorithm.map(|algorithm| Value::Text(algorithm.to_owned()))
            }
            _ => None,
        }
    }
}
