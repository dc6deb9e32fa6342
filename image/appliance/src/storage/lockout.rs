//! Keeps the TPM from locking itself after power cuts.
//!
//! A TPM counts every power cut that follows the use of a sealed object as a possible guess, and at a
//! number that its maker chose (3 for some) opens nothing for a quarter of an hour or longer (Trusted
//! Platform Module Library, part 1, section 19.8 "Dictionary attack protection"). What this appliance
//! seals has no password that could be guessed, only a policy. So every start forgets the count, and
//! lets the TPM wait for many more.

use std::fs::File;
use std::io::{self, Read, Write};

use crate::places::Places;

/// The TPM behind the kernel's resource manager.
const DEVICE: &str = "/dev/tpmrm0";
/// Power cuts without a start in between that got this far; each start forgets them.
const TRIES_MAX: u32 = 1000;
/// After which time the TPM forgets one try by itself, in seconds.
const FORGETS_AFTER_S: u32 = 10;
/// How long the TPM refuses the owner of the lockout after a wrong password, in seconds.
const OWNER_WAITS_S: u32 = 10;
/// `TPM_CC_DictionaryAttackLockReset` (part 2, section 6.5.2).
const LOCK_RESET: u32 = 0x0000_0139;
/// `TPM_CC_DictionaryAttackParameters`.
const PARAMETERS: u32 = 0x0000_013A;
/// `TPM_ST_SESSIONS`.
const WITH_SESSION: u16 = 0x8002;
/// `TPM_RH_LOCKOUT`, the handle; then one session of nine bytes: `TPM_RS_PW` with an empty password.
const LOCKOUT_BY_EMPTY_PASSWORD: [u8; 17] = [0x40, 0, 0, 0x0A, 0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0];
/// Tag, size and code, of a command and of an answer.
const HEADER_BYTES: usize = 10;
/// Largest answer, in bytes; these have 19.
const ANSWER_BYTES_MAX: usize = 4096;

/// Why the TPM still counts.
#[derive(Debug, thiserror::Error)]
pub(super) enum LockoutError {
    /// The device does not answer.
    #[error("the TPM does not answer ({0}); switch the appliance off and on again")]
    Device(#[from] io::Error),
    /// It answered something else.
    #[error("the TPM's answer cannot be understood; switch the appliance off and on again")]
    Answer,
    /// It refused.
    #[error(
        "the TPM keeps its count of power cuts (it answers {0:#x}); clear it in the firmware: after several power cuts it may ask for the recovery key"
    )]
    Refused(u32),
}

/// Makes the TPM forget the power cuts so far. A machine without a TPM has nothing to forget.
///
/// # Errors
/// When the TPM refuses: somebody else owns its lockout.
pub(super) fn lift(places: &Places) -> Result<(), LockoutError> {
    match File::options().read(true).write(true).open(places.at(DEVICE)) {
        Ok(mut device) => forgive(&mut device),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn forgive(device: &mut (impl Read + Write)) -> Result<(), LockoutError> {
    let parameters = [TRIES_MAX, FORGETS_AFTER_S, OWNER_WAITS_S].map(u32::to_be_bytes).concat();
    ask(device, LOCK_RESET, &[])?;
    ask(device, PARAMETERS, &parameters)
}

/// Sends one command for the lockout and looks whether it succeeded.
fn ask(device: &mut (impl Read + Write), code: u32, parameters: &[u8]) -> Result<(), LockoutError> {
    let bytes = HEADER_BYTES + LOCKOUT_BY_EMPTY_PASSWORD.len() + parameters.len();
    let mut command = WITH_SESSION.to_be_bytes().to_vec();
    command.extend(u32::try_from(bytes).map_err(|_| LockoutError::Answer)?.to_be_bytes());
    command.extend(code.to_be_bytes());
    command.extend(LOCKOUT_BY_EMPTY_PASSWORD);
    command.extend(parameters);
    // The kernel takes a command in one write and gives its answer in one read.
    device.write_all(&command)?;
    let mut answer = [0; ANSWER_BYTES_MAX];
    let length = device.read(&mut answer)?;
    let said = answer.get(HEADER_BYTES - 4..HEADER_BYTES.min(length)).and_then(|code| code.try_into().ok());
    match said.map(u32::from_be_bytes) {
        Some(0) => Ok(()),
        Some(refusal) => Err(LockoutError::Refused(refusal)),
        None => Err(LockoutError::Answer),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::path::{Path, PathBuf};
    use std::process::{Child, Command, Output, Stdio};
    use std::time::{Duration, Instant};

    use super::*;
    use crate::pause::pause;

    /// Longest wait for swtpm's socket.
    const READY_WITHIN: Duration = Duration::from_secs(20);
    const LOOK_EVERY: Duration = Duration::from_millis(20);

    /// A TPM in software. Dropping it cuts its power: nothing tells it to shut down.
    struct PoweredTpm {
        process: Child,
        socket: PathBuf,
    }

    impl PoweredTpm {
        fn on(folder: &Path) -> Self {
            let socket = folder.join("socket");
            let control = folder.join("socket.ctrl");
            for old in [&socket, &control] {
                let _ = std::fs::remove_file(old);
            }
            let process = Command::new("swtpm")
                .args(["socket", "--tpm2", "--flags", "startup-clear", "--tpmstate"])
                .arg(format!("dir={}", folder.display()))
                .arg("--server")
                .arg(format!("type=unixio,path={}", socket.display()))
                .arg("--ctrl")
                .arg(format!("type=unixio,path={}", control.display()))
                .spawn()
                .expect("swtpm is installed");
            let began = Instant::now();
            // A socket has its name before it takes connections.
            while ![&socket, &control].iter().all(|path| UnixStream::connect(path).is_ok()) {
                assert!(began.elapsed() < READY_WITHIN, "swtpm takes no connections");
                pause(LOOK_EVERY);
            }
            Self { process, socket }
        }

        fn tool(&self, name: &str, arguments: &[&str]) -> Output {
            Command::new(name)
                .args(arguments)
                .env("TPM2TOOLS_TCTI", format!("swtpm:path={}", self.socket.display()))
                .stdin(Stdio::null())
                .output()
                .expect("tpm2-tools are installed")
        }

        fn run(&self, name: &str, arguments: &[&str]) {
            let output = self.tool(name, arguments);
            assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }

    impl Drop for PoweredTpm {
        fn drop(&mut self) {
            self.process.kill().unwrap();
            self.process.wait().unwrap();
        }
    }

    /// After a few power cuts a TPM opens nothing; lifting the lockout, it opens what it sealed, and
    /// does so after many more.
    #[test]
    fn power_cuts_do_not_lock_what_is_sealed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        std::fs::write(at("secret"), "sealed").unwrap();
        let (parent, public, private, sealed) = (at("parent"), at("public"), at("private"), at("sealed"));
        let first = PoweredTpm::on(folder.path());
        first.run("tpm2_createprimary", &["-Q", "-c", &parent]);
        first.run("tpm2_create", &["-Q", "-C", &parent, "-i", &at("secret"), "-u", &public, "-r", &private]);
        drop(first);
        let opens = |tpm: &PoweredTpm| {
            tpm.run("tpm2_createprimary", &["-Q", "-c", &parent]);
            // No resource manager stands before this TPM: it has room for three objects.
            tpm.run("tpm2_flushcontext", &["-t"]);
            let loaded = tpm.tool("tpm2_load", &["-Q", "-C", &parent, "-u", &public, "-r", &private, "-c", &sealed]);
            tpm.run("tpm2_flushcontext", &["-t"]);
            loaded.status.success() && tpm.tool("tpm2_unseal", &["-c", &sealed]).stdout == b"sealed"
        };
        let cuts_until_locked = (1..=8).find(|_| !opens(&PoweredTpm::on(folder.path())));
        assert!(cuts_until_locked.is_some_and(|cuts| cuts > 1), "this TPM does not lock: {cuts_until_locked:?}");

        for cut in 0..8 {
            let tpm = PoweredTpm::on(folder.path());
            forgive(&mut UnixStream::connect(&tpm.socket).unwrap()).unwrap();
            assert!(opens(&tpm), "locked after {cut} more power cuts");
        }
    }

    /// Somebody else's TPM refuses, and the error says what that means.
    #[test]
    fn a_tpm_with_another_owner_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let tpm = PoweredTpm::on(folder.path());
        tpm.run("tpm2_changeauth", &["-c", "lockout", "another"]);
        let told = forgive(&mut UnixStream::connect(&tpm.socket).unwrap()).unwrap_err();
        assert!(matches!(told, LockoutError::Refused(_)) && told.to_string().contains("recovery key"), "{told}");
    }

    /// Cut short or not at all: never taken for a success.
    #[test]
    fn a_broken_answer_is_no_success() {
        for answer in [&[][..], &[0x80, 2, 0, 0, 0, 19, 0, 0, 0]] {
            let (mut ours, mut theirs) = UnixStream::pair().unwrap();
            theirs.write_all(answer).unwrap();
            theirs.shutdown(std::net::Shutdown::Write).unwrap();
            assert!(matches!(forgive(&mut ours), Err(LockoutError::Answer)));
        }
    }
}
