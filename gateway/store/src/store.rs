//! Opening both sides together.

use std::sync::Arc;

use vitalgate_domain::KeyWrap;

use crate::files::FileSystem;
use crate::journal::Journal;
use crate::keyed::{Keyed, KeyedOptions};
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
    let keyed = Arc::new(Keyed::open(keyed));
    let waiting = Arc::clone(&keyed);
    let second = SecondCopy {
        copy: Arc::clone(&keyed) as _,
        wait_open: Box::new(move || {
            let status = waiting.wait_open(waiting.open_patience());
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
