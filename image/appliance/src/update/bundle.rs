//! A bundle as the updater reads it, and whether it is to be installed.

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use vitalgate_layout::Version;

use crate::boot::{Rollback, Running, UPDATER_CONFIG, check_version};
use crate::command::{Call, CommandError, Programs};

/// How long the updater may take to check a signature.
const INFO_DEADLINE: Duration = Duration::from_secs(120);

/// What a bundle says of itself; its signature was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Offer {
    /// The machine it is for.
    pub(crate) compatible: String,
    /// Its version.
    pub(crate) version: Version,
}

/// As `rauc info --output-format=json` prints it (RAUC 1.8).
#[derive(Debug, Deserialize)]
struct Information {
    compatible: String,
    version: String,
}

/// Why a bundle is not installed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    /// The signature, the file or the updater.
    #[error("the bundle is not accepted: {0}")]
    NotAccepted(String),
    /// The updater was not there.
    #[error(transparent)]
    Updater(#[from] CommandError),
    /// No version.
    #[error("the bundle names no version major.minor.patch; get the bundle anew")]
    NoVersion,
    /// Nothing to do.
    #[error("version {0} is running already")]
    Running(Version),
    /// It was tried.
    #[error(
        "version {version} was tried and undone: {reason}. Get a newer version; to try this one again, delete update-report.txt from the stick, which must not be write-protected"
    )]
    Undone {
        /// The version.
        version: Version,
        /// Why it was left.
        reason: String,
    },
    /// Older than what runs, and nobody asks for it.
    #[error(
        "version {version} is older than {running}, which runs; to go back to it, delete update-report.txt from the stick, which must not be write-protected"
    )]
    Older {
        /// The version.
        version: Version,
        /// What runs.
        running: Version,
    },
    /// It was left by hand, or is older than what was, and nobody asks for it.
    #[error(
        "version {version} does not come by itself: {left} was left by hand. Get a newer version; to go back to this one, bring it on a stick UPDATE without update-report.txt"
    )]
    LeftByHand {
        /// The version.
        version: Version,
        /// The newest that was left.
        left: Version,
    },
    /// Wrong machine or too old.
    #[error("{0}")]
    NotForThis(String),
}

impl Offer {
    /// Asks the updater, which checks the signature.
    ///
    /// # Errors
    /// When the bundle is not signed by the release, or damaged.
    pub(crate) fn read(programs: &impl Programs, bundle: &Path) -> Result<Self, Refused> {
        let call =
            Call::new("rauc", "").arguments([UPDATER_CONFIG, "info", "--output-format=json"]).arguments([bundle]).deadline(INFO_DEADLINE);
        let answer = programs.attempt(call)?;
        if !answer.success {
            return Err(Refused::NotAccepted(what_the_updater_says(&answer.complaint)));
        }
        let information: Information =
            serde_json::from_slice(&answer.output).map_err(|error| Refused::NotAccepted(format!("no description ({error})")))?;
        let version = Version::parse(&information.version).ok_or(Refused::NoVersion)?;
        Ok(Self { compatible: information.compatible, version })
    }

    /// Whether it is made for this machine.
    ///
    /// # Errors
    /// When it is for another.
    pub(crate) fn for_this_machine(self) -> Result<Self, Refused> {
        check_version(&self.compatible, self.version, None).map_err(|refusal| Refused::NotForThis(refusal.to_string()))?;
        Ok(self)
    }

    /// Whether it is to be installed over what runs. A version that was undone is not tried again by itself, and none goes
    /// back to an older one by itself: a stick that stays in would undo every update from the server; nor comes back what a
    /// person left for an older one. `asked` says that a person wants it.
    ///
    /// # Errors
    /// Says why not.
    pub(crate) fn check(
        &self,
        running: Running,
        floor: Option<Version>,
        undone: Option<&Rollback>,
        left: Option<Version>,
        asked: bool,
    ) -> Result<(), Refused> {
        check_version(&self.compatible, self.version, floor).map_err(|refusal| Refused::NotForThis(refusal.to_string()))?;
        if self.version == running.version {
            return Err(Refused::Running(self.version));
        }
        match undone.and_then(|undone| undone.why_undone(self.version)) {
            _ if asked => Ok(()),
            Some(reason) => Err(Refused::Undone { version: self.version, reason: reason.to_owned() }),
            None if self.version < running.version => Err(Refused::Older { version: self.version, running: running.version }),
            None => match left.filter(|left| self.version <= *left) {
                Some(left) => Err(Refused::LeftByHand { version: self.version, left }),
                None => Ok(()),
            },
        }
    }
}

/// The last line of the updater that is not a note of what it does.
fn what_the_updater_says(complaint: &str) -> String {
    let mut lines = complaint.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("rauc-Message:"));
    lines.next_back().unwrap_or("the updater gave no reason").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::COMPATIBLE;
    use crate::command::Answer;
    use vitalgate_layout::Slot;

    /// A RAUC 1.8 that answers as it did for real bundles.
    struct Rauc(bool, &'static str, &'static str);

    impl Programs for Rauc {
        fn attempt(&self, call: Call) -> Result<Answer, CommandError> {
            assert_eq!(call.line(), "rauc --conf=/usr/lib/rauc/system.conf info --output-format=json /b.raucb");
            Ok(Answer { success: self.0, code: Some(i32::from(!self.0)), output: self.1.into(), complaint: self.2.into() })
        }
    }

    const GOOD: &str = concat!(
        r#"{"compatible":"vitalgate-amd64","version":"0.3.0","description":null,"build":null,"hooks":[],"images":[{"rootfs":{"variant":null,"#,
        r#""filename":"root.img","checksum":"659247","size":1000000,"hooks":[],"adaptive":[]}}]}"#,
        "\n"
    );
    const STRANGER: &str = "rauc-Message: 04:31:57.496: Using per-slot statusfile\nrauc-Message: 04:31:57.498: Verifying bundle signature... \n\
         signature verification failed: Verify error: self-signed certificate\n";

    fn offer(version: &str) -> Offer {
        Offer { compatible: COMPATIBLE.into(), version: Version::parse(version).unwrap() }
    }

    #[test]
    fn the_updater_s_answers_are_read() {
        let read = |rauc: Rauc| Offer::read(&rauc, Path::new("/b.raucb"));
        let amd64 = Offer { compatible: "vitalgate-amd64".into(), ..offer("0.3.0") };
        assert_eq!(read(Rauc(true, GOOD, "rauc-Message: x\n")).unwrap(), amd64);
        let refused = read(Rauc(false, "", STRANGER)).unwrap_err().to_string();
        assert_eq!(refused, "the bundle is not accepted: signature verification failed: Verify error: self-signed certificate");
        let damaged = "rauc-Message: 1: Reading bundle: /b.raucb\nInvalid bundle format: Signature size (456312) exceeds 64KiB\n";
        assert!(read(Rauc(false, "", damaged)).unwrap_err().to_string().contains("Signature size"));
        for garbage in ["", "{}", r#"{"compatible":"x","version":null}"#] {
            assert!(matches!(read(Rauc(true, garbage, "")), Err(Refused::NotAccepted(_))), "{garbage}");
        }
        assert!(matches!(read(Rauc(true, r#"{"compatible":"x","version":"new"}"#, "")), Err(Refused::NoVersion)));
    }

    /// Newer, or older down to the floor where a person asks; never the same, and not again what failed.
    #[test]
    fn what_is_installed_and_what_is_not() {
        let running = Running { slot: Slot::A, version: Version::parse("0.3.0").unwrap() };
        let floor = Version::parse("0.2.0");
        let undone = Rollback::now(Slot::B, Version::parse("0.4.0").unwrap(), "no reading from m-2".into());
        let left = Version::parse("0.4.2");
        let check = |version: &str, asked| offer(version).check(running, floor, Some(&undone), None, asked);
        assert!(check("0.4.1", false).is_ok());
        assert!(check("0.2.0", true).is_ok());
        assert!(check("0.2.0", false).unwrap_err().to_string().contains("older than 0.3.0, which runs"));
        assert!(matches!(check("0.3.0", true), Err(Refused::Running(_))));
        assert!(check("0.1.9", true).unwrap_err().to_string().contains("older than 0.2.0"));
        assert!(check("0.4.0", false).unwrap_err().to_string().contains("no reading from m-2"));
        assert!(check("0.4.0", true).is_ok());
        for (version, asked, comes) in [("0.4.2", false, false), ("0.3.1", false, false), ("0.4.2", true, true), ("0.4.3", false, true)] {
            assert_eq!(offer(version).check(running, floor, None, left, asked).is_ok(), comes, "{version}");
        }
        let other = Offer { compatible: "vitalgate-other".into(), ..offer("0.4.1") };
        assert!(matches!(other.check(running, floor, None, None, false), Err(Refused::NotForThis(_))));
    }
}
