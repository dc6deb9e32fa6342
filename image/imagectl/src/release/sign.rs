//! `imagectl release sign`

use std::path::Path;

use super::sums::{LIST, SIGNATURE, hash_file, machine_and_version};
use crate::failure::{Failure, Outcome};
use crate::{files, say};

/// Lists every file of a folder with what the release is, and signs the list.
pub(crate) fn sign(folder: &Path, key: &Path, support_end: &str) -> Outcome {
    let key = files::signing_key(key)?;
    let support_end = files::day(support_end)?;
    let entries = std::fs::read_dir(folder).map_err(|error| Failure::unreadable(folder, &error))?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| Failure::unreadable(folder, &error))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type().is_ok_and(|kind| kind.is_file()) && name != LIST && name != SIGNATURE {
            names.push(name);
        }
    }
    names.sort();
    let Some((machine, version)) = names.iter().find_map(|name| machine_and_version(name)) else {
        let what = format!("{} holds no file named vitalgate-<machine>-<version>", folder.display());
        return Err(Failure::refused(what, "name the folder of one release"));
    };
    if let Some(other) = names.iter().find(|name| machine_and_version(name).is_some_and(|found| found != (machine, version))) {
        return Err(Failure::refused(
            format!("{other} is of another machine or version than {machine} {version}"),
            "move it to its own folder",
        ));
    }
    let mut list = format!("# machine: {machine}\n# version: {version}\n# support-end: {support_end}\n");
    for name in &names {
        list.push_str(&format!("{}  {name}\n", hash_file(&folder.join(name))?.hex()));
    }
    files::write(&folder.join(LIST), list.as_bytes())?;
    files::write(&folder.join(SIGNATURE), &key.sign_bytes(list.as_bytes()))?;
    say::result(format_args!("signed {} files of {machine} {version}, supported until {support_end}", names.len()));
    Ok(())
}
