//! Expressions of conditions and constraints: what parses prints as something that parses to the
//! same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use paretune_spaces::Expression;

fuzz_target!(|text: &str| {
    if let Ok(expression) = text.parse::<Expression>() {
        let printed = expression.to_string();
        assert_eq!(
            printed.parse::<Expression>().as_ref(),
            Ok(&expression),
            "{text:?} -> {printed:?}"
        );
    }
});
