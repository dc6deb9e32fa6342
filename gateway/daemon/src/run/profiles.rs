//! The profiles of the site, beside the built-in ones.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use vitalgate_profile::{PROFILE_FILE_BYTES_MAX, Profiles};

/// The built-in profiles and those of the configured folder that can be used, and every fault of the others, a line each.
pub(crate) fn profiles(folder: Option<&Path>) -> (Profiles, Vec<String>) {
    let mut faults = Vec::new();
    let mut profiles = Profiles::builtin().unwrap_or_else(|errors| {
        faults.push(format!("a built-in profile is wrong: {errors}"));
        Profiles::default()
    });
    let Some(folder) = folder else { return (profiles, faults) };
    let files = listed(folder).unwrap_or_else(|error| {
        faults.push(format!("cannot read the profiles' folder {}: {error}", folder.display()));
        Vec::new()
    });
    for path in files {
        match text_of(&path) {
            Ok(text) => {
                if let Err(errors) = profiles.load(&path.display().to_string(), &text) {
                    faults.extend(errors.0.iter().map(ToString::to_string));
                }
            }
            Err(error) => faults.push(format!("cannot read {}: {error}", path.display())),
        }
    }
    (profiles, faults)
}

/// The folder's profiles, sorted: which of two with one id comes first must not be the disk's choice.
fn listed(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let paths = std::fs::read_dir(folder)?.map(|file| file.map(|file| file.path()));
    let mut paths = paths.collect::<std::io::Result<Vec<_>>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.sort();
    Ok(paths)
}

/// The text of one. What is no file is not opened: a pipe would wait for whoever writes to it.
fn text_of(path: &Path) -> std::io::Result<String> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(std::io::Error::other("it is no file"));
    }
    let mut text = String::new();
    // A byte more shows those that are too large, which are refused with the others.
    File::open(path)?.take(PROFILE_FILE_BYTES_MAX as u64 + 1).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every error at once: a file that is wrong hides neither those after it nor the good ones.
    #[test]
    fn every_fault_of_every_profile_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let good = include_str!("../../../../device-drivers/profile/profiles/vitals-modbus.toml").replace("vitals-modbus", "own");
        for (name, text) in [("a.toml", "id = \"a\"\n"), ("b.toml", &good), ("c.toml", "["), ("d.txt", "no profile")] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        std::fs::write(folder.path().join("e.toml"), [0xFF]).unwrap();
        let (profiles, faults) = profiles(Some(folder.path()));
        assert!(profiles.get("own").is_some() && profiles.get("vitals-json").is_some());
        let of = |name: &str| faults.iter().filter(|fault| fault.contains(name)).count();
        assert!(of("a.toml") >= 2 && of("c.toml") >= 1 && of("e.toml") == 1, "{faults:?}");
        assert_eq!(of("a.toml") + of("c.toml") + of("e.toml"), faults.len(), "{faults:?}");
        assert!(faults.iter().all(|fault| !fault.contains('\n')), "{faults:?}");
    }

    /// Check and start come to an end whatever lies in the folder: nobody writes to a pipe, and no file is read without end.
    #[test]
    fn a_pipe_and_an_endless_file_are_faults_like_others() {
        const ENDLESS_BYTES: u64 = 1 << 40;
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe.toml");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::fs::File::create(folder.path().join("endless.toml")).unwrap().set_len(ENDLESS_BYTES).unwrap();
        std::fs::create_dir(folder.path().join("folder.toml")).unwrap();
        let (done, answer) = std::sync::mpsc::channel();
        let place = folder.path().to_owned();
        std::thread::spawn(move || done.send(profiles(Some(&place)).1));
        let faults = answer.recv_timeout(std::time::Duration::from_secs(60)).expect("an answer");
        let said = |name: &str, what: &str| faults.iter().any(|fault| fault.contains(name) && fault.contains(what));
        assert!(said("pipe.toml", "it is no file") && said("folder.toml", "it is no file"), "{faults:?}");
        assert!(said("endless.toml", "is larger than") && faults.len() == 3, "{faults:?}");
    }
}
