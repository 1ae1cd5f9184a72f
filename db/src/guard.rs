//! Calls into sled that may panic. A panic becomes an error, and its message does not reach the
//! user's terminal.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `call` and returns its result, or the message of a panic inside.
///
/// The first use installs a filter before the process's panic hook. The filter drops the messages
/// of guarded calls and of sled's own threads, and passes every other panic on.
pub(crate) fn guarded<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    static FILTER: Once = Once::new();
    FILTER.call_once(|| {
        let next = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let sled = std::thread::current().name().is_some_and(|name| name.starts_with("sled-"));
            if !sled && !GUARDED.try_with(Cell::get).unwrap_or(false) {
                next(info);
            }
        }));
    });
    let outer = GUARDED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(call));
    GUARDED.set(outer);
    result.map_err(|payload| message(payload.as_ref()))
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("panic");
    text.lines().next().unwrap_or("panic").chars().take(200).collect()
}
