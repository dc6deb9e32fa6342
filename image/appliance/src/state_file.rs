//! The state files: what a part of the appliance says, for the status page and the console.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use vitalgate_layout::path;
use vitalgate_layout::state::{Part, PartState, STATE_BYTES_MAX, StateWord};

use crate::places::Places;

/// The folder of the state files.
#[derive(Debug, Clone)]
pub(crate) struct StateFiles {
    folder: PathBuf,
}

impl StateFiles {
    /// Those below a root.
    pub(crate) fn of(places: &Places) -> Self {
        Self { folder: places.at(path::STATE_FOLDER) }
    }

    /// What the part said last, if it can be read.
    pub(crate) fn read(&self, part: Part) -> Option<PartState> {
        let file = self.folder.join(part.file_name());
        if fs::metadata(&file).ok()?.len() > STATE_BYTES_MAX {
            return None;
        }
        serde_json::from_slice(&fs::read(file).ok()?).ok()
    }

    /// Says something; the moment it began stays while word and number stay.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn say(&self, part: Part, said: Said<'_>) -> io::Result<()> {
        let before = self.read(part).filter(|before| before.word == said.word && before.code == said.code);
        let state = PartState {
            word: said.word,
            code: said.code,
            detail: said.detail.to_owned(),
            since_unix_ms: before.map_or_else(now_unix_ms, |before| before.since_unix_ms),
            facts: said.facts,
        };
        self.write(part, &state)
    }

    /// Writes a whole state.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn write(&self, part: Part, state: &PartState) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        let mut text = serde_json::to_vec(state)?;
        text.push(b'\n');
        replace(&self.folder.join(part.file_name()), &text, 0o644)
    }
}

/// What is said.
#[derive(Debug, Clone)]
pub(crate) struct Said<'a> {
    /// The condition.
    pub(crate) word: StateWord,
    /// Number of the reason.
    pub(crate) code: Option<u16>,
    /// Reason and remedy.
    pub(crate) detail: &'a str,
    /// What else there is to show.
    pub(crate) facts: BTreeMap<String, String>,
}

impl<'a> Said<'a> {
    /// A word and its reason.
    pub(crate) const fn new(word: StateWord, detail: &'a str) -> Self {
        Self { word, code: None, detail, facts: BTreeMap::new() }
    }
}

/// Now, in Unix milliseconds; 0 before 1970.
pub(crate) fn now_unix_ms() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Replaces a file: whoever reads sees the old bytes or the new ones, and after a power cut too.
///
/// # Errors
/// When the folder does not take the new file.
pub(crate) fn replace(file: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = folder.join(name);
    remove_if_there(&temporary)?;
    let mut opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
    // Whatever mask the unit has: the status page reads state files.
    opened.set_permissions(fs::Permissions::from_mode(mode))?;
    opened.write_all(bytes)?;
    opened.sync_all()?;
    fs::rename(&temporary, file)?;
    // On the boot partition: vfat gives the new name a length of 0 until the file itself is written once more.
    opened.sync_all()?;
    fs::File::open(folder)?.sync_all()
}

/// Removes a file for certain: after a power cut it is gone too. One that is not there is gone already.
///
/// # Errors
/// When it stays, or its folder cannot be synced.
pub(crate) fn remove(file: &Path) -> io::Result<()> {
    remove_if_there(file)?;
    fs::File::open(file.parent().unwrap_or(Path::new(".")))?.sync_all()
}

fn remove_if_there(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The page shows since when a condition holds, not when it was last looked at.
    #[test]
    fn the_beginning_stays_while_the_word_stays() {
        let folder = tempfile::tempdir().unwrap();
        let files = StateFiles::of(&Places::under(folder.path()));
        let old = PartState { word: StateWord::Tamper, code: None, detail: "first".into(), since_unix_ms: 5, facts: BTreeMap::new() };
        files.write(Part::Data, &old).unwrap();

        files.say(Part::Data, Said::new(StateWord::Tamper, "again")).unwrap();
        let same = files.read(Part::Data).unwrap();
        assert_eq!((same.since_unix_ms, same.detail.as_str()), (5, "again"));

        files.say(Part::Data, Said::new(StateWord::Ready, "")).unwrap();
        assert!(files.read(Part::Data).unwrap().since_unix_ms > 5);
    }

    /// The status page reads what root wrote, and nobody else reads a secret.
    #[test]
    fn a_file_has_the_mode_it_was_given() {
        let folder = tempfile::tempdir().unwrap();
        for mode in [0o644, 0o600, 0o666] {
            replace(&folder.path().join("file"), b"", mode).unwrap();
            assert_eq!(fs::metadata(folder.path().join("file")).unwrap().permissions().mode() & 0o777, mode);
        }
    }

    /// A file of anything else is no state, and no reason to stop.
    #[test]
    fn garbage_is_no_state() {
        let folder = tempfile::tempdir().unwrap();
        let places = Places::under(folder.path());
        let files = StateFiles::of(&places);
        files.say(Part::Clock, Said::new(StateWord::Ready, "")).unwrap();
        fs::write(places.at(path::STATE_FOLDER).join(Part::Clock.file_name()), b"{").unwrap();
        assert!(files.read(Part::Clock).is_none());
        files.say(Part::Clock, Said::new(StateWord::Ready, "")).unwrap();
        assert!(files.read(Part::Clock).is_some());
    }
}
