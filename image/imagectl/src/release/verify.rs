//! `imagectl verify`

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::sums::{LIST, SIGNATURE, Sums, folder_of, hash_file, machine_and_version};
use crate::cli;
use crate::failure::{Failure, Outcome};
use crate::{files, say};

/// Checks a folder, or some files of one.
pub(crate) fn verify(arguments: &cli::Verify) -> Outcome {
    let key = files::public_key(&arguments.key)?;
    let (folder, chosen) = folder_and_names(&arguments.paths)?;
    let sums = Sums::read(&folder, Some(&key))?;
    say::result(format_args!("signature  OK by key {}", key.fingerprint()));
    let names: Vec<String> = match chosen {
        Some(names) => names,
        None => sums.files.keys().cloned().collect(),
    };
    for name in &names {
        check_hash(&folder, name, &sums)?;
    }
    let (machine, version) = machine_version(&sums)?;
    say::result(format_args!("machine    {machine}"));
    say::result(format_args!("version    {version}"));
    if let Some(wanted) = &arguments.machine
        && *wanted != machine
    {
        return Err(Failure::refused(format!("the release is for {machine}, not {wanted}"), "download the release for this machine"));
    }
    match sums.support_end {
        None => say::result("support    no end is stated"),
        Some(day) if day >= files::today() => say::result(format_args!("support    until {day}")),
        Some(day) if arguments.unsupported => say::result(format_args!("support    ENDED on {day}")),
        Some(day) => return Err(Failure::refused(format!("support for version {version} ended on {day}"), "use a newer release")),
    }
    Ok(())
}

/// One folder, and the names in it unless all are meant.
fn folder_and_names(paths: &[PathBuf]) -> Outcome<(PathBuf, Option<Vec<String>>)> {
    let mut names = BTreeSet::new();
    let mut folders = BTreeSet::new();
    let mut whole = false;
    for path in paths {
        if path.is_dir() {
            whole = true;
            folders.insert(path.clone());
        } else {
            folders.insert(folder_of(path));
            names.extend(path.file_name().map(|name| name.to_string_lossy().into_owned()));
        }
    }
    names.retain(|name| name != LIST && name != SIGNATURE);
    let mut folders = folders.into_iter();
    match (folders.next(), folders.next()) {
        (Some(folder), None) => Ok((folder, (!whole && !names.is_empty()).then(|| names.into_iter().collect()))),
        _ => Err(Failure::refused("the files lie in several folders", "check one release at a time")),
    }
}

fn check_hash(folder: &Path, name: &str, sums: &Sums) -> Outcome {
    let Some(wanted) = sums.files.get(name) else {
        return Err(Failure::refused(format!("{name} is not in {LIST}"), "do not use it; it does not belong to this release"));
    };
    let found = hash_file(&folder.join(name))?;
    if found != *wanted {
        return Err(Failure::refused(format!("{name} is not what was signed"), "download it again"));
    }
    say::result(format_args!("hash       OK {} {name}", found.short()));
    Ok(())
}

/// Machine and version, as stated and as the names say.
fn machine_version(sums: &Sums) -> Outcome<(String, String)> {
    let named = sums.files.keys().filter_map(|name| machine_and_version(name));
    let mut all: BTreeSet<(String, String)> = named.map(|(machine, version)| (machine.to_owned(), version.to_string())).collect();
    all.extend(sums.machine.clone().zip(sums.version.clone()));
    let mut all = all.into_iter();
    match (all.next(), all.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => Err(Failure::refused(format!("{LIST} names no machine and version"), "this is no release of Vitalgate")),
        (Some(one), Some(other)) => {
            let what = format!("{LIST} mixes {} {} and {} {}", one.0, one.1, other.0, other.1);
            Err(Failure::refused(what, "download one release into a folder of its own"))
        }
    }
}
