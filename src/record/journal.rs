//! The journal of a study: `journal.jsonl`, one [`Event`] a line, append-only. The archive and the
//! result store can be rebuilt from it.
//!
//! Every line ends in a checksum of itself (`sum`), and only lines whose checksum matches are read.
//! Earlier versions wrote none; their lines are read where they stand before all others.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::budget::Budget;
use crate::event::{Event, Inspected, Started, TrialFinished};
use crate::front::{Front, FrontPoint};
use crate::limit::Limit;
use crate::preference::Preference;
use crate::request::StudyRequest;
use crate::seal::{Condition, Sealed};
use crate::survey::Survey;

/// Length in bytes of the longest line that is read back.
const LONGEST_LINE: u64 = 16 << 20;

/// Name of the journal in the folder of a study.
pub const JOURNAL: &str = "journal.jsonl";

/// A journal that is open for appending.
pub struct Journal {
    file: File,
    path: PathBuf,
    /// Length of the file in bytes up to the last complete line.
    whole: u64,
}

/// Settings that a person may change while a study runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Limits that a deployable point must keep.
    pub limits: Vec<Limit>,
    /// Criterion of the best feasible point.
    pub prefer: Preference,
    /// Limit on time and trials.
    pub budget: Budget,
}

/// Contents of a journal from earlier sessions.
#[derive(Debug, Default)]
pub struct Past {
    /// Finished trials in their order.
    pub trials: Vec<TrialFinished>,
    /// Sessions, each with the index of its first trial.
    pub sessions: Vec<(usize, Started)>,
    /// The survey, if one was completed.
    pub survey: Option<Survey>,
    /// Points whose steps were timed, oldest first.
    pub inspected: Vec<Inspected>,
    /// Seconds spent by all sessions.
    pub seconds: f64,
    /// Number of unreadable lines, which are skipped.
    pub damaged_lines: usize,
    /// Limits, preference and budget that held last.
    pub settings: Option<Settings>,
    /// The front of the latest session that ended.
    pub front: Option<Front>,
    /// Points that it has measured again and that are not on that front.
    pub dominated: Vec<FrontPoint>,
    /// Whether the latest session has ended.
    pub ended: bool,
    /// Whether lines have checksums, so that nothing without one is believed.
    pub sealed: bool,
}

impl Settings {
    /// Sets limits, preference and budget of `request`.
    pub fn apply(&self, request: &mut StudyRequest) {
        request.limits.clone_from(&self.limits);
        request.prefer = self.prefer;
        request.budget = self.budget;
    }

    /// Returns limits, preference and budget of `request`.
    #[must_use]
    pub fn of(request: &StudyRequest) -> Self {
        Self { limits: request.limits.clone(), prefer: request.prefer, budget: request.budget }
    }
}

impl Journal {
    /// Opens or creates the journal in `folder` and reads its contents. A last line that was cut
    /// off by a crash is removed.
    ///
    /// # Errors
    /// Fails if the file cannot be read or written.
    pub fn open(folder: &Path) -> io::Result<(Self, Past)> {
        let path = folder.join(JOURNAL);
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(&path)?;
        let (lines, whole) = lines(&mut file)?;
        if whole < file.metadata()?.len() {
            file.set_len(whole)?;
        }
        file.seek(SeekFrom::End(0))?;
        // The name of a new file is durable only after its folder is synced.
        File::open(folder)?.sync_all()?;
        Ok((Self { file, path, whole }, past(lines)))
    }

    /// Reads the journal in `folder` without opening it for writing.
    ///
    /// # Errors
    /// Fails if the file cannot be read.
    pub fn read(folder: &Path) -> io::Result<Past> {
        Ok(past(lines(&mut paretune_kernels::file::open(&folder.join(JOURNAL))?.0)?.0))
    }

    /// Reads every event of the journal in `folder`, oldest first. Unreadable lines are left out.
    ///
    /// # Errors
    /// Fails if the file cannot be read.
    pub fn events(folder: &Path) -> io::Result<Vec<Event>> {
        let (lines, _) = lines(&mut paretune_kernels::file::open(&folder.join(JOURNAL))?.0)?;
        Ok(lines.believed())
    }

    /// Appends one event. The operating system has it when this function returns. The disk has it,
    /// and all before it, if the event is one that cannot be measured again for nothing.
    ///
    /// # Errors
    /// Fails if the file cannot be written. Nothing is left of the line in that case.
    pub fn write(&mut self, event: &Event) -> io::Result<()> {
        let mut line = Sealed::Line.seal(serde_json::to_vec(event)?);
        line.push(b'\n');
        let lasting = !matches!(
            event,
            Event::TrialStarted { .. } | Event::Notice { .. } | Event::Inspected(_)
        );
        let written = self
            .file
            .write_all(&line)
            .and_then(|()| if lasting { self.file.sync_data() } else { Ok(()) });
        match written {
            Ok(()) => self.whole += line.len() as u64,
            // The first error is the one to report.
            Err(_) => drop(self.file.set_len(self.whole)),
        }
        written
    }

    /// Returns the path of the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Lines of a journal, sorted by whether they have checksums.
#[derive(Default)]
struct Lines {
    /// Events of lines without checksums that stand before all lines with one.
    unsealed: Vec<Event>,
    /// Events of lines whose checksum matches.
    sealed: Vec<Event>,
    /// Number of lines that cannot be read or believed.
    damaged: usize,
}

impl Lines {
    /// Adds a line without its line feed.
    fn add(&mut self, line: &[u8]) {
        if self.add_sealed(line) {
            return;
        }
        // Two lines may have become one because the line feed between them is damaged.
        let mut found = false;
        for (begin, end) in pieces(line) {
            found |= self.add_sealed(&line[begin..end]);
        }
        if found {
            return;
        }
        let unsealed = Sealed::Line.verify(line) == Condition::Unsealed && self.sealed.is_empty();
        match serde_json::from_slice(line) {
            Ok(event) if unsealed => self.unsealed.push(event),
            _ => self.damaged += 1,
        }
    }

    /// Adds a line if its checksum matches, and returns whether it does.
    fn add_sealed(&mut self, line: &[u8]) -> bool {
        if Sealed::Line.verify(line) != Condition::Whole {
            return false;
        }
        match serde_json::from_slice(line) {
            Ok(event) => {
                // An earlier version has ended where a session of this one begins. Before any
                // other line, lines without checksums are damaged ones.
                if self.sealed.is_empty() && !matches!(event, Event::Started(_)) {
                    self.damaged += self.unsealed.len();
                    self.unsealed.clear();
                }
                self.sealed.push(event);
                true
            }
            // A later version may know other events.
            Err(_) => false,
        }
    }

    /// Returns the events that are believed, oldest first.
    fn believed(self) -> Vec<Event> {
        let mut events = self.unsealed;
        events.extend(self.sealed);
        events
    }
}

/// Lists the ranges of `line` that may be lines of their own.
fn pieces(line: &[u8]) -> Vec<(usize, usize)> {
    const BEGIN: &[u8] = b"{\"event\":";
    const END: &[u8] = b"\"}";
    let all = |pattern: &'static [u8]| {
        line.windows(pattern.len())
            .enumerate()
            .filter(move |(_, window)| *window == pattern)
            .map(|(at, _)| at)
    };
    let begins: Vec<usize> = all(BEGIN).collect();
    let ends: Vec<usize> = all(END).map(|at| at + END.len()).collect();
    let last =
        |begin: usize, limit: usize| ends.iter().copied().rfind(|&end| end > begin && end <= limit);
    let limits = begins.iter().copied().skip(1).chain([line.len()]);
    begins
        .iter()
        .zip(limits)
        .filter_map(|(&begin, limit)| Some((begin, last(begin, limit)?)))
        .collect()
}

/// Reads the file. Returns its lines and the length of its complete lines in bytes.
fn lines(file: &mut File) -> io::Result<(Lines, u64)> {
    let mut lines = Lines::default();
    let mut whole = 0;
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    loop {
        line.clear();
        let length = io::Read::take(&mut reader, LONGEST_LINE).read_until(b'\n', &mut line)?;
        if length == 0 {
            break;
        }
        let complete = line.last() == Some(&b'\n');
        if !complete && reader.fill_buf()?.is_empty() {
            break;
        }
        whole += length as u64;
        lines.add(line.strip_suffix(b"\n").unwrap_or(&line));
    }
    Ok((lines, whole))
}

/// Gathers the contents of the lines.
fn past(lines: Lines) -> Past {
    let mut past =
        Past { damaged_lines: lines.damaged, sealed: !lines.sealed.is_empty(), ..Past::default() };
    let mut latest = (0, String::new());
    for event in lines.believed() {
        match event {
            Event::TrialStarted { number, origin, .. } => latest = (number, origin),
            Event::TrialFinished(mut trial) => {
                // Older journals record the origin only when a trial starts.
                if trial.origin.is_empty() && latest.0 == trial.number {
                    trial.origin.clone_from(&latest.1);
                }
                past.seconds = past.seconds.max(trial.elapsed);
                past.trials.push(*trial);
            }
            Event::Started(started) => {
                past.ended = false;
                past.settings = Some(Settings {
                    limits: started.limits.clone(),
                    prefer: started.prefer,
                    budget: Budget {
                        seconds: started.budget_seconds,
                        trials: started.budget_trials,
                    },
                });
                past.sessions.push((past.trials.len(), *started));
            }
            Event::Changed(changed) => {
                past.settings = Some(Settings {
                    limits: changed.limits,
                    prefer: changed.prefer,
                    budget: Budget {
                        seconds: changed.budget_seconds,
                        trials: changed.budget_trials,
                    },
                });
            }
            Event::Inspected(inspected) => past.inspected.push(*inspected),
            Event::Surveyed(survey) => past.survey = Some(*survey),
            Event::Finished { front, dominated, .. } => {
                past.seconds = past.seconds.max(front.seconds);
                past.front = Some(*front);
                past.dominated = dominated;
                past.ended = true;
            }
            Event::Preparing { .. }
            | Event::Stage { .. }
            | Event::Confirming { .. }
            | Event::Notice { .. } => {}
        }
    }
    past
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(number: u64) -> Event {
        Event::TrialFinished(Box::new(TrialFinished {
            number,
            id: number.to_string(),
            known: None,
            config: None,
            origin: String::new(),
            point: None,
            failure: Some("no luck".into()),
            failure_kind: None,
            cached: false,
            partial: None,
            seconds: 1.0,
            #[expect(clippy::cast_precision_loss, reason = "small")]
            elapsed: number as f64,
            hypervolume: 0.0,
            entered: false,
            displaced: Vec::new(),
            undisturbed: None,
            baseline: None,
        }))
    }

    #[test]
    fn what_was_written_is_read_back_and_a_torn_line_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, past) = Journal::open(folder.path()).unwrap();
        assert!(past.trials.is_empty());
        journal.write(&trial(1)).unwrap();
        journal.write(&trial(2)).unwrap();
        drop(journal);
        let path = folder.path().join("journal.jsonl");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.extend_from_slice(b"{\"event\":\"trial_fin");
        std::fs::write(&path, &bytes).unwrap();

        let (mut journal, past) = Journal::open(folder.path()).unwrap();
        assert_eq!(past.trials.len(), 2);
        assert!((past.seconds - 2.0).abs() < 1e-12);
        journal.write(&trial(3)).unwrap();
        drop(journal);
        let past = Journal::read(folder.path()).unwrap();
        assert_eq!((past.trials.len(), past.damaged_lines), (3, 0));
    }

    #[test]
    fn damaged_lines_are_counted_not_fatal() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("journal.jsonl"), b"nonsense\n\xff\xfe\n").unwrap();
        let (_, past) = Journal::open(folder.path()).unwrap();
        assert_eq!(past.damaged_lines, 2);
    }

    /// Writes a journal of three trials and returns its bytes.
    fn three(folder: &Path) -> Vec<u8> {
        let (mut journal, _) = Journal::open(folder).unwrap();
        for number in 1..4 {
            journal.write(&trial(number)).unwrap();
        }
        std::fs::read(journal.path()).unwrap()
    }

    fn numbers(folder: &Path) -> Vec<u64> {
        Journal::read(folder).unwrap().trials.iter().map(|trial| trial.number).collect()
    }

    #[test]
    fn a_line_with_a_damaged_byte_is_never_believed() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = three(folder.path());
        let path = folder.path().join(JOURNAL);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] = if damaged[at] == b'7' { b'3' } else { b'7' };
            std::fs::write(&path, &damaged).unwrap();
            let found = numbers(folder.path());
            // A damaged line feed loses no line but the last one, which looks cut off.
            let line = bytes[..at].iter().filter(|&&byte| byte == b'\n').count();
            let expected: Vec<u64> = if bytes[at] == b'\n' && at + 1 < bytes.len() {
                vec![1, 2, 3]
            } else {
                (1..4).filter(|number| *number != line as u64 + 1).collect()
            };
            assert_eq!(found, expected, "byte {at}");
        }
    }

    #[test]
    fn lines_of_earlier_versions_are_read_only_before_a_session_of_this_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(JOURNAL);
        let old = |number| serde_json::to_string(&trial(number)).unwrap() + "\n";
        std::fs::write(&path, old(1) + &old(2)).unwrap();
        assert_eq!(numbers(folder.path()), [1, 2]);
        // A session of this version would begin with a line of its own.
        let (mut journal, _) = Journal::open(folder.path()).unwrap();
        journal.write(&trial(3)).unwrap();
        std::fs::write(&path, std::fs::read_to_string(&path).unwrap() + &old(4)).unwrap();
        let past = Journal::read(folder.path()).unwrap();
        assert_eq!((numbers(folder.path()), past.damaged_lines), (vec![3], 3));
    }
}
