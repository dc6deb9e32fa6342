//! A panic ends the process: no ghost goes on without the loop that died.

use std::panic;

/// Threads whose names start so may unwind: damaged sled files make sled panic, and the store
/// catches that, sets the files aside and rebuilds.
const CONTAINED_THREAD_PREFIX: &str = "sled-";

/// Ends the process on any panic outside the contained threads, after the message was printed.
pub(crate) fn abort_on_panic() {
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |information| {
        let contained = std::thread::current().name().is_some_and(|name| name.starts_with(CONTAINED_THREAD_PREFIX));
        if contained {
            tracing::warn!(thread = std::thread::current().name(), "the keyed copy panicked; the store sees to it");
            return;
        }
        report(information);
        std::process::abort();
    }));
}
