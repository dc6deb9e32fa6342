//! Asking the TPM, by the programs that do: one question may have to be put more than once.

use std::time::Duration;

use crate::cli::say;
use crate::command::{Answer, Call, CommandError, Programs};
use crate::pause::pause;

/// What a TPM may take for one question; a firmware one is slow.
pub(super) const DEADLINE: Duration = Duration::from_secs(120);
/// How often a TPM is asked that says [`ASK_AGAIN`]. With Secure Boot the kernel measures each driver that it loads, and drivers
/// are loaded all through the start.
const TRIES: u32 = 12;
/// Time between two of them; each takes a second or more itself.
const PAUSE: Duration = Duration::from_millis(200);
/// `TPM_RC_PCR_CHANGED` in the words of tpm2-tss, with which systemd ends.
const ASK_AGAIN: &str = "PCR have changed since checked";

/// Puts a question. A TPM whose registers changed while it was asked (any of them: TPM 2.0 Part 3, `TPM2_PolicyPCR`) has
/// refused nothing: it is asked again.
///
/// # Errors
/// What the program ended with.
pub(super) fn ask(programs: &dyn Programs, call: &dyn Fn() -> Call) -> Result<Answer, CommandError> {
    let mut tries = TRIES;
    loop {
        tries -= 1;
        match programs.run(call().deadline(DEADLINE)) {
            Err(CommandError::Failed { complaint, .. }) if tries > 0 && complaint.contains(ASK_AGAIN) => {
                say(&complaint);
                pause(PAUSE);
            }
            ended => return ended,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::path::Path;

    use super::super::key_wrap::credential;
    use super::super::recovery_key::RecoveryKey;
    use super::super::volume::Volume;
    use super::*;
    use crate::places::Places;

    /// Asks for something; whether it was had.
    type Question<'a> = &'a dyn Fn(&dyn Programs) -> bool;

    /// A TPM that refuses with these words as often.
    struct Refuses(&'static str, Cell<u32>);

    impl Programs for Refuses {
        fn attempt(&self, _: Call) -> Result<Answer, CommandError> {
            let left = self.1.get();
            self.1.set(left.saturating_sub(1));
            Ok(Answer { success: left == 0, complaint: self.0.into(), ..Answer::default() })
        }
    }

    /// A register that changed in between is no refusal, whatever the TPM is asked for: opening, sealing the disk,
    /// sealing a key. A refusal is not asked about again.
    #[test]
    fn a_tpm_that_changed_in_between_is_asked_again() {
        let (folder, device) = (tempfile::tempdir().unwrap(), Path::new("/dev/vda6"));
        let places = Places::under(folder.path());
        let recovery = RecoveryKey::generate().unwrap();
        let questions: [(&str, Question<'_>); 3] = [
            ("open", &|programs| Volume { programs, places: &places, device }.attach().is_ok()),
            ("seal", &|programs| Volume { programs, places: &places, device }.seal(&recovery).is_ok()),
            ("credential", &|programs| credential(programs, &places, "kek", b"key", true).is_ok()),
        ];
        let changed = "Failed to add PCR policy to TPM: tpm:error(2.0): PCR have changed since checked";
        let asked = |question: Question<'_>, words, refusals| {
            let programs = Refuses(words, Cell::new(refusals));
            (question(&programs), programs.1.get())
        };
        for (name, question) in questions {
            assert_eq!(asked(question, changed, 2), (true, 0), "{name}");
            assert_eq!(asked(question, "a policy check failed", 5), (false, 4), "{name}");
        }
        assert_eq!(asked(questions[0].1, changed, TRIES + 1), (false, 1));
    }
}
