//! Opening both sides together.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vitalgate_domain::KeyWrap;

use crate::files::FileSystem;
use crate::journal::Journal;
use crate::keyed::{Keyed, KeyedOptions, OPEN_BYTES_PER_SECOND};
use crate::opening::{OpenError, OpenedJournal, open_journal};
use crate::options::StoreOptions;
use crate::outbox::{Copies, Outbox};
use crate::reader::Reader;
use crate::report::OpenReport;
use crate::source::Feed;
use crate::state::State;
use crate::tail::SecondCopy;
use crate::walker::{Step, Walker};

/// Everything that opening gives.
pub struct Opened {
    /// The writer, for one owner.
    pub journal: Journal,
    /// Readers are clones of this one.
    pub reader: Reader,
    /// The keyed side; it may still be opening and catching up.
    pub keyed: Arc<Keyed>,
    /// The state at opening.
    pub state: State,
    /// What was found damaged, and what was done about it.
    pub report: OpenReport,
}

/// How often all that is stored is read or written at most while the journal is opened: what one copy lacks is read from another
/// and written.
const JOURNAL_PASSES: u64 = 2;

/// Longest that [`open_with`] may take with what is stored now, on a slow disk and with a store that has to be mended: whoever watches
/// over a start gives it that long.
#[must_use]
pub fn open_patience(options: &StoreOptions, keyed: &KeyedOptions) -> Duration {
    let stored: u64 = ["journal", "shadow", "sled"].iter().map(|name| bytes_in(&options.dir.join(name))).sum();
    keyed.open_patience() + Duration::from_secs(stored.saturating_mul(JOURNAL_PASSES) / OPEN_BYTES_PER_SECOND)
}

/// Bytes of the files in a folder; one that cannot be listed holds none that count.
fn bytes_in(folder: &Path) -> u64 {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten().filter_map(|entry| entry.metadata().ok());
    files.filter(std::fs::Metadata::is_file).map(|metadata| metadata.len()).sum()
}

/// Opens the store, mending what is damaged. The keyed side opens on a thread of its own; it is
/// waited for only when the journal alone cannot tell its own end or needs mending.
///
/// # Errors
/// When the store is in use, the disk fails, no data key opens, or the keyed store may have what is missing in the journal and does
/// not answer.
pub fn open(options: StoreOptions, keys: Arc<dyn KeyWrap>, files: Arc<dyn FileSystem>) -> Result<Opened, OpenError> {
    let keyed = KeyedOptions::new(&options.dir);
    open_with(options, keyed, keys, files)
}

/// As [`open`], with options for the keyed side.
///
/// # Errors
/// As [`open`].
pub fn open_with(
    options: StoreOptions,
    keyed: KeyedOptions,
    keys: Arc<dyn KeyWrap>,
    files: Arc<dyn FileSystem>,
) -> Result<Opened, OpenError> {
    let background = options.background;
    // However often it is waited for, its opening has this long in all.
    let until = Instant::now() + keyed.open_patience();
    let keyed = Arc::new(Keyed::open(keyed));
    let waiting = Arc::clone(&keyed);
    let second = SecondCopy {
        copy: Arc::clone(&keyed) as _,
        wait_open: Box::new(move || {
            let status = waiting.wait_open(until.saturating_duration_since(Instant::now()));
            tracing::debug!(?status, "the keyed store was waited for");
        }),
    };
    let OpenedJournal { journal, reader, state, report } = open_journal(options, keys, files, Some(second))?;
    keyed.attach(Arc::new(Feed(Arc::clone(&journal.outbox))));
    if background {
        look_through_behind(&journal.outbox);
    }
    Ok(Opened { journal, reader, keyed, state, report })
}

/// Reads every old segment once, which mends what is damaged while the other copy is whole.
fn look_through_behind(outbox: &Arc<Outbox>) {
    let outbox = Arc::clone(outbox);
    let spawned = std::thread::Builder::new().name("journal-check".into()).spawn(move || look_through(&outbox));
    if let Err(error) = spawned {
        tracing::warn!(%error, "no thread to look through the journal; damage is mended when it is read");
    }
}

/// Reads everything that is committed now.
pub(crate) fn look_through(outbox: &Arc<Outbox>) {
    let mut walker = Walker::from_ordinal(outbox, outbox.oldest().1, outbox.committed(), Copies::All);
    loop {
        match walker.next() {
            Ok(Step::Record(_) | Step::Lost { .. }) => {}
            Ok(Step::End) => return,
            Err(error) => {
                tracing::warn!(%error, "looking through the journal ended early; the rest is mended when it is read");
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    /// Promise: nobody who watches over a start cuts it off while the opening may still come to its end: not before the keyed store's
    /// own deadlines, and not while the journal's copies are made again from each other.
    #[test]
    fn the_patience_of_an_opening_grows_with_all_that_is_stored() {
        const BYTES: u64 = 16 * 1024 * 1024 * 1024;
        let folder = tempfile::tempdir().unwrap();
        let (options, keyed) = (StoreOptions::new(folder.path()), KeyedOptions::new(folder.path()));
        let seconds = || open_patience(&options, &keyed).as_secs();
        let mut before = seconds();
        assert_eq!(open_patience(&options, &keyed), keyed.open_patience(), "nothing is stored yet");
        let one_pass = BYTES / OPEN_BYTES_PER_SECOND;
        for (place, passes) in [("journal/a", 2), ("shadow/a", 2), ("sled/db", 4)] {
            let file = folder.path().join(place);
            std::fs::create_dir(file.parent().unwrap()).unwrap();
            // It takes no room on the disk.
            File::create(&file).unwrap().set_len(BYTES).unwrap();
            assert!(seconds() >= before + passes * one_pass, "{place}: {} after {before}", seconds());
            before = seconds();
        }
    }
}
