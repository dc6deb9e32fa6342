//! The state files of the appliance's parts, read as they are: whole, missing, or not readable.

use std::io;
use std::path::Path;

use vitalgate_layout::state::{FACTS_MAX, Part, PartState, STATE_BYTES_MAX};

use crate::text::{plain, read_file};

/// What a part's file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// The part's state.
    State(PartState),
    /// There is no file: the part has not said anything since the start.
    Missing,
    /// There is a file, but it is no state.
    Unreadable(String),
}

/// What all parts say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts(Vec<(Part, Said)>);

impl Parts {
    /// Reads the folder. Whatever lies there, an answer comes back.
    #[must_use]
    pub fn read(folder: &Path) -> Self {
        Self(Part::ALL.into_iter().map(|part| (part, read(&folder.join(part.file_name())))).collect())
    }

    /// Parts that say this, for tests and previews; the others say nothing.
    #[must_use]
    pub fn of(states: impl IntoIterator<Item = (Part, Said)>) -> Self {
        Self(states.into_iter().collect())
    }

    /// What the part says.
    #[must_use]
    pub fn get(&self, part: Part) -> &Said {
        self.0.iter().find(|(one, _)| *one == part).map_or(&Said::Missing, |(_, said)| said)
    }

    /// The part's state, if it said one.
    #[must_use]
    pub fn state(&self, part: Part) -> Option<&PartState> {
        match self.get(part) {
            Said::State(state) => Some(state),
            _ => None,
        }
    }

    /// A fact of a part.
    #[must_use]
    pub fn fact(&self, part: Part, name: &str) -> Option<&str> {
        self.state(part)?.facts.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

fn read(path: &Path) -> Said {
    let bytes = match read_file(path, STATE_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Said::Missing,
        Err(error) => return Said::Unreadable(plain(&error.to_string())),
    };
    match serde_json::from_slice::<PartState>(&bytes) {
        Ok(state) => Said::State(tidy(state)),
        Err(error) => Said::Unreadable(plain(&format!("it is no state of this version: {error}"))),
    }
}

fn tidy(state: PartState) -> PartState {
    let facts = state.facts.iter().take(FACTS_MAX).map(|(name, value)| (plain(name), plain(value))).collect();
    PartState { detail: plain(&state.detail), facts, ..state }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;
    use vitalgate_layout::StateWord;

    use super::*;

    /// A file that is cut, empty, huge, a folder, a pipe or a loop says what is wrong with it, and
    /// nothing waits for it.
    #[test]
    fn whatever_lies_there_is_answered() {
        let folder = tempfile::tempdir().unwrap();
        let put = |part: Part, text: &[u8]| std::fs::write(folder.path().join(part.file_name()), text).unwrap();
        put(Part::Data, b"");
        put(Part::Provision, br#"{"word":"READY","since_unix_ms":"soon"}"#);
        put(Part::Clock, br#"{"word":"HAPPY","since_unix_ms":1}"#);
        put(Part::SelfTest, &vec![b' '; usize::try_from(STATE_BYTES_MAX).unwrap() + 1]);
        std::fs::create_dir(folder.path().join(Part::Update.file_name())).unwrap();
        nix::unistd::mkfifo(&folder.path().join(Part::Slots.file_name()), nix::sys::stat::Mode::S_IRWXU).unwrap();
        symlink(Part::Status.file_name(), folder.path().join(Part::Status.file_name())).unwrap();
        let parts = Parts::read(folder.path());
        for part in Part::ALL {
            assert!(matches!(parts.get(part), Said::Unreadable(reason) if !reason.is_empty()), "{part:?}: {:?}", parts.get(part));
        }
        assert_eq!(*Parts::read(&folder.path().join("nowhere")).get(Part::Data), Said::Missing);
    }

    /// A part that is right is read whole, with what a later version may have added.
    #[test]
    fn a_state_is_read_with_unknown_fields() {
        let folder = tempfile::tempdir().unwrap();
        let text = r#"{"word":"TAMPER","code":3,"detail":"a\nb","since_unix_ms":-5,"later":[1],"facts":{"x":"\u001b[31m"}}"#;
        std::fs::write(folder.path().join(Part::Data.file_name()), text).unwrap();
        let parts = Parts::read(folder.path());
        let state = parts.state(Part::Data).unwrap();
        assert_eq!((state.word, state.code, state.detail.as_str(), state.since_unix_ms), (StateWord::Tamper, Some(3), "a b", -5));
        assert_eq!(parts.fact(Part::Data, "x"), Some(" [31m"));
    }

    proptest! {
        /// No bytes make the reader panic.
        #[test]
        fn no_bytes_stop_it(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join(Part::Data.file_name()), bytes).unwrap();
            let _answer = Parts::read(folder.path());
        }
    }
}
