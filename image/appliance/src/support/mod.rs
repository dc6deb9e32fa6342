//! The support bundle: what somebody far away needs to see, without patients and without secrets, sealed
//! so that only support opens it. What could not be gathered is listed in it.

mod archive;
mod parts;
mod redaction;

#[cfg(test)]
mod tests;

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use vitalgate_layout::{path, stick};
use vitalgate_site::Action;
use vitalgate_site::age::{self, Recipient};

use crate::command::Programs;
use crate::machine;
use crate::places::Places;
use crate::state_file::now_unix_ms;
use crate::stick::{Mounted, Taken, heading, take, tell_refused, write_file};
use crate::text::for_windows;

pub(crate) use parts::network;

/// What became of the request, on the stick.
const REPORT: &str = "support-report.txt";
/// What helps where the bundle could not be written.
const REMEDY: &str = "take a stick with more room free (64 MB are enough) and plug it in; the request is still good";

/// Writes the bundle to a mounted stick, if the request on it is signed.
///
/// # Errors
/// When the stick is not writable or nothing can be sealed.
pub(crate) fn support(places: &Places, programs: &dyn Programs, mounted: Box<dyn Mounted>) -> anyhow::Result<()> {
    let taken = match take(places, &*mounted, stick::SUPPORT_REQUEST, &[Action::Support]) {
        Ok(taken) => taken,
        Err(refusal) => {
            tell_refused(&refusal, places, &*mounted, REPORT)?;
            mounted.finish()?;
            anyhow::bail!("SUPPORT: {refusal}");
        }
    };
    mounted.check_writable()?;
    let name = format!("support-{}-{}.tar.age", machine::serial(places), now_unix_ms() / 1000);
    let bundle = mounted.folder().join(&name);
    let written = write(places, programs, &taken, &bundle);
    let text = match &written {
        Ok(text) => text.clone(),
        Err(error) => {
            // Half a bundle would be sent to support for a whole one.
            if let Err(error) = fs::remove_file(&bundle) {
                crate::cli::say(&format!("{name}: {error}"));
            }
            format!("{}NOT DONE: {error:#}\nWhat to do: {REMEDY}\n", heading(places))
        }
    };
    write_file(&mounted.folder().join(REPORT), for_windows(&text).as_bytes())?;
    mounted.finish()?;
    written.context("SUPPORT")?;
    taken.remember().context("the request cannot be remembered as done")?;
    crate::cli::say(&format!("support bundle written: {name}"));
    Ok(())
}

/// Writes the bundle and gives the report on it.
fn write(places: &Places, programs: &dyn Programs, taken: &Taken, bundle: &Path) -> anyhow::Result<String> {
    let recipient = recipient(places)?;
    let gathered = parts::gather(places, programs, taken);
    let sealed = age::seal(&archive::tar(&gathered.files), &recipient).context("the bundle cannot be sealed")?;
    write_file(bundle, &sealed).with_context(|| format!("the bundle has {} bytes", sealed.len()))?;
    let name = bundle.file_name().unwrap_or_default().to_string_lossy();
    let mut text =
        format!("{}{name}: {} bytes, for {}, signed by {}\n", heading(places), sealed.len(), taken.request.technician, taken.signed_by);
    text.push_str("It holds no patient data and only support can open it. Send it to support.\n");
    for error in &gathered.errors {
        text.push_str(&format!("Missing: {error}\n"));
    }
    Ok(text)
}

fn recipient(places: &Places) -> anyhow::Result<Recipient> {
    let file = places.at(path::TRUST).join(path::SUPPORT_RECIPIENT);
    let text = fs::read_to_string(&file).with_context(|| format!("{} is missing: flash the appliance anew", file.display()))?;
    Recipient::parse(text.trim()).map_err(|error| anyhow::anyhow!("{}: {error}", file.display()))
}
