//! What happens between two runs of a layer: nothing, or the rest of its network.

use std::hint::black_box;
use std::time::{Duration, Instant};

use paretune_kernels::operator::ConvProblem;
use paretune_kernels::weights::{Numbers, WeightFormat};

use super::Bed;

/// Weights of whole networks, by the first name of a layer's networks.
const NETWORKS: [(&str, usize); 4] =
    [("resnet20", 269_722), ("mobilenet", 3_195_328), ("resnet18", 11_164_362), ("vgg16", 14_977_728)];

/// Memory that stands for the other weights of a network.
pub struct Surroundings {
    others: Vec<[u64; 8]>,
    /// Weights of the network.
    network: usize,
}

impl Surroundings {
    /// Layers run alone.
    pub const fn none() -> Self {
        Self { others: Vec::new(), network: 0 }
    }

    /// Layers run within the first of `networks`; alone where it is none that is known.
    pub fn of(networks: &str) -> Self {
        let first = networks.split(' ').next().unwrap_or_default();
        let network = NETWORKS.iter().find(|(name, _)| *name == first).map_or(0, |(_, weights)| *weights);
        // Numbers of 4 bytes are the largest.
        Self { others: vec![[1; 8]; network / 16], network }
    }

    /// Bytes of the other layers' weights, at as many bytes each as the kernel's have, but no more than they have
    /// when they are stored: what an algorithm spreads out, it spreads out here alone.
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

    /// Seconds of one run of `bed` within all this.
    pub fn run(&self, problem: &ConvProblem, format: WeightFormat, bed: &mut Bed) -> f64 {
        if self.others.is_empty() {
            return bed.run();
        }
        let lines = (self.bytes(problem, format, bed) / 64).min(self.others.len());
        black_box(self.others[..lines].iter().fold(0, |sum, line| sum ^ black_box(line[0])));
        bed.touch();
        bed.run()
    }

    /// Seconds of the fastest of many runs.
    pub fn best(&self, problem: &ConvProblem, format: WeightFormat, bed: &mut Bed, budget: Duration) -> f64 {
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
