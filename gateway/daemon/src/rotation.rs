//! A new data key each day, so that a day's readings can be made unreadable by destroying one key.

use vitalgate_domain::{ClockTrust, Now, UnixMs};
use vitalgate_store::{CommitError, Journal};

/// Age at which a data key is followed by the next one, in milliseconds (one day).
const KEY_AGE_MAX_MS: u64 = 86_400_000;
/// Time until a rotation that failed is tried again, in milliseconds (one hour).
const RETRY_MS: u64 = 3_600_000;

/// What is to be done with the newest key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Wait,
    /// Nobody knows when it was made: its day begins now.
    Date,
    Rotate,
}

/// The schedule. It stands in the store, so that a gateway that is started again goes on with it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rotation {
    started_ms: u64,
    not_before_ms: u64,
}

impl Rotation {
    /// From this moment of the monotonic clock on.
    pub(crate) fn new(started_ms: u64) -> Self {
        Self { started_ms, not_before_ms: 0 }
    }

    fn step(&self, made_at: Option<UnixMs>, now: &Now) -> Step {
        if now.trust == ClockTrust::Unset || now.monotonic_ms < self.not_before_ms {
            return Step::Wait;
        }
        let Some(made_at) = made_at else { return Step::Date };
        match u64::try_from(now.wall.0.saturating_sub(made_at.0)) {
            Ok(age_ms) if age_ms >= KEY_AGE_MAX_MS => Step::Rotate,
            Ok(_) => Step::Wait,
            // Our clock went back, or was ahead when the key was made: then the time since the start counts.
            Err(_) if now.monotonic_ms.saturating_sub(self.started_ms) >= KEY_AGE_MAX_MS => Step::Rotate,
            Err(_) => Step::Wait,
        }
    }

    /// Does what is due; called with each round of upkeep.
    ///
    /// # Errors
    /// When the journal cannot be written any more. Anything else is logged and tried again.
    pub(crate) fn keep(&mut self, journal: &mut Journal, now: &Now) -> Result<(), CommitError> {
        let done = match self.step(journal.data_key_made_at(), now) {
            Step::Wait => return Ok(()),
            Step::Date => journal.note_data_key_made(now.wall).map_err(CommitError::from),
            Step::Rotate => journal.rotate_data_key(Some(now.wall)).map(|key| {
                self.started_ms = now.monotonic_ms;
                tracing::info!(key, "a new data key seals what is stored from now on");
            }),
        };
        match done {
            Err(error) if error.is_fatal() => Err(error),
            Err(error) => {
                tracing::warn!(%error, "the data key cannot be changed now; the one in use stays, and it is tried again in an hour");
                self.not_before_ms = now.monotonic_ms.saturating_add(RETRY_MS);
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;
    use std::sync::Arc;

    use vitalgate_domain::{BootId, Change, DestinationId, Sequence};
    use vitalgate_store::{Opened, RealFiles, StoreOptions};

    use super::*;

    const HOUR_MS: i64 = 3_600_000;
    const NOON: UnixMs = UnixMs(1_795_345_200_000);

    fn at(hours: i64, trust: ClockTrust) -> Now {
        let wall = NOON.plus_ms(hours * HOUR_MS);
        Now { wall, monotonic_ms: 1_000 + (hours * HOUR_MS).unsigned_abs(), boot: BootId::from_bytes([1; 16]), trust }
    }

    fn open(folder: &Path) -> Opened {
        let keys = vitalgate_trust::FileKeyWrap::open_or_create(&folder.join("kek")).unwrap();
        let options = StoreOptions { segment_bytes: 64 * 1024, background: false, ..StoreOptions::new(folder.join("store")) };
        vitalgate_store::open(options, Arc::new(keys), Arc::new(RealFiles)).unwrap()
    }

    /// Key files of the store, by the key's number.
    fn keys(folder: &Path) -> BTreeSet<String> {
        let listing = std::fs::read_dir(folder.join("store/keys")).unwrap();
        listing.map(|file| file.unwrap().file_name().to_string_lossy()[..8].to_owned()).collect()
    }

    /// Thirty days by the hour, started again every five hours: a key a day, and no more.
    #[test]
    fn each_day_gets_its_key_however_often_the_gateway_is_started_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut opened = open(folder.path());
        let mut rotation = Rotation::new(0);
        for hour in 0..=30 * 24 {
            if hour % 5 == 0 {
                drop(opened);
                opened = open(folder.path());
                rotation = Rotation::new(at(hour, ClockTrust::Free).monotonic_ms);
            }
            // Something is committed all the time, and every key still opens what it sealed.
            let present = vec![DestinationId::new("ehr").unwrap()];
            opened.journal.append(&[], &[Change::Destinations { present, from: Sequence::FIRST }]).unwrap();
            for _ in 0..3 {
                rotation.keep(&mut opened.journal, &at(hour, ClockTrust::Free)).unwrap();
            }
        }
        assert_eq!(keys(folder.path()).len(), 31, "the first key and one for each of thirty days");
    }

    #[test]
    fn a_clock_that_is_not_set_or_jumps_turns_no_key_over_too_often_and_none_for_ever() {
        let mut rotation = Rotation::new(1_000);
        let made = Some(NOON);
        assert_eq!(rotation.step(made, &at(500, ClockTrust::Unset)), Step::Wait);
        assert_eq!(rotation.step(None, &at(0, ClockTrust::Free)), Step::Date);
        assert_eq!(rotation.step(made, &at(23, ClockTrust::Free)), Step::Wait);
        assert_eq!(rotation.step(made, &at(24, ClockTrust::Free)), Step::Rotate);
        // Made by a clock that was a year ahead: 23 hours after the start it waits, a day after it does not.
        let ahead = Some(NOON.plus_ms(365 * 24 * HOUR_MS));
        assert_eq!(rotation.step(ahead, &at(23, ClockTrust::Synchronised)), Step::Wait);
        assert_eq!(rotation.step(ahead, &at(24, ClockTrust::Synchronised)), Step::Rotate);
        rotation.not_before_ms = at(25, ClockTrust::Free).monotonic_ms;
        assert_eq!(rotation.step(made, &at(24, ClockTrust::Free)), Step::Wait, "one that failed rests");
    }
}
