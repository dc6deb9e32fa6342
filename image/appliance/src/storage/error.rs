//! Why sealed storage is not there.

use std::io;
use std::path::PathBuf;

use vitalgate_layout::partition;

use super::recovery_key::RecoveryKeyError;
use crate::command::CommandError;
use crate::stick::StickError;

/// Why sealed storage could not be opened or made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StorageError {
    /// No verified root.
    #[error("the disk that the system was started from is not found below /dev/mapper/root; flash the appliance anew")]
    NoRoot,
    /// The partition table cannot be understood.
    #[error("the partition table of {} cannot be read; flash the appliance anew", .0.display())]
    TableUnreadable(PathBuf),
    /// More than one data partition.
    #[error("{} has more than one data partition; nothing was changed: ask support which one is right", .0.display())]
    TwoDataPartitions(PathBuf),
    /// No room.
    #[error("{} leaves {mib} MiB for data, at least {} are needed; take a larger disk", .disk.display(), partition::DATA_MIB_MIN)]
    DiskTooSmall {
        /// The disk.
        disk: PathBuf,
        /// What there is.
        mib: u64,
    },
    /// No TPM.
    #[error("the machine has no TPM 2.0, so that storage cannot be sealed; switch it on in the firmware and start again")]
    NoTpm,
    /// The TPM does not seal.
    #[error("storage cannot be sealed: {0}")]
    NotSealed(CommandError),
    /// The TPM does not seal, and the client key is made with a seal only.
    #[error("the appliance's client key cannot be kept without a TPM that seals: switch it on in the firmware and start again")]
    ClientKeyNotSealed,
    /// There is a TPM now, and it does not seal.
    #[error(
        "storage was made without a seal, and the TPM that is there now does not seal it ({0}): switch the TPM off in the firmware and start again"
    )]
    TpmInTheWay(String),
    /// The TPM does not open what it sealed, or what another sealed.
    #[error("sealed storage does not open; plug in a stick labelled RECOVERY with recovery-key.txt, or RESET to begin anew ({0})")]
    DoesNotOpen(CommandError),
    /// It opens, and cannot be mounted.
    #[error("sealed storage opens, but cannot be mounted ({0}); it is tried again each minute: if it stays so, replace the disk")]
    NotMounted(StickError),
    /// It opens, and both copies of the gateway's key are damaged.
    #[error(
        "sealed storage opens, but the gateway's key in it is damaged or not taken by the TPM; plug in a stick labelled RECOVERY with recovery-key.txt"
    )]
    KeyNotTaken,
    /// A key of a stick does not open.
    #[error("the recovery key on the stick does not open this appliance's storage; every appliance has its own key ({0})")]
    WrongKey(CommandError),
    /// The stick holds no key.
    #[error("RECOVERY: {0}")]
    NoKey(#[from] RecoveryKeyError),
    /// The stick cannot be used.
    #[error(transparent)]
    Stick(#[from] StickError),
    /// The copy of the daemon's key cannot be opened.
    #[error("the copy of the key-encryption key is damaged or belongs to another recovery key; restore /data/appliance from a backup")]
    CopyDamaged,
    /// No random numbers.
    #[error("the system gives no random numbers; restart the appliance")]
    NoRandomness,
    /// The content of the new file system could not be put together.
    #[error("the content of the new file system could not be put together ({0}); restart the appliance")]
    Content(io::Error),
    /// The disk did not take it.
    #[error("the disk did not keep what was written ({0}); replace it")]
    Synchronise(io::Error),
    /// A program failed.
    #[error(transparent)]
    Program(#[from] CommandError),
    /// The state cannot be said.
    #[error("the state file cannot be written ({0}); restart the appliance")]
    State(io::Error),
}
