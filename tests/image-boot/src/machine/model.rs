//! Which machine is emulated.

use std::path::PathBuf;

use anyhow::bail;

use crate::command::setting;

/// A kind of machine that the image is built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Model {
    /// A PC with a TPM.
    Amd64,
    /// QEMU's `virt`. Debian's arm64 kernel has no driver for the only TPM that it offers, so it has none.
    Arm64,
}

impl Model {
    /// `MACHINE`, as Debian calls it; a PC without.
    ///
    /// # Errors
    /// When it is neither.
    pub(crate) fn wanted() -> anyhow::Result<Self> {
        match setting("MACHINE", Self::Amd64.name()).as_str() {
            "amd64" => Ok(Self::Amd64),
            "arm64" => Ok(Self::Arm64),
            other => bail!("MACHINE is amd64 or arm64, not {other}"),
        }
    }

    /// In the name of its files.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// Behind the version in the name of an image's folder.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Self::Amd64 => "",
            Self::Arm64 => "-arm64",
        }
    }

    /// Whether there is a TPM in it.
    pub(crate) fn has_tpm(self) -> bool {
        self == Self::Amd64
    }

    /// The emulator.
    pub(crate) fn emulator(self) -> &'static str {
        match self {
            Self::Amd64 => "qemu-system-x86_64",
            Self::Arm64 => "qemu-system-aarch64",
        }
    }

    /// Processor and board, for the emulator.
    pub(super) fn board(self) -> &'static str {
        match self {
            // A processor of five-level page tables costs time in translation and brings nothing here.
            Self::Amd64 => {
                "-cpu max,la57=off -machine q35,smm=on,vmport=off -global driver=cfi.pflash01,property=secure,value=on -device VGA"
            }
            Self::Arm64 => "-cpu cortex-a72 -machine virt",
        }
    }

    /// Where Debian keeps the firmware that enforces Secure Boot.
    pub(super) fn firmware(self) -> PathBuf {
        PathBuf::from(match self {
            Self::Amd64 => setting("VITALGATE_OVMF_CODE", "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd"),
            Self::Arm64 => setting("VITALGATE_AAVMF_CODE", "/usr/share/AAVMF/AAVMF_CODE.fd"),
        })
    }

    /// The firmware's variables to begin with. Those of arm64 that hold none are no store at all, so the keys that others
    /// enrolled are taken out of theirs.
    pub(super) fn variables(self) -> String {
        match self {
            Self::Amd64 => setting("VITALGATE_OVMF_VARS", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
            Self::Arm64 => setting("VITALGATE_AAVMF_VARS", "/usr/share/AAVMF/AAVMF_VARS.ms.fd"),
        }
    }
}
