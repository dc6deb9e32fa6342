//! The journal as the keyed side's feeder sees it.

use std::sync::{Arc, PoisonError};

use vitalgate_domain::{Change, Record};

use crate::copy::{BlockSource, Ordinal, SealedBlock, SourceError, Watermark};
use crate::outbox::{Copies, OpenBlockError, Outbox};
use crate::record::{sealed_block, whole_record};
use crate::walker::{Step, WalkError, Walker};

/// [`BlockSource`] over the journal.
pub(crate) struct Feed(pub(crate) Arc<Outbox>);

fn undecodable(ordinal: Ordinal) -> impl FnOnce(OpenBlockError) -> SourceError {
    move |error| SourceError::Undecodable { ordinal, reason: error.to_string() }
}

impl BlockSource for Feed {
    fn committed(&self) -> Watermark {
        self.0.committed()
    }

    fn oldest(&self) -> Ordinal {
        self.0.oldest().1
    }

    fn blocks_after(&self, after: Ordinal, bytes_max: usize) -> Result<Vec<SealedBlock>, SourceError> {
        let limit = self.0.committed();
        let wanted = after.next().max(self.oldest());
        if wanted > limit.ordinal {
            return Ok(Vec::new());
        }
        let remembered = *self.0.feed_place.lock().unwrap_or_else(PoisonError::into_inner);
        let mut walker = match remembered.filter(|mark| mark.ordinal == wanted) {
            Some(place) => Walker::new(&self.0, place, limit, Copies::Shadow),
            None => Walker::from_ordinal(&self.0, wanted, limit, Copies::Shadow),
        };
        let (mut blocks, mut bytes) = (Vec::new(), 0);
        while bytes < bytes_max || blocks.is_empty() {
            let step = walker.next().map_err(|error| match error {
                WalkError::Io(error) => SourceError::Io(error.to_string()),
                WalkError::Copy(error) => SourceError::Io(error.to_string()),
            })?;
            match step {
                Step::Record(header) if header.ordinal >= wanted => {
                    bytes += walker.record().len();
                    blocks.push(sealed_block(&header, walker.record()));
                }
                Step::Record(_) => {}
                Step::Lost { until, .. } if until.ordinal < wanted => {}
                // What came before the hole first.
                Step::Lost { .. } if !blocks.is_empty() => return Ok(blocks),
                Step::Lost { from, until, .. } => return Err(SourceError::Lost { from, until }),
                Step::End => break,
            }
        }
        *self.0.feed_place.lock().unwrap_or_else(PoisonError::into_inner) = Some(walker.place());
        Ok(blocks)
    }

    fn open_entries(&self, block: &SealedBlock) -> Result<Vec<Record>, SourceError> {
        let (header, record) = self.0.parsed(block)?;
        self.0.open_entries(&header, record, &mut Vec::new()).map_err(undecodable(block.ordinal))
    }

    fn open_changes(&self, block: &SealedBlock) -> Result<Vec<Change>, SourceError> {
        let (header, record) = self.0.parsed(block)?;
        self.0.open_changes(&header, record).map_err(undecodable(block.ordinal))
    }

    fn parse(&self, bytes: &[u8]) -> Result<SealedBlock, SourceError> {
        match whole_record(bytes) {
            Some((header, record)) if record.len() == bytes.len() => Ok(sealed_block(&header, record)),
            _ => Err(SourceError::Undecodable { ordinal: Ordinal(0), reason: "the bytes are not a whole, unaltered record".into() }),
        }
    }

    fn wrapped_keys(&self) -> Vec<(u32, Vec<u8>)> {
        self.0.keyring.all_wrapped()
    }

    fn oldest_key(&self) -> u32 {
        // What is missing here may be sealed with one that only the keyed store has.
        if self.0.keeps_copies() { 0 } else { self.0.keyring.oldest().unwrap_or(0) }
    }

    fn subscribe(&self, listener: Box<dyn Fn(Watermark) + Send + Sync>) {
        self.0.listen(listener);
    }
}
