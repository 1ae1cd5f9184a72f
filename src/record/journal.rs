//! The journal of a study: `journal.jsonl`, one [`Event`] a line, append-only. The archive and the
//! result store can be rebuilt from it.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::event::{Event, Inspected, Started, TrialFinished};
use crate::survey::Survey;

/// Length in bytes of the longest line that is read back.
const LONGEST_LINE: u64 = 16 << 20;

/// A journal that is open for appending.
pub struct Journal {
    file: File,
    path: PathBuf,
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
}

impl Journal {
    /// Opens or creates the journal in `folder` and reads its contents. A last line that was cut
    /// off by a crash is removed.
    ///
    /// # Errors
    /// Fails if the file cannot be read or written.
    pub fn open(folder: &Path) -> io::Result<(Self, Past)> {
        let path = folder.join("journal.jsonl");
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(&path)?;
        let (past, whole) = read(&mut file)?;
        if whole < file.metadata()?.len() {
            file.set_len(whole)?;
        }
        file.seek(SeekFrom::End(0))?;
        Ok((Self { file, path }, past))
    }

    /// Reads the journal in `folder` without opening it for writing.
    ///
    /// # Errors
    /// Fails if the file cannot be read.
    pub fn read(folder: &Path) -> io::Result<Past> {
        let mut file = File::open(folder.join("journal.jsonl"))?;
        Ok(read(&mut file)?.0)
    }

    /// Reads every event of the journal in `folder`, oldest first. Unreadable lines are left out.
    ///
    /// # Errors
    /// Fails if the file cannot be read.
    pub fn events(folder: &Path) -> io::Result<Vec<Event>> {
        let mut events = Vec::new();
        let mut reader = BufReader::new(File::open(folder.join("journal.jsonl"))?);
        let mut line = Vec::new();
        loop {
            line.clear();
            if io::Read::take(&mut reader, LONGEST_LINE).read_until(b'\n', &mut line)? == 0 {
                return Ok(events);
            }
            events.extend(serde_json::from_slice::<Event>(&line));
        }
    }

    /// Appends one event. The operating system has it when this function returns.
    ///
    /// # Errors
    /// Fails if the file cannot be written.
    pub fn write(&mut self, event: &Event) -> io::Result<()> {
        let mut line = serde_json::to_vec(event)?;
        line.push(b'\n');
        self.file.write_all(&line)
    }

    /// Returns the path of the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Reads the file. Returns its contents and the length of its complete lines in bytes.
fn read(file: &mut File) -> io::Result<(Past, u64)> {
    let mut past = Past::default();
    let mut whole = 0;
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    let mut latest = (0, String::new());
    loop {
        line.clear();
        let length = io::Read::take(&mut reader, LONGEST_LINE).read_until(b'\n', &mut line)?;
        if length == 0 {
            break;
        }
        if line.last() != Some(&b'\n') && reader.fill_buf()?.is_empty() {
            break;
        }
        whole += length as u64;
        match serde_json::from_slice::<Event>(&line) {
            Ok(Event::TrialStarted { number, origin, .. }) => latest = (number, origin),
            Ok(Event::TrialFinished(mut trial)) => {
                // Older journals record the origin only when a trial starts.
                if trial.origin.is_empty() && latest.0 == trial.number {
                    trial.origin.clone_from(&latest.1);
                }
                past.seconds = past.seconds.max(trial.elapsed);
                past.trials.push(*trial);
            }
            Ok(Event::Started(started)) => past.sessions.push((past.trials.len(), *started)),
            Ok(Event::Inspected(inspected)) => past.inspected.push(*inspected),
            Ok(Event::Surveyed(survey)) => past.survey = Some(*survey),
            Ok(Event::Finished { front, .. }) => past.seconds = past.seconds.max(front.seconds),
            Ok(_) => {}
            Err(_) => past.damaged_lines += 1,
        }
    }
    Ok((past, whole))
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
}
