//! Times bundles in several fresh processes, one after the other.
//!
//! The speed of a network varies more between processes than within one: the placement of its
//! memory decides about cache misses, and interference comes and goes within seconds. Final
//! results, in a front or from `bench`, are therefore the median over several processes, with an
//! interval that covers all of them.

use std::path::PathBuf;
use std::time::Duration;

use paretune_kernels::bundle::Preprocessing;
use paretune_kernels::{Plan, ValueSpec};
use paretune_model::images::normalize_into;

use super::host::{HostError, ask_fresh_twice};
use super::protocol::{FastestProbes, Reply, Request, TimeRequest};
use super::timing::{Effort, Timing, median};

/// Number of processes, enough to outvote an unlucky one.
pub const PROCESSES: usize = 3;

/// Times bundles in [`PROCESSES`] workers started with `command`, which divide the effort of
/// `request`. Returns one timing per bundle. No process may take longer than `deadline`.
///
/// # Errors
/// Fails as described at [`HostError`].
pub fn time_afresh(
    command: &[String],
    request: &TimeRequest,
    deadline: Duration,
    interrupted: &dyn Fn() -> bool,
) -> Result<Vec<Timing>, HostError> {
    let mut rounds: Vec<Vec<Timing>> = Vec::with_capacity(PROCESSES);
    let mut request = request.clone();
    let seconds = request.effort.seconds / PROCESSES as f64;
    request.effort = Effort { seconds, ..request.effort };
    for _ in 0..PROCESSES {
        match ask_fresh_twice(command, &Request::Time(request.clone()), deadline, interrupted)? {
            Reply::Timed { timings } if timings.len() == request.bundles.len() => {
                // The next process knows the fastest probes of this one.
                for timing in &timings {
                    request.probes.set(timing.threads, timing.probe);
                }
                rounds.push(timings);
            }
            other => return Err(HostError::Nonsense(format!("{other:?}"))),
        }
    }
    Ok((0..request.bundles.len())
        .map(|bundle| together(&rounds.iter().map(|round| &round[bundle]).collect::<Vec<_>>()))
        .collect())
}

/// Combines the timings of one bundle from several processes.
fn together(processes: &[&Timing]) -> Timing {
    let medians: Vec<f64> = processes.iter().map(|timing| timing.median).collect();
    let least = |of: fn(&Timing) -> f64| {
        processes.iter().map(|timing| of(timing)).fold(f64::INFINITY, f64::min)
    };
    #[expect(clippy::cast_precision_loss, reason = "a handful of processes")]
    let undisturbed = processes.iter().map(|timing| timing.undisturbed).sum::<f64>()
        / processes.len().max(1) as f64;
    Timing {
        median: median(&medians),
        low: least(|timing| timing.low),
        high: processes.iter().map(|timing| timing.high).fold(0.0, f64::max),
        threads: processes.first().map_or(1, |timing| timing.threads),
        probe: least(|timing| timing.probe),
        undisturbed,
        samples: processes.iter().flat_map(|timing| timing.samples.iter().copied()).collect(),
    }
}

/// Returns the input for timing: `batch` images of reproducible noise, preprocessed for the
/// network. Zeros would be wrong, because zeros and denormals have other speeds.
#[must_use]
pub fn noise(plan: &Plan, preprocessing: &Preprocessing, batch: usize) -> Vec<f32> {
    let value = plan.values.get(plan.input);
    let numbers = value.map_or(0, ValueSpec::len);
    let mut state: u32 = 0x9e37_79b9;
    let pixels: Vec<u8> = (0..numbers * batch)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        })
        .collect();
    let mut input: Vec<f32> = pixels.iter().map(|pixel| f32::from(*pixel) / 64.0 - 2.0).collect();
    let (mean, std) = (&preprocessing.mean, &preprocessing.std);
    let dims = value.and_then(|value| <[usize; 3]>::try_from(value.dims.as_slice()).ok());
    if let Some(dims) = dims.filter(|dims| mean.len() == dims[0] && std.len() == dims[0]) {
        for (image, out) in pixels.chunks_exact(numbers).zip(input.chunks_exact_mut(numbers)) {
            normalize_into(image, mean, std, dims, out);
        }
    }
    input
}

/// Returns the request that times `bundles` with one image per run on their own numbers of threads.
/// `probes` are the fastest observed speeds of the cores.
#[must_use]
pub fn as_made(bundles: Vec<PathBuf>, effort: Effort, probes: FastestProbes) -> TimeRequest {
    TimeRequest { bundles, threads: None, batch: 1, effort, probes }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timing(median: f64) -> Timing {
        let (low, high) = (median - 1.0, median + 1.0);
        Timing {
            median,
            low,
            high,
            threads: 2,
            probe: median / 10.0,
            undisturbed: 0.5,
            samples: vec![median],
        }
    }

    #[test]
    fn the_middle_process_decides_and_the_interval_covers_all() {
        let (slow, fast, middle) = (timing(50.0), timing(30.0), timing(31.0));
        let all = together(&[&slow, &fast, &middle]);
        assert_eq!([all.median, all.low, all.high, all.probe], [31.0, 29.0, 51.0, 3.0]);
        assert_eq!((all.threads, all.samples), (2, vec![50.0, 30.0, 31.0]));
    }

    #[test]
    fn each_process_gets_its_share_and_learns_from_the_last() {
        // The workers write the requests that they receive to a file.
        let notes = tempfile::NamedTempFile::new().unwrap();
        let timing =
            r#"{"median":2,"low":1,"high":3,"threads":2,"probe":0.5,"undisturbed":1,"samples":[]}"#;
        let reply = format!(r#"{{"reply":"timed","timings":[{timing}]}}"#);
        let script = format!(
            r#"read line; echo "$line" >> {}; echo '{reply}'; read line"#,
            notes.path().display()
        );
        let command = ["sh".to_owned(), "-c".to_owned(), script];
        let effort = Effort { seconds: 3.0, ..Effort::FINAL };
        let request = as_made(vec!["bundle".into()], effort, FastestProbes::default());
        let timings = time_afresh(&command, &request, Duration::from_secs(5), &|| false).unwrap();
        assert_eq!(timings[0].median, 2.0);
        let asked = std::fs::read_to_string(notes.path()).unwrap();
        let asked: Vec<Request> =
            asked.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(asked.len(), PROCESSES);
        let Request::Time(last) = &asked[PROCESSES - 1] else { panic!("{asked:?}") };
        assert_eq!((last.effort.seconds, last.probes.get(2)), (1.0, 0.5));
    }

    #[test]
    fn a_wrong_number_of_answers_is_nonsense() {
        let command =
            ["sh", "-c", r#"read line; echo '{"reply":"timed","timings":[]}'; read line"#]
                .map(str::to_owned);
        let request = as_made(vec!["bundle".into()], Effort::FINAL, FastestProbes::default());
        let error = time_afresh(&command, &request, Duration::from_secs(5), &|| false).unwrap_err();
        assert!(matches!(error, HostError::Nonsense(_)), "{error}");
    }
}
