//! Errands: what a step of root's may not do itself, done by a unit of its own that may do only that.
//!
//! The step leaves a question where everybody can read it, has the service manager start the unit
//! (`vitalgate-errand-<name>.service`, an account without rights), reads the answer from the unit's own
//! folder and stops the unit, which takes that folder away. Neither side holds a right of the other: who
//! speaks to the network is not root, and root does not speak to the network. An answer is what a
//! stranger might have written: it has a size and a form, and nothing else is believed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::cli::say;
use crate::command::{Call, CommandError, Programs, System};
use crate::places::Places;
use crate::{gate, provision, replay, self_test, support, update};

/// Where questions are left, by the errand's name.
const QUESTIONS: &str = "/run/vitalgate/errand";
/// Name of the answer in the unit's own folder.
const ANSWER: &str = "answer";
/// Largest question or answer, in bytes.
const BYTES_MAX: u64 = 8 * 1024 * 1024;
/// What the service manager may take besides the errand itself, in seconds.
const MANAGER_S: u64 = 60;
const REMEDY: &str = "see the journal; power the appliance off and on, and try once more";

/// What there is to be done, by the name of its unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Errand {
    /// Ask the daemon on the loopback what is there, before an update.
    Before,
    /// Make devices' credentials, as the daemon's account.
    Credentials,
    /// Fetch a file over HTTPS.
    Fetch,
    /// Say how the network is.
    Network,
    /// Reach devices by TCP.
    Reach,
    /// Have the daemon send dead letters again or discard them, as its account.
    Replay,
}

impl Errand {
    const fn name(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::Credentials => "credentials",
            Self::Fetch => "fetch",
            Self::Network => "network",
            Self::Reach => "reach",
            Self::Replay => "replay",
        }
    }

    fn unit(self) -> String {
        format!("vitalgate-errand-{}.service", self.name())
    }

    fn question(self, places: &Places) -> PathBuf {
        places.at(QUESTIONS).join(self.name())
    }

    /// Who reads the answer: everybody, or only the account's group where it holds secrets.
    const fn mode(self) -> u32 {
        match self {
            Self::Credentials => 0o640,
            Self::Before | Self::Fetch | Self::Network | Self::Reach | Self::Replay => 0o644,
        }
    }

    /// The unit's own folder.
    pub(crate) fn folder(self, places: &Places) -> PathBuf {
        places.at(&format!("/run/vitalgate-errand-{}", self.name()))
    }
}

/// Why an errand came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ErrandError {
    /// The question could not be left, or the answer not read.
    #[error("{name} cannot be asked ({reason}); {REMEDY}")]
    File {
        /// The errand.
        name: &'static str,
        /// Why.
        reason: io::Error,
    },
    /// The unit did not start or end as it should.
    #[error(transparent)]
    Unit(#[from] CommandError),
    /// Whoever went could not do it.
    #[error("{0}")]
    Failed(String),
}

/// What comes back.
#[derive(Debug, Serialize, Deserialize)]
enum Answer<A> {
    Done(A),
    Failed(String),
}

/// Sends for an answer.
///
/// # Errors
/// When nobody went, or what was asked for cannot be done.
pub(crate) fn send<A: DeserializeOwned>(
    programs: &dyn Programs,
    places: &Places,
    errand: Errand,
    question: &impl Serialize,
    deadline: Duration,
) -> Result<A, ErrandError> {
    let broken = |reason| ErrandError::File { name: errand.name(), reason };
    let call = |verb| Call::new("systemctl", REMEDY).arguments(["--quiet", "--no-ask-password", verb, &errand.unit()]);
    // One that a power cut or an error left active would not start again.
    programs.run(call("stop"))?;
    leave(&errand.question(places), question, 0o644).map_err(broken)?;
    let started = programs.run(call("start").deadline(deadline + Duration::from_secs(MANAGER_S)));
    let answer = started.map_err(ErrandError::from).and_then(|_ended| read(&errand.folder(places).join(ANSWER)).map_err(broken));
    if let Err(error) = programs.run(call("stop")) {
        say(&error.to_string());
    }
    match answer? {
        Answer::Done(done) => Ok(done),
        Answer::Failed(why) => Err(ErrandError::Failed(why)),
    }
}

/// Goes on an errand; started by its unit.
pub(crate) fn go(errand: Errand) -> anyhow::Result<ExitCode> {
    run(errand, &Places::system(), &System)?;
    Ok(ExitCode::SUCCESS)
}

/// Does what is asked for, and leaves the answer.
pub(crate) fn run(errand: Errand, places: &Places, programs: &dyn Programs) -> anyhow::Result<()> {
    match errand {
        Errand::Before => answer(errand, places, |(): ()| gate::before_now()),
        Errand::Credentials => answer(errand, places, |devices: Vec<String>| provision::make_credentials(places, programs, &devices)),
        Errand::Fetch => answer(errand, places, |wanted: update::Wanted| update::fetch(places, &wanted)),
        Errand::Network => answer(errand, places, |(): ()| support::network(programs)),
        Errand::Reach => answer(errand, places, |devices| Ok(self_test::reach(devices))),
        Errand::Replay => answer(errand, places, |wanted: replay::Wanted| replay::ask_gateway(places, programs, &wanted)),
    }
}

fn answer<Q: DeserializeOwned, A: Serialize>(
    errand: Errand,
    places: &Places,
    work: impl FnOnce(Q) -> anyhow::Result<A>,
) -> anyhow::Result<()> {
    let question = read(&errand.question(places)).context("the question cannot be read")?;
    let answer = work(question).map_or_else(|error| Answer::Failed(format!("{error:#}")), Answer::Done);
    leave(&errand.folder(places).join(ANSWER), &answer, errand.mode()).context("the answer cannot be left")
}

/// Leaves something for another account to read.
fn leave(file: &Path, content: &impl Serialize, mode: u32) -> io::Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    crate::state_file::replace(file, &serde_json::to_vec(content)?, mode)
}

fn read<A: DeserializeOwned>(file: &Path) -> io::Result<A> {
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
    let opened: File = OpenOptions::new().read(true).custom_flags(flags).open(file)?;
    let known = opened.metadata()?;
    if !known.is_file() || known.len() > BYTES_MAX {
        return Err(io::Error::other("it is no answer"));
    }
    let mut bytes = Vec::new();
    opened.take(BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}

/// A service manager for tests of the steps that send somebody.
#[cfg(test)]
pub(crate) mod stand_in {
    use serde_json::Value;

    use super::*;

    /// Which errand this call starts.
    pub(crate) fn started(call: &Call) -> Option<Errand> {
        let line = call.line();
        let all = <Errand as clap::ValueEnum>::value_variants();
        all.iter().copied().find(|errand| line == format!("systemctl --quiet --no-ask-password start {}", errand.unit()))
    }

    /// What was asked.
    pub(crate) fn question(places: &Places, errand: Errand) -> Value {
        read(&errand.question(places)).unwrap()
    }

    /// What comes back.
    pub(crate) fn answer(places: &Places, errand: Errand, answer: Result<Value, &str>) {
        let answer = answer.map_or_else(|why| Answer::Failed(why.to_owned()), Answer::Done);
        leave(&errand.folder(places).join(ANSWER), &answer, errand.mode()).unwrap();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;
    use crate::command::Answer as Called;

    /// A service manager that runs the errand in its place, or leaves something else in the answer's.
    struct Manager<'a> {
        places: &'a Places,
        asked: RefCell<Vec<String>>,
        leaves: &'a dyn Fn(Errand, &Path),
    }

    impl Programs for Manager<'_> {
        fn attempt(&self, call: Call) -> Result<Called, CommandError> {
            self.asked.borrow_mut().push(call.line().replace("systemctl --quiet --no-ask-password ", ""));
            if let Some(errand) = stand_in::started(&call) {
                fs::create_dir_all(errand.folder(self.places)).unwrap();
                (self.leaves)(errand, &errand.folder(self.places).join(ANSWER));
            }
            Ok(Called { success: true, output: b"up\n".to_vec(), ..Called::default() })
        }
    }

    fn ask(errand: Errand, leaves: &dyn Fn(&Places, Errand, &Path)) -> (Result<String, ErrandError>, Vec<String>, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let places = Places::under(folder.path());
        let manager = Manager { places: &places, asked: RefCell::default(), leaves: &|errand, file| leaves(&places, errand, file) };
        let answer = send(&manager, &places, errand, &(), Duration::from_secs(1));
        (answer, manager.asked.into_inner(), folder)
    }

    struct Says(bool);

    impl Programs for Says {
        fn attempt(&self, _: Call) -> Result<Called, CommandError> {
            Ok(Called { success: self.0, output: b"up\n".to_vec(), ..Called::default() })
        }
    }

    /// The unit that goes is stopped before and afterwards, whatever it answers; why it failed is what is said.
    #[test]
    fn somebody_else_goes_and_comes_back() {
        let calls = ["stop", "start", "stop"].map(|verb| format!("{verb} vitalgate-errand-network.service"));
        let (answer, asked, _folder) = ask(Errand::Network, &|places, errand, _| run(errand, places, &Says(true)).unwrap());
        assert_eq!((answer.unwrap().as_str(), asked), ("up\n", calls.to_vec()));
        let (answer, asked, _folder) = ask(Errand::Network, &|places, errand, _| run(errand, places, &Says(false)).unwrap());
        assert!(matches!(answer, Err(ErrandError::Failed(why)) if why.contains("networkctl failed")));
        assert_eq!(asked, calls);
    }

    /// The one who goes is not believed beyond the answer's form: no link is followed, nothing is endless.
    #[test]
    fn an_answer_that_is_none_is_refused() {
        let stranger = tempfile::NamedTempFile::new().unwrap();
        fs::write(&stranger, br#"{"Done":"of root's own"}"#).unwrap();
        let leaves: [&dyn Fn(&Path); 5] = [
            &|_| {},
            &|file| symlink(stranger.path(), file).unwrap(),
            &|file| fs::create_dir(file).unwrap(),
            &|file| fs::write(file, br#"{"Done":[1]}"#).unwrap(),
            &|file| File::create(file).unwrap().set_len(BYTES_MAX + 1).unwrap(),
        ];
        for leave in leaves {
            let (answer, asked, _folder) = ask(Errand::Fetch, &|_, _, file| leave(file));
            assert!(matches!(answer, Err(ErrandError::File { .. })), "{answer:?}");
            assert_eq!(asked.len(), 3);
        }
    }

    /// Secrets are for the group of who made them, and for nobody else.
    #[test]
    fn credentials_are_not_for_everybody() {
        let folder = tempfile::tempdir().unwrap();
        let places = Places::under(folder.path());
        for (errand, mode) in [(Errand::Credentials, 0o640), (Errand::Reach, 0o644)] {
            stand_in::answer(&places, errand, Ok(serde_json::Value::Null));
            let known = fs::metadata(errand.folder(&places).join(ANSWER)).unwrap();
            assert_eq!(known.permissions().mode() & 0o7777, mode);
        }
    }
}
