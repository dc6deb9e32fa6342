//! The lights of a machine: a folder with one folder a light, as the kernel shows them (sysfs, ABI
//! `sysfs-class-led` and `sysfs-class-led-multicolor`).
//!
//! Only `brightness` is written while a light is used. The kernel's own timers (triggers) are switched off: they
//! would go on showing a word after the program that knows it has died, and their files belong to root.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::name::{Name, chosen, shows};
use super::rhythm::colour_name;
use crate::page::panel::Tone;
use crate::text::read_file;

/// Largest file of a light, in bytes: the list of triggers has some hundred names.
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// Most lights that are looked at.
const LIGHTS_MAX: usize = 64;
/// Looks after which a light that cannot be taken is said: its files change hands only after it appeared.
const FAILED_LOOKS_MAX: u32 = 10;
/// The trigger that is none.
const NO_TRIGGER: &str = "none";

/// What a light was before it was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Before {
    trigger: Option<String>,
    brightness: String,
    intensity: Option<String>,
}

/// A light in use.
#[derive(Debug)]
struct Light {
    folder: PathBuf,
    name: Name,
    brightness_max: u32,
    /// Colours of its parts, in the order of its file; empty for one colour.
    parts: Vec<String>,
    /// What was written last.
    lit: Option<Tone>,
}

/// The lights in use.
#[derive(Debug)]
pub(crate) struct Panel {
    folder: PathBuf,
    lights: Vec<Light>,
    before: BTreeMap<String, Before>,
    failed_looks: u32,
}

impl Panel {
    /// Those of this folder; none until the first look.
    pub(crate) fn of(folder: PathBuf) -> Self {
        Self { folder, lights: Vec::new(), before: BTreeMap::new(), failed_looks: 0 }
    }

    /// Whether there is nothing to light.
    pub(crate) fn is_empty(&self) -> bool {
        self.lights.is_empty()
    }

    /// Takes lights that appeared and forgets those that went. What goes wrong is answered once, for the log.
    pub(crate) fn look(&mut self) -> Option<String> {
        let chosen = chosen(self.names());
        let (kept, left) = std::mem::take(&mut self.lights).into_iter().partition(|light| chosen.contains(&light.name));
        self.lights = kept;
        left.iter().for_each(|light: &Light| self.give_back(light));
        let used: BTreeSet<&str> = chosen.iter().map(|name| name.full.as_str()).collect();
        self.before.retain(|name, _| used.contains(name.as_str()));
        let mut failed = None;
        for name in chosen {
            if self.lights.iter().any(|light| light.name == name) {
                continue;
            }
            let full = name.full.clone();
            if let Err(error) = self.take(name) {
                failed = Some(format!("the light {full} cannot be used: {error}"));
            }
        }
        self.failed_looks = if failed.is_some() { self.failed_looks.saturating_add(1) } else { self.failed_looks };
        failed.filter(|_| self.failed_looks == FAILED_LOOKS_MAX)
    }

    fn names(&self) -> Vec<Name> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        entries.filter_map(|entry| Name::parse(entry.file_name().to_str()?)).take(LIGHTS_MAX).collect()
    }

    fn take(&mut self, name: Name) -> io::Result<()> {
        let folder = self.folder.join(&name.full);
        let brightness_max = read(&folder.join("max_brightness"))?.parse().map_err(io::Error::other)?;
        let parts =
            read(&folder.join("multi_index")).map(|parts| parts.split_whitespace().map(str::to_owned).collect()).unwrap_or_default();
        if !self.before.contains_key(&name.full) {
            let triggers = read(&folder.join("trigger")).unwrap_or_default();
            let active = triggers.split_whitespace().find_map(|trigger| trigger.strip_prefix('[')?.strip_suffix(']'));
            let before = Before {
                trigger: active.map(str::to_owned),
                brightness: read(&folder.join("brightness"))?,
                intensity: read(&folder.join("multi_intensity")).ok(),
            };
            self.before.insert(name.full.clone(), before);
        }
        if self.before.get(&name.full).is_some_and(|before| before.trigger.is_some()) {
            write(&folder.join("trigger"), NO_TRIGGER)?;
        }
        let mut light = Light { folder, name, brightness_max, parts, lit: Some(Tone::Unknown) };
        light.set(None)?;
        self.lights.push(light);
        Ok(())
    }

    /// Lights those that show this tone, or none.
    pub(crate) fn show(&mut self, tone: Tone, lit: bool) {
        let chosen: Vec<Name> = self.lights.iter().map(|light| light.name.clone()).collect();
        // One that does not take it is taken anew at the next look, or is gone.
        self.lights.retain_mut(|light| light.set((lit && shows(&chosen, &light.name, tone)).then_some(tone)).is_ok());
    }

    /// Every light becomes what it was.
    pub(crate) fn give_all_back(&mut self) {
        for light in std::mem::take(&mut self.lights) {
            self.give_back(&light);
        }
    }

    fn give_back(&self, light: &Light) {
        let Some(before) = self.before.get(&light.name.full) else { return };
        let put = |file: &str, value: &str| {
            // One that is gone wants nothing back.
            let _ = write(&light.folder.join(file), value);
        };
        before.intensity.iter().for_each(|intensity| put("multi_intensity", intensity));
        // Brightness first: writing 0 takes a trigger away.
        put("brightness", &before.brightness);
        before.trigger.iter().filter(|trigger| *trigger != NO_TRIGGER).for_each(|trigger| put("trigger", trigger));
    }
}

impl Light {
    /// Lit in the colour of a tone, or dark.
    fn set(&mut self, lit: Option<Tone>) -> io::Result<()> {
        if self.lit == lit {
            return Ok(());
        }
        if let Some(tone) = lit.filter(|_| !self.parts.is_empty()) {
            let parts: Vec<String> = self.parts.iter().map(|part| self.intensity(part, tone).to_string()).collect();
            write(&self.folder.join("multi_intensity"), &parts.join(" "))?;
        }
        let brightness = if lit.is_some() { self.brightness_max } else { 0 };
        write(&self.folder.join("brightness"), &brightness.to_string())?;
        self.lit = lit;
        Ok(())
    }

    /// How much of a part makes the colour of a tone; amber is red with some green.
    fn intensity(&self, part: &str, tone: Tone) -> u32 {
        match (colour_name(tone), part) {
            ("amber", "red") => self.brightness_max,
            ("amber", "green") => self.brightness_max / 3,
            (colour, part) if colour == part => self.brightness_max,
            _ => 0,
        }
    }
}

fn read(file: &Path) -> io::Result<String> {
    let bytes = read_file(file, FILE_BYTES_MAX)?;
    Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
}

fn write(file: &Path, value: &str) -> io::Result<()> {
    OpenOptions::new().write(true).truncate(true).open(file)?.write_all(value.as_bytes())
}

#[cfg(test)]
mod tests;
