//! Journals: whatever the bytes, lines that cannot be read are counted and nothing else happens.
#![no_main]

use libfuzzer_sys::fuzz_target;
use paretune_fuzz::with_files;
use paretune_record::journal::Journal;

fuzz_target!(|bytes: &[u8]| {
    with_files(&[("journal.jsonl", bytes)], |folder| {
        let read = Journal::read(folder).expect("a file that exists can be read");
        let (_, opened) = Journal::open(folder).expect("a file that exists can be opened");
        assert_eq!(read.trials.len(), opened.trials.len());
    });
});
