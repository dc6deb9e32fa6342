//! What must hold before anything is written: no guess about patient, moment or set.

use vitalgate_domain::{Batch, Item, Metric, ReadingId, Subject};

/// Why a batch cannot be encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// There is nothing in it.
    #[error("the batch holds no item")]
    Empty,
    /// One item cannot be sent as it is.
    #[error("item {item} of the batch: {fault}")]
    Item {
        /// Its place in the batch, from 0.
        item: usize,
        /// What is wrong with it.
        fault: ItemFault,
    },
}

/// Why an item cannot be sent as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ItemFault {
    /// Neither the device nor a set clock says when it was: hold it until the clock is known.
    #[error("the moment of the reading is not known; it is held until the clock is set")]
    TimeUnknown,
    /// An earlier item of the batch has the same identity. Servers differ on what they do with the
    /// same identity twice in one bundle; send it in another one.
    #[error("the same identity stands twice in the batch; it goes into another one")]
    DuplicateIdentity,
    /// The reading is about somebody else than the batch, or about nobody.
    #[error("the reading is not associated with the patient of the batch")]
    OtherPatient,
    /// An item without readings.
    #[error("the item holds no reading")]
    NoReading,
    /// Several readings that no panel joins.
    #[error("several readings without a panel that joins them")]
    SeveralReadings,
    /// A part of a panel on its own: FHIR's `bp` wants it inside the panel.
    #[error("a part of a panel must be sent inside the panel")]
    PartWithoutPanel,
    /// A panel metric that claims to be a value.
    #[error("a panel has no value of its own")]
    PanelAsReading,
    /// A reading that is no part of the panel, or a part that is there twice.
    #[error("the readings are not the parts of the panel, each at most once")]
    WrongParts,
    /// Parts of different devices.
    #[error("the parts of a panel come from different devices")]
    SeveralDevices,
}

/// Everything in the batch that cannot be sent as it is, by place, ascending.
#[must_use]
pub fn faults(batch: &Batch) -> Vec<(usize, ItemFault)> {
    let mut faults: Vec<(usize, ItemFault)> =
        batch.items.iter().enumerate().filter_map(|(index, item)| fault_of(item, batch).map(|fault| (index, fault))).collect();
    let mut ids: Vec<(ReadingId, usize)> = batch.items.iter().enumerate().map(|(index, item)| (item.id, index)).collect();
    ids.sort_unstable();
    let twice = ids.windows(2).filter_map(|pair| match pair {
        [(first, _), (second, index)] if first == second => Some((*index, ItemFault::DuplicateIdentity)),
        _ => None,
    });
    faults.extend(twice);
    faults.sort_by_key(|(index, _)| *index);
    faults.dedup_by_key(|(index, _)| *index);
    faults
}

fn fault_of(item: &Item, batch: &Batch) -> Option<ItemFault> {
    let Some((_, first)) = item.readings.first() else { return Some(ItemFault::NoReading) };
    for (_, reading) in &item.readings {
        if !matches!(&reading.subject, Subject::Patient(patient) if *patient == batch.patient) {
            return Some(ItemFault::OtherPatient);
        }
        if reading.time.effective().is_none() {
            return Some(ItemFault::TimeUnknown);
        }
        if reading.device != first.device {
            return Some(ItemFault::SeveralDevices);
        }
    }
    match item.panel {
        Some(panel) => (!are_parts(item, panel)).then_some(ItemFault::WrongParts),
        None if item.readings.len() > 1 => Some(ItemFault::SeveralReadings),
        None if first.metric.definition().panel.is_some() => Some(ItemFault::PartWithoutPanel),
        None if first.metric.definition().unit.is_none() => Some(ItemFault::PanelAsReading),
        None => None,
    }
}

fn are_parts(item: &Item, panel: Metric) -> bool {
    item.readings.iter().enumerate().all(|(index, (_, reading))| {
        let earlier = item.readings.iter().take(index);
        panel.parts().contains(&reading.metric) && earlier.clone().all(|(_, other)| other.metric != reading.metric)
    })
}
