//! `imagectl flash`: read and checked once before the first write, written by block map, read back.

mod block_map;
mod confirm;
mod disks;
mod image;
mod table;
mod target;
mod write;

use std::path::Path;

use crate::cli;
use crate::failure::{Failure, Outcome};
use crate::release::{Sums, version_of};
use crate::{files, say};

use block_map::BlockMap;
use disks::Machine;
use image::Image;
use target::Target;

/// Writes an image, or lists where one could be written to.
pub(crate) fn flash(arguments: &cli::Flash) -> Outcome {
    let machine = Machine::this();
    if arguments.list {
        return list(&machine);
    }
    let (Some(path), Some(to)) = (&arguments.image, &arguments.to) else {
        return Err(Failure::target("image or target is missing", "name both: imagectl flash IMAGE --to TARGET"));
    };
    let size = arguments.size.as_deref().map(bytes_of).transpose()?;
    // Says no before the image is read, which takes a while.
    target::check(&machine, to, path, size)?;
    let image = Image::open(path)?;
    let sums = sums_beside(path, arguments.key.as_deref())?;
    let stated = block_map_beside(path, arguments.bmap.as_deref(), sums.as_ref())?;
    let survey = image.survey(stated)?;
    check_file(path, sums.as_ref(), &survey.file)?;
    let mut target = Target::open(&machine, to, size, survey.map.image_bytes)?;
    if let Some(erased) = target.erased()? {
        let ask: confirm::Ask<'_> = &say::line;
        confirm::confirm(&erased, arguments.erase.as_deref(), say::someone_is_there().then_some(ask))?;
    }
    target.begin()?;
    write::write(&image, &survey, &target)?;
    write::read_back(&survey.map, &target)?;
    let version = version_of(path).map_or_else(|| "-".to_owned(), |version| version.to_string());
    say::result(format_args!("OK {version} {}", survey.file.short()));
    Ok(())
}

/// `imagectl release map`
pub(crate) fn write_block_map(image: &Path, output: &Path) -> Outcome {
    let survey = Image::open(image)?.survey(None)?;
    files::write(output, survey.map.to_xml().as_bytes())?;
    let (mapped, all) = (survey.map.mapped_bytes(), survey.map.image_bytes);
    say::result(format_args!("{} ranges, {} of {} MiB", survey.map.ranges.len(), mapped >> 20, all >> 20));
    Ok(())
}

fn list(machine: &Machine) -> Outcome {
    let disks: Vec<_> = machine.disks()?.into_iter().filter(|disk| disk.removable && disk.bytes > 0).collect();
    if disks.is_empty() {
        say::note("no removable disk; plug one in, or name a disk yourself with --to");
    }
    for disk in disks {
        say::result(&disk);
    }
    Ok(())
}

/// The release's list beside the image; it must be there and genuine when a key is given.
fn sums_beside(image: &Path, key: Option<&str>) -> Outcome<Option<Sums>> {
    let folder = image.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match key {
        Some(key) => Sums::read(folder, Some(&files::public_key(key)?)).map(Some),
        None => {
            say::note("no --key: the release's signature is not checked here; the appliance checks itself at every start");
            if folder.join("SHA256SUMS").exists() { Sums::read(folder, None).map(Some) } else { Ok(None) }
        }
    }
}

fn block_map_beside(image: &Path, named: Option<&Path>, sums: Option<&Sums>) -> Outcome<Option<BlockMap>> {
    let name = image.to_string_lossy();
    let stem = name.strip_suffix(".zst").unwrap_or(&name);
    let beside = [format!("{stem}.bmap"), format!("{}.bmap", stem.strip_suffix(".img").unwrap_or(stem))];
    let path = match named {
        Some(path) => path.to_owned(),
        None => match beside.iter().map(Path::new).find(|path| path.exists()) {
            Some(path) => path.to_owned(),
            None => return Ok(None),
        },
    };
    let text = files::read_text(&path)?;
    check_listed(&path, sums, || Ok(crate::digest::Digest::of(text.as_bytes())))?;
    let read = BlockMap::parse(&text);
    read.map(Some).map_err(|what| Failure::refused(format!("{}: {what}", path.display()), "download the block map again"))
}

fn check_file(path: &Path, sums: Option<&Sums>, found: &crate::digest::Digest) -> Outcome {
    check_listed(path, sums, || Ok(*found))
}

/// What the release lists must be what it lists.
fn check_listed(path: &Path, sums: Option<&Sums>, found: impl Fn() -> Outcome<crate::digest::Digest>) -> Outcome {
    let Some(sums) = sums else { return Ok(()) };
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    match sums.files.get(&name) {
        None => Err(Failure::refused(
            format!("{name} is not in SHA256SUMS"),
            "download the whole release into one folder; write only files of it",
        )),
        Some(wanted) if *wanted != found()? => {
            Err(Failure::refused(format!("{name} is damaged: its hash is not the release's"), "download it again"))
        }
        Some(_) => Ok(()),
    }
}

/// `2GiB`, `512MiB`, `1024KiB` or bytes.
fn bytes_of(text: &str) -> Outcome<u64> {
    let digits = text.len() - text.trim_start_matches(|one: char| one.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim() {
        "" | "B" => Some(0),
        "KiB" | "K" => Some(10),
        "MiB" | "M" => Some(20),
        "GiB" | "G" => Some(30),
        "TiB" | "T" => Some(40),
        _ => None,
    };
    let bytes = number.parse::<u64>().ok().zip(shift).and_then(|(number, shift)| number.checked_mul(1 << shift));
    bytes.filter(|bytes| *bytes > 0).ok_or_else(|| Failure::target(format!("\"{text}\" is no size"), "write it as 2GiB or 512MiB"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(bytes_of("2GiB").unwrap(), 2 << 30);
        assert_eq!(bytes_of("512").unwrap(), 512);
        for bad in ["", "2 GB", "x", "0", "99999999999TiB", "-1"] {
            assert!(bytes_of(bad).is_err(), "{bad}");
        }
    }
}
