//! Limits as people write them: a limit that parses is a number that is finite and not negative.
#![no_main]

use libfuzzer_sys::fuzz_target;
use paretune_record::limits;

fuzz_target!(|text: &str| {
    if let Ok(limits) = limits::parse(text) {
        assert!(
            limits.iter().all(|limit| limit.value.is_finite() && limit.value >= 0.0),
            "{text:?}"
        );
    }
});
