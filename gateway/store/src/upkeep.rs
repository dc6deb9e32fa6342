//! What is done beside committing: reclaiming what every destination has, dropping shadows.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use vitalgate_domain::Sequence;

use crate::copy::{Ordinal, Watermark};
use crate::journal::{CommitError, Journal};
use crate::segment::Segment;
use crate::space::Room;

/// How large the keyed store may be on a full disk before it begins anew, in eighths of the journal's segments: it holds the
/// same records, and what finds them.
const KEYED_EIGHTHS_OF_JOURNAL: u64 = 12;

/// Time between two questions to a keyed store that did not answer at the start.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// Missing dead letters that are moved together: with all that came with them they fit into one commit.
const MISSING_LETTERS_TOGETHER: usize = 3;

/// What one round of upkeep did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Maintained {
    /// Segments whose entries every destination has and whose time is over, or that had to give way on a full disk.
    pub segments_reclaimed: usize,
    /// Shadows that the keyed store's checkpoint has made needless.
    pub shadows_dropped: usize,
    /// Data keys that no segment needs any more.
    pub keys_destroyed: usize,
    /// Whether the copies of damaged files had to give way, since free space is below the floor.
    pub quarantine_cleared: bool,
}

impl Journal {
    /// Reclaims segments, drops shadows, destroys keys that nothing needs, prepares the next
    /// segment. To be called now and then; it takes a few file operations, and reads each segment that is used again.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn maintain(&mut self) -> Result<Maintained, CommitError> {
        let failed = |error: io::Error| CommitError::Io(error.to_string());
        self.ask_again();
        let checkpointed = self.outbox.keyed().map_or_else(Watermark::default, |keyed| keyed.checkpointed());
        let shadows_dropped = self.drop_shadows(checkpointed.ordinal).map_err(failed)?;
        let segments_reclaimed = self.reclaim(checkpointed.ordinal).map_err(failed)?;
        self.give_up_spare().map_err(failed)?;
        let keys_destroyed = if segments_reclaimed > 0 { self.destroy_keys().map_err(failed)? } else { 0 };
        let quarantine_cleared = self.clear_quarantine().map_err(failed)?;
        self.shrink_keyed().map_err(failed)?;
        self.space.prepare();
        Ok(Maintained { segments_reclaimed, shadows_dropped, keys_destroyed, quarantine_cleared })
    }

    /// What the keyed store could not be asked for at the start is asked for again, beside everything else.
    fn ask_again(&mut self) {
        let outbox = Arc::clone(&self.outbox);
        let background = outbox.options.background;
        let is_early = background && self.asked_again.is_some_and(|asked| asked.elapsed() < ASK_AGAIN_AFTER);
        let Some(keyed) = outbox.keyed().filter(|_| outbox.keeps_copies() && !is_early).cloned() else { return };
        let Some(first) = outbox.missing_letter(self.keeper.state()) else {
            // A person has given them up.
            outbox.keeps_copies.store(false, Ordering::Relaxed);
            return;
        };
        self.asked_again = Some(Instant::now());
        let space = Arc::clone(&self.space);
        let ask = move || outbox.restore_letters(keyed.as_ref(), &space, first);
        if !background {
            return ask();
        }
        if let Err(error) = std::thread::Builder::new().name("journal-restore".into()).spawn(ask) {
            tracing::warn!(%error, "no thread to ask the keyed store for missing dead letters; it is tried again");
        }
    }

    /// The entries of the oldest segment, where nothing but unresolved dead letters in it keeps it from being reclaimed; before that
    /// the first dead letters that are missing, and whose segment finds no room: until they are moved the keyed store only grows.
    #[must_use]
    pub fn held_back(&self) -> Option<(Sequence, Sequence)> {
        if let Some(missing) = self.missing_without_room() {
            return Some(missing);
        }
        let checkpointed = self.outbox.keyed().map_or_else(Watermark::default, |keyed| keyed.checkpointed());
        let segments = self.outbox.segments();
        let [segment, later @ ..] = segments.as_slice() else { return None };
        let after = later.first()?;
        let (first, last) = (segment.first, Sequence(after.first.0.saturating_sub(1)));
        let state = self.keeper.state();
        let is_held = first <= last && state.settled_everywhere(first, last) && state.unresolved_in(first, last);
        let is_over = self.past_retention(later) || self.space.is_short();
        (is_held && is_over && after.ordinal.0 <= checkpointed.ordinal.0 + 1).then_some((first, last))
    }

    fn missing_without_room(&self) -> Option<(Sequence, Sequence)> {
        let (outbox, state) = (&self.outbox, self.keeper.state());
        let first = outbox.missing_letter(state).filter(|_| outbox.keeps_copies())?;
        let is_narrow = !self.space.may_make() && self.space.room().is_ok_and(|room| room == Room::Enough);
        let oldest = outbox.oldest().0;
        let each = state.unresolved.ranges().iter().flat_map(|(from, until)| (from.0..=until.0).map(Sequence));
        let last = each.take_while(|letter| *letter < oldest).take(MISSING_LETTERS_TOGETHER).last()?;
        (is_narrow && state.settled_everywhere(first, last)).then_some((first, last))
    }

    fn give_up_spare(&self) -> io::Result<()> {
        if self.space.give_up_spare()? {
            self.outbox.files.sync_dir(&self.outbox.journal_dir)?;
        }
        Ok(())
    }

    /// Copies of damaged files are evidence, a whole keyed store among them; but below the floor no
    /// reading is taken, and that weighs more.
    fn clear_quarantine(&self) -> io::Result<bool> {
        let outbox = &self.outbox;
        let needless = self.space.room()? == Room::BelowFloor && outbox.files.holds_anything(&outbox.quarantine_dir)?;
        if needless {
            tracing::warn!("free space is below the floor: the copies of damaged files in quarantine/ are removed");
            outbox.files.remove_dir_all(&outbox.quarantine_dir)?;
            outbox.files.create_dir_all(&outbox.quarantine_dir)?;
        }
        Ok(needless)
    }

    /// The keyed store keeps what it grew by while the disk filled. Once nothing waits for anybody that may keep readings
    /// from being taken for good: then it begins anew. Until it has caught up the journal's copy is the only one of what
    /// every destination has.
    fn shrink_keyed(&self) -> io::Result<()> {
        let outbox = &self.outbox;
        let Some(keyed) = outbox.keyed().filter(|_| !outbox.keeps_copies()) else { return Ok(()) };
        if self.space.room()? == Room::Enough {
            return Ok(());
        }
        let segments = outbox.segments();
        let Some(oldest) = segments.first() else { return Ok(()) };
        let (first, last) = (oldest.first, Sequence(self.next.sequence.0.saturating_sub(1)));
        let state = self.keeper.state();
        if last < first || state.settled_everywhere(first, last) && !state.unresolved_in(first, last) {
            let journal_bytes = outbox.options.segment_bytes.saturating_mul(segments.len() as u64);
            keyed.shrink(journal_bytes / 8 * KEYED_EIGHTHS_OF_JOURNAL);
        }
        Ok(())
    }

    fn drop_shadows(&self, checkpointed: Ordinal) -> io::Result<usize> {
        let outbox = &self.outbox;
        let segments = outbox.segments();
        let mut dropped = 0;
        for name in outbox.files.list(&outbox.shadow_dir)? {
            if name == self.active.segment.name {
                continue;
            }
            let place = segments.iter().position(|segment| segment.name == name);
            let after = place.and_then(|place| segments.get(place + 1));
            // One without a segment belongs to nothing.
            let covered = place.is_none() || after.is_some_and(|after| after.ordinal.0 <= checkpointed.0 + 1);
            if covered {
                outbox.files.remove(&outbox.shadow_dir.join(&name))?;
                dropped += 1;
            }
        }
        if dropped > 0 {
            // One that came back after a power cut would make a reclaimed segment look like a lost one.
            outbox.files.sync_dir(&outbox.shadow_dir)?;
        }
        Ok(dropped)
    }

    fn reclaim(&self, checkpointed: Ordinal) -> io::Result<usize> {
        let outbox = &self.outbox;
        // What is made again must not go at the same time.
        let Some(_restoring) = outbox.try_restoring() else { return Ok(0) };
        let segments = outbox.segments();
        let mut gone: Vec<Arc<Segment>> = Vec::new();
        let mut until = Watermark::default();
        // What every destination has gives way, one segment a round, before a new reading is refused.
        let mut may_yield = self.space.is_short();
        let mut rest = segments.as_slice();
        while let [segment, later @ ..] = rest
            && let Some(after) = later.first()
        {
            let last = Sequence(after.first.0.saturating_sub(1));
            let state = self.keeper.state();
            let empty = last < segment.first;
            let settled = empty || (state.settled_everywhere(segment.first, last) && !state.unresolved_in(segment.first, last));
            if !settled || after.ordinal.0 > checkpointed.0 + 1 {
                break;
            }
            if !self.past_retention(later) {
                if !std::mem::take(&mut may_yield) {
                    break;
                }
                tracing::warn!("free space is short: delivered readings give way before their time is over");
            }
            until = Watermark { ordinal: Ordinal(after.ordinal.0 - 1), sequence: last };
            gone.push(Arc::clone(segment));
            rest = later;
        }
        if gone.is_empty() {
            return Ok(0);
        }
        // Readers first: they must not look for what is about to go.
        outbox.segments.write().unwrap_or_else(PoisonError::into_inner).drain(..gone.len());
        for segment in &gone {
            self.space.recycle(&outbox.journal_dir.join(&segment.name))?;
        }
        outbox.files.sync_dir(&outbox.journal_dir)?;
        self.space.forget_keys()?;
        if let Some(keyed) = outbox.keyed()
            && !outbox.keeps_copies()
        {
            keyed.forget_up_to(until);
        }
        Ok(gone.len())
    }

    /// Whether the time of everything before these segments is over. It counts from when the first of them was begun; no later one
    /// was begun before that, but one begun while the clock was ahead says too much, and one begun while it was not set says nothing.
    fn past_retention(&self, later: &[Arc<Segment>]) -> bool {
        if self.outbox.options.retention_ms == 0 {
            return true;
        }
        let retention = i64::try_from(self.outbox.options.retention_ms).unwrap_or(i64::MAX);
        match (later.iter().filter_map(|segment| segment.wall).min(), self.keeper.state().latest_wall) {
            (Some(ended), Some(now)) => ended.plus_ms(retention) <= now,
            // Without a trusted clock nothing is known to be old.
            _ => false,
        }
    }

    fn destroy_keys(&self) -> io::Result<usize> {
        if self.outbox.keeps_copies() {
            return Ok(0);
        }
        let oldest = self.outbox.segments().iter().map(|segment| segment.key_id).min();
        oldest.map_or(Ok(0), |oldest| self.outbox.keyring.destroy_before(self.outbox.files.as_ref(), oldest))
    }
}
