//! Cache state between two runs of a layer: undisturbed, or as the rest of its network leaves it.

use std::hint::black_box;
use std::time::{Duration, Instant};

use paretune_kernels::operator::ConvProblem;
use paretune_kernels::weights::{Numbers, WeightFormat};

use super::Bed;

/// Numbers of weights of whole networks, by the first name in a layer's list of networks.
const NETWORKS: [(&str, usize); 4] = [
    ("resnet20", 269_722),
    ("mobilenet", 3_195_328),
    ("resnet18", 11_164_362),
    ("vgg16", 14_977_728),
];

/// Memory that stands for the other weights of a network.
pub struct Surroundings {
    others: Vec<[u64; 8]>,
    /// Number of weights of the network.
    network: usize,
}

impl Surroundings {
    /// Returns surroundings in which layers run alone.
    pub const fn none() -> Self {
        Self { others: Vec::new(), network: 0 }
    }

    /// Returns the surroundings for layers of the first of `networks`; layers of an unknown network
    /// run alone.
    pub fn of(networks: &str) -> Self {
        let first = networks.split(' ').next().unwrap_or_default();
        let network =
            NETWORKS.iter().find(|(name, _)| *name == first).map_or(0, |(_, weights)| *weights);
        // Single precision, 4 bytes per weight, is the largest type.
        Self { others: vec![[1; 8]; network / 16], network }
    }

    /// Returns the size in bytes of the other layers' weights. They take as many bytes per weight
    /// as the kernel's, but no more than the stored format: an algorithm that expands its weights
    /// does so for this layer alone.
    fn bytes(&self, problem: &ConvProblem, format: WeightFormat, bed: &Bed) -> usize {
        let [height, width] = problem.window.kernel;
        let own = problem.out_channels * problem.group_in() * height * width;
        let stored = match format.numbers {
            Numbers::F32 => 4.0,
            Numbers::Bf16 | Numbers::Fp16 => 2.0,
            Numbers::Integer(_) => 1.0,
        };
        let each = (bed.kernel.weight_bytes() as f64 / own as f64).min(stored);
        (self.network.saturating_sub(own) as f64 * each) as usize
    }

    /// Returns the seconds of one run of `bed` after the other weights have passed through the
    /// caches.
    pub fn run(&self, problem: &ConvProblem, format: WeightFormat, bed: &mut Bed) -> f64 {
        if self.others.is_empty() {
            return bed.run();
        }
        let lines = (self.bytes(problem, format, bed) / 64).min(self.others.len());
        black_box(self.others[..lines].iter().fold(0, |sum, line| sum ^ black_box(line[0])));
        bed.touch();
        bed.run()
    }

    /// Returns the seconds of the fastest run within `budget`, of at least five.
    pub fn best(
        &self,
        problem: &ConvProblem,
        format: WeightFormat,
        bed: &mut Bed,
        budget: Duration,
    ) -> f64 {
        self.run(problem, format, bed);
        let begin = Instant::now();
        let mut best = f64::INFINITY;
        let mut runs = 0;
        while runs < 5 || begin.elapsed() < budget {
            best = best.min(self.run(problem, format, bed));
            runs += 1;
        }
        best
    }
}
