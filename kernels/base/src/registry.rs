//! Facts about algorithms, and the choice of an algorithm for a convolution, common to all
//! backends.

use std::collections::BTreeMap;

use crate::error::KernelError;
use crate::plan::operator::{Conv, ConvProblem};
use crate::plan::schedule::{Schedule, TILE, Tunable, TunableValue};
use crate::plan::weights::WeightFormat;

/// A kind of hardware that algorithms are written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BackendKind {
    /// The processor, with any instruction set.
    Cpu,
    /// An OpenCL device, of any vendor.
    OpenCl,
}

/// How far the results of an algorithm are from those of a direct sum in its weights' precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Numerics {
    /// Results differ by the order of summation alone.
    Exact,
    /// Transforms round on the way, which may change predictions (Winograd).
    RoundsDifferently,
    /// Operands have fewer bits than the values that the algorithm is given.
    Reduced,
}

/// Facts about an algorithm that hold for every problem and every machine.
pub trait AlgorithmInfo: Send + Sync {
    /// Returns the name in schedules: `snake_case`, stable.
    fn name(&self) -> &'static str;

    /// Returns a description for people, one line long.
    fn about(&self) -> &'static str;

    /// Returns the kind of hardware that runs it.
    fn backend(&self) -> BackendKind {
        BackendKind::Cpu
    }

    /// Returns whether it computes on integer weights and 8-bit activations; otherwise it computes
    /// on real numbers.
    fn is_integer(&self) -> bool {
        false
    }

    /// Returns how its results differ from those of a direct sum.
    fn numerics(&self) -> Numerics {
        Numerics::Exact
    }

    /// Returns the largest absolute value of a weight that it can compute with.
    fn largest_weight(&self) -> f32 {
        f32::INFINITY
    }

    /// Returns whether it executes weights of `format`: by default all of the kind of numbers that
    /// it computes on. Zeros are stored in memory, so an algorithm for dense weights executes every
    /// sparsity pattern.
    fn executes(&self, format: WeightFormat) -> bool {
        format.numbers.is_integer() == self.is_integer()
    }
}

/// Former names of algorithms and the present ones. Schedules, configurations and files of earlier
/// versions are read through this table.
const FORMER_NAMES: [(&str, &str); 17] = [
    ("depthwise_planar", "depthwise_nchw"),
    ("direct_blocked", "direct_nchwc"),
    ("direct", "direct_nchw"),
    ("implicit_gemm_fp16", "implicit_gemm_wfp16"),
    ("block_sparse", "bsr_gemm"),
    ("sparse_planar", "spmm_nchw"),
    ("csr", "csr_naive"),
    ("depthwise_int8", "depthwise_i8"),
    ("winograd_int8", "winograd_i8"),
    ("implicit_gemm_int8", "implicit_gemm_i8"),
    ("block_sparse_int8", "bsr_gemm_i8"),
    ("low_bit_gemm", "gemm_low_bit_i8"),
    ("opencl_block_sparse", "opencl_bsr_gemm"),
    ("opencl_int8_gemm", "opencl_implicit_gemm_i8"),
    ("opencl_tensor_core", "opencl_tensor_core_tf32"),
    ("opencl_implicit_gemm_fp16", "opencl_implicit_gemm_wfp16"),
    ("opencl_direct_fp16", "opencl_direct_wfp16"),
];

/// Returns the present name of an algorithm that may be given by a former one.
#[must_use]
pub fn present_name(name: &str) -> &str {
    FORMER_NAMES.iter().find(|(former, _)| *former == name).map_or(name, |(_, present)| present)
}

/// Returns the present form of a tunable that may be one of earlier versions, in which every value
/// was a number: sizes of tiles were one number, and names and switches had codes.
fn present_tunable(
    backend: BackendKind,
    algorithm: &str,
    name: &str,
    value: TunableValue,
) -> Vec<(String, TunableValue)> {
    let TunableValue::Size(code) = value else { return vec![(name.to_owned(), value)] };
    let named = |names: &[&'static str]| {
        usize::try_from(code)
            .ok()
            .and_then(|code| names.get(code))
            .copied()
            .map(TunableValue::Choice)
    };
    let (present, value) = match name {
        "tile" if code >= 1000 => {
            let sides = [code / 1000, code % 1000].map(TunableValue::Size);
            return TILE.map(str::to_owned).into_iter().zip(sides).collect();
        }
        "split" if backend == BackendKind::OpenCl => ("split_k", Some(value)),
        "split" if ["depthwise", "depthwise_i8"].contains(&algorithm) => {
            ("parallel_axis", named(&["rows", "channels"]))
        }
        "split" => ("parallel_axis", named(&["pixels", "channels"])),
        "layout" | "layout_in" | "layout_out" => (name, named(&["nchw", "nhwc", "nchwc"])),
        "order" => (name, named(&["pixels", "taps"])),
        "gather" if algorithm == "bsr_gemm" => (name, named(&["taps", "windows"])),
        "gather" => (name, named(&["taps", "rows"])),
        "unfold" => (name, named(&["none", "columns", "taps"])),
        "prefetch" => (
            name,
            match code {
                1024 => Some(TunableValue::Choice("bytes_1024")),
                4096 => Some(TunableValue::Choice("bytes_4096")),
                _ => named(&["none", "next_block"]),
            },
        ),
        "widened" | "across" | "local" | "half" | "ahead" => {
            (name, Some(TunableValue::Switch(code != 0)))
        }
        _ => (name, Some(value)),
    };
    vec![(present.to_owned(), value.unwrap_or(TunableValue::Size(code)))]
}

/// Returns the present form of a schedule of `backend` that may be one of earlier versions.
#[must_use]
pub fn present_schedule(backend: BackendKind, schedule: &Schedule) -> Schedule {
    let algorithm = present_name(&schedule.algorithm);
    let tunables = schedule.tunables.iter();
    Schedule {
        algorithm: algorithm.to_owned(),
        tunables: tunables
            .flat_map(|(name, value)| present_tunable(backend, algorithm, name, *value))
            .collect(),
    }
}

/// Algorithm and schedule of a convolution, with every choice made.
pub struct Resolved<A: ?Sized + 'static> {
    /// Geometry and sizes of the convolution.
    pub problem: ConvProblem,
    /// The algorithm that the schedule names.
    pub algorithm: &'static A,
    /// Schedule with the algorithm's name and a value for each of its tunables.
    pub schedule: Schedule,
}

/// The algorithms of one backend on one machine.
pub trait Registry {
    /// The backend's own interface of an algorithm.
    type Algorithm: AlgorithmInfo + ?Sized + 'static;

    /// Returns the algorithms in order of preference for defaults.
    fn algorithms(&self) -> &'static [&'static Self::Algorithm];

    /// Returns the algorithms that run only if a schedule names them.
    fn baselines(&self) -> &'static [&'static Self::Algorithm] {
        &[]
    }

    /// Returns whether `algorithm` supports `problem` on this machine.
    fn supports(&self, algorithm: &Self::Algorithm, problem: &ConvProblem) -> bool;

    /// Returns whether `algorithm` is a good default for a supported problem.
    fn is_preferred(&self, _algorithm: &Self::Algorithm, _problem: &ConvProblem) -> bool {
        true
    }

    /// Returns the tunables of `algorithm` for `problem` on this machine.
    fn tunables(&self, algorithm: &Self::Algorithm, problem: &ConvProblem) -> Vec<Tunable>;

    /// Returns the constraints on the tunables, as expressions over their names.
    fn constraints(&self, algorithm: &Self::Algorithm, problem: &ConvProblem) -> Vec<String> {
        self.tunables(algorithm, problem).iter().flat_map(Tunable::constraints).collect()
    }

    /// Returns the present form of a schedule that may be one of earlier versions.
    fn present(&self, schedule: &Schedule) -> Schedule {
        let backend =
            self.algorithms().first().map_or(BackendKind::Cpu, |algorithm| algorithm.backend());
        present_schedule(backend, schedule)
    }

    /// Returns the algorithm called `name`, which may be a former name.
    fn find(&self, name: &str) -> Option<&'static Self::Algorithm> {
        let name = present_name(name);
        let mut all = self.algorithms().iter().chain(self.baselines()).copied();
        all.find(|algorithm| algorithm.name() == name)
    }

    /// Returns the algorithms that support `problem` with weights of some format, best default
    /// first.
    fn supporting(&self, problem: &ConvProblem) -> Vec<&'static Self::Algorithm> {
        let all = self.algorithms().iter().copied();
        let mut found: Vec<_> = all.filter(|algorithm| self.supports(algorithm, problem)).collect();
        found.sort_by_key(|algorithm| !self.is_preferred(algorithm, problem));
        found
    }

    /// Returns the algorithms that can run `problem` with weights of `format`, best default first.
    fn candidates(
        &self,
        problem: &ConvProblem,
        format: WeightFormat,
    ) -> Vec<&'static Self::Algorithm> {
        let mut found = self.supporting(problem);
        found.retain(|algorithm| algorithm.executes(format));
        found
    }

    /// Decides the algorithm and all tunables of the step called `step`. An empty algorithm name
    /// selects the first of [`Registry::candidates`].
    ///
    /// # Errors
    /// Fails if the algorithm or a tunable is unknown, if a value is not offered, or if no
    /// algorithm supports the problem.
    fn resolve(
        &self,
        step: &str,
        conv: &Conv,
        problem: ConvProblem,
        format: WeightFormat,
    ) -> Result<Resolved<Self::Algorithm>, KernelError> {
        let wanted = self.present(&conv.schedule);
        let name = wanted.algorithm.as_str();
        let fail = |message: String| Err(KernelError::plan(step, message));
        let algorithm = if name.is_empty() {
            let Some(first) = self.candidates(&problem, format).first().copied() else {
                return fail(format!("no algorithm for {format:?} weights and {problem:?}"));
            };
            first
        } else {
            let Some(algorithm) = self.find(name) else {
                let known: Vec<_> =
                    self.algorithms().iter().map(|algorithm| algorithm.name()).collect();
                return fail(format!("unknown algorithm `{name}`; known are {}", known.join(", ")));
            };
            if !algorithm.executes(format) {
                return fail(format!("algorithm `{name}` does not run {format:?} weights"));
            }
            if !self.supports(algorithm, &problem) {
                return fail(format!("algorithm `{name}` does not support {problem:?} here"));
            }
            algorithm
        };
        let mut schedule = Schedule::of(algorithm.name());
        for tunable in self.tunables(algorithm, &problem) {
            let possible = tunable.values_beside(&schedule.tunables);
            let value = wanted.tunables.get(tunable.name).copied();
            let value =
                value.unwrap_or_else(|| tunable.nearest(tunable.default, &schedule.tunables));
            if !possible.contains(&value) {
                let possible: Vec<String> = possible.iter().map(ToString::to_string).collect();
                return fail(format!(
                    "`{}` of algorithm `{}` cannot be {value}; possible are {}",
                    tunable.name,
                    algorithm.name(),
                    possible.join(", ")
                ));
            }
            schedule.tunables.insert(tunable.name.to_owned(), value);
        }
        if let Some(unknown) =
            wanted.tunables.keys().find(|key| !schedule.tunables.contains_key(*key))
        {
            return fail(format!("algorithm `{}` has no tunable `{unknown}`", algorithm.name()));
        }
        Ok(Resolved { problem, algorithm, schedule })
    }

    /// Adapts `schedule` to `problem`: every tunable moves to the nearest value that the algorithm
    /// offers. Returns the default schedule if the algorithm does not support the problem, for
    /// example because it has too few channels, and `None` if no algorithm of this backend has that
    /// name.
    fn fitted(&self, schedule: &Schedule, problem: &ConvProblem) -> Option<Schedule> {
        let schedule = self.present(schedule);
        let algorithm = self.find(&schedule.algorithm)?;
        if !self.supports(algorithm, problem) {
            return Some(Schedule::default());
        }
        let mut tunables = BTreeMap::new();
        for tunable in self.tunables(algorithm, problem) {
            let wanted = schedule.tunables.get(tunable.name).copied().unwrap_or(tunable.default);
            let nearest = tunable.nearest(wanted, &tunables);
            tunables.insert(tunable.name.to_owned(), nearest);
        }
        Some(Schedule { algorithm: algorithm.name().to_owned(), tunables })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn former_names_lead_to_names_that_are_not_former() {
        for (former, present) in FORMER_NAMES {
            assert_eq!(present_name(former), present);
            assert_eq!(present_name(present), present, "`{present}` must stay");
        }
    }

    #[test]
    fn schedules_of_earlier_versions_are_read() {
        let old = Schedule {
            algorithm: "implicit_gemm_int8".to_owned(),
            tunables: [
                ("tile", 6016),
                ("split", 1),
                ("order", 1),
                ("widened", 1),
                ("prefetch", 4096),
                ("panel", 8),
            ]
            .map(|(name, code)| (name.to_owned(), TunableValue::Size(code)))
            .into(),
        };
        let present = present_schedule(BackendKind::Cpu, &old);
        assert_eq!(
            serde_json::to_string(&present).unwrap(),
            r#"{"algorithm":"implicit_gemm_i8","tunables":{"order":"taps","panel":8,"#.to_owned()
                + r#""parallel_axis":"channels","prefetch":"bytes_4096","tile_m":6,"tile_n":16,"widened":true}}"#
        );
        assert_eq!(present_schedule(BackendKind::Cpu, &present), present);
    }
}
