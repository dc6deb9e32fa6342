//! How a connection ends.

use crate::refusal::Refusal;
use crate::wire::WireFault;

/// Why a connection is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The device took its leave, perhaps for a reason that leaves its will due (v5).
    Left { with_will: bool },
    /// The connection is gone without a word.
    Vanished,
    /// The gateway ends it; the fault says what exactly was wrong with a packet.
    Refused(Refusal, Option<WireFault>),
}

impl From<Refusal> for Ending {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal, None)
    }
}

impl From<WireFault> for Ending {
    fn from(fault: WireFault) -> Self {
        Self::Refused(fault.into(), Some(fault))
    }
}
