//! Factory reset and decommissioning: everything that was stored becomes unreadable, by its keys.
//!
//! The order makes it impossible to end half erased and in use: first the partition is called
//! unfinished, so that whatever happens from here on the next start makes it anew; then the slots of
//! all keys are destroyed, the header is overwritten and the disk is told that it may forget the rest.

#[cfg(test)]
mod tests;

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::Serialize;
use vitalgate_layout::{path, stick};
use vitalgate_site::{Action, ReportError, Signer, SigningKey, seal_report_json, seal_report_text};

use crate::command::{Call, CommandError, Programs};
use crate::machine;
use crate::places::Places;
use crate::report;
use crate::state_file::now_unix_ms;
use crate::stick::{Mounted, Taken, heading, take, tell_refused, write_file};
use crate::storage::{self, Partition};
use crate::text::for_windows;

/// What became of the request, on the stick.
const REPORT: &str = "reset-report.txt";
/// The signed certificate, on the stick.
const CERTIFICATE: &str = "erase-certificate.json";
/// The same for a person.
const CERTIFICATE_TEXT: &str = "erase-certificate.txt";
/// LUKS2 keeps its two headers and all key slots in front of the data, which begins at 16 MiB (LUKS2
/// On-Disk Format 1.1, section 2); twice that is overwritten.
const HEADER_MIB: usize = 32;
/// What erasing may take, in seconds: a large disk that really erases what it is told to forget.
const ERASE_DEADLINE_S: u64 = 1800;

/// What `cryptsetup isLuks` ends with where there is no header (cryptsetup(8), "RETURN CODES").
const NO_HEADER: i32 = 1;
/// How the complaint of a program ends whose disk cannot do what it is asked (errno(3), `EOPNOTSUPP`).
const NOT_SUPPORTED: &str = "Operation not supported";
/// Said of a disk that was told what it may forget.
const DISCARDED: &str = "yes";

/// Said of a certificate that something else signs than the reports of before.
const KEY_FOR_THIS: &str = "a key made for this certificate: the appliance's own was not accessible";
const ANOTHER_REQUEST: &str = "Each request is carried out once: for another try let imagectl make a new one.";

/// What was erased.
#[derive(Debug, Default, Serialize)]
struct Certificate {
    format: &'static str,
    serial: String,
    version: String,
    request: String,
    action: String,
    technician: String,
    reason: String,
    signed_by: String,
    erased: String,
    clock: &'static str,
    volume: String,
    key_slots: &'static str,
    header: String,
    key_beside: &'static str,
    discarded: bool,
    discard: String,
    signature_by: &'static str,
}

/// Erases, if the request on a mounted stick is signed, and restarts or switches off.
///
/// # Errors
/// When the request is refused, the stick takes no certificate, or the disk does not do as told.
pub(crate) fn reset(places: &Places, programs: &dyn Programs, mounted: Box<dyn Mounted>) -> anyhow::Result<()> {
    let taken = match take(places, &*mounted, stick::RESET_REQUEST, &[Action::Reset, Action::Decommission]) {
        Ok(taken) => taken,
        Err(refusal) => {
            tell_refused(&refusal, places, &*mounted, REPORT)?;
            mounted.finish()?;
            bail!("RESET: {refusal}");
        }
    };
    mounted.check_writable()?;
    let begun = format!(
        "{}{} begun; without a certificate beside this file it was cut off. Power on: if the appliance asks for its site file, it \
         is erased; if it goes on in service, it is not, and needs a new request.\n",
        heading(places),
        taken.request.action
    );
    write_file(&mounted.folder().join(REPORT), for_windows(&begun).as_bytes())?;
    let remembered = taken.remember().context("the request cannot be remembered, so that it would be done again and again");
    let partition = match remembered.and_then(|()| give_up(places, programs)) {
        Ok(partition) => partition,
        Err(error) => {
            tell_end(places, mounted, &format!("NOT DONE: {error:#}; nothing was erased. {ANOTHER_REQUEST}"));
            return Err(error);
        }
    };
    let action = taken.request.action;
    let (text, ended) = match erase(places, programs, &taken, &partition) {
        Ok((certificate, key)) => certified(action, write_certificate(&*mounted, certificate, &key)),
        Err(error) => (format!("NOT DONE: {error:#}. {} {ANOTHER_REQUEST}", what_follows(action)), Err(error)),
    };
    tell_end(places, mounted, &text);
    // However it ended: what goes on running would store what is lost with the next start.
    leave(programs, action).and(ended)
}

/// Calls the partition unfinished: what it holds is not used again, whatever becomes of the rest.
fn give_up(places: &Places, programs: &dyn Programs) -> anyhow::Result<Partition> {
    let Some(partition) = storage::data_partition(places, programs)? else { bail!("there is no data partition; nothing is stored") };
    storage::give_up(programs, &partition)?;
    Ok(partition)
}

/// What becomes of an appliance that is not erased for certain.
const fn what_follows(action: Action) -> &'static str {
    match action {
        Action::Decommission => "The appliance switches off; with the next start it makes its storage anew.",
        _ => "The appliance restarts and makes its storage anew.",
    }
}

/// Says on stick and console how it ended. A stick that is gone by now stops nothing.
fn tell_end(places: &Places, mounted: Box<dyn Mounted>, text: &str) {
    crate::cli::say(&format!("RESET: {text}"));
    let report = for_windows(&format!("{}{text}\n", heading(places)));
    if let Err(error) = write_file(&mounted.folder().join(REPORT), report.as_bytes()).and_then(|()| mounted.finish()) {
        crate::cli::say(&format!("the report is not on the stick: {error}"));
    }
}

/// What is said of what was erased.
fn certified(action: Action, written: anyhow::Result<()>) -> (String, anyhow::Result<()>) {
    match written {
        Ok(()) => (format!("{action} done; the certificate is beside this file"), Ok(())),
        Err(error) => (format!("{action} done, but the certificate of it is not on the stick: {error:#}"), Err(error)),
    }
}

/// Erases what a partition holds; gives the certificate of that, and the key to sign it with.
fn erase(places: &Places, programs: &dyn Programs, taken: &Taken, partition: &Partition) -> anyhow::Result<(Certificate, Signer)> {
    // Signed with the key that the commissioning report was signed with, as long as that can be read.
    let (key, signature_by) = match report::existing_key(places) {
        Some(key) => (key, "the appliance's own key"),
        None => (Signer::root(SigningKey::generate()?), KEY_FOR_THIS),
    };
    let volume = volume_name(programs, partition);
    // A volume whose header is gone already has no slots to destroy.
    let slots = programs.attempt(luks("luksErase", partition).arguments(["--batch-mode"]))?;
    overwrite(&partition.device)
        .with_context(|| format!("the header on {} cannot be overwritten; destroy the disk", partition.device.display()))?;
    let key_beside = erase_key_beside(places).context("the key beside the storage cannot be removed; destroy the disk")?;
    check_no_header(programs, partition)?;
    let discard = discard(programs, partition);
    let certificate = Certificate {
        format: "vitalgate-erase-1",
        serial: machine::serial(places),
        version: machine::version(places),
        request: taken.request.id.clone(),
        action: taken.request.action.to_string(),
        technician: taken.request.technician.clone(),
        reason: taken.request.reason.clone(),
        signed_by: taken.signed_by.to_string(),
        erased: machine::moment(now_unix_ms()),
        clock: clock(places),
        volume,
        key_slots: if slots.success { "destroyed" } else { "overwritten" },
        header: format!("{HEADER_MIB} MiB overwritten with zeros, read back as no header"),
        key_beside,
        discarded: discard == DISCARDED,
        discard,
        signature_by,
    };
    Ok((certificate, key))
}

/// How far the moment of the certificate is known.
fn clock(places: &Places) -> &'static str {
    match fs::read_to_string(places.at(path::CLOCK_TRUST)).unwrap_or_default().trim() {
        "unset" => "not set since power-on: the moment above is not known",
        "free" => "ran by itself: the moment above is by its battery",
        "synchronised" => "followed a time source that is not authenticated",
        "authenticated" => "followed authenticated time sources",
        _ => "not known",
    }
}

/// Erases the key of storage without a seal; says what became of it.
fn erase_key_beside(places: &Places) -> io::Result<&'static str> {
    let key = places.at(path::UNSEALED_KEY);
    let said = if key.try_exists()? { "overwritten and removed" } else { "none" };
    storage::erase_key(&key).map(|()| said)
}

/// Looks for the header once more. Only the answer that there is none counts: a disk may as well not answer any more.
fn check_no_header(programs: &dyn Programs, partition: &Partition) -> anyhow::Result<()> {
    let device = partition.device.display();
    match programs.attempt(luks("isLuks", partition))?.code {
        Some(NO_HEADER) => Ok(()),
        Some(0) => bail!("{device} still has a header; destroy the disk"),
        _ => bail!("whether {device} still has a header cannot be read back; destroy the disk"),
    }
}

/// Tells the disk that it may forget the rest; says what became of that.
fn discard(programs: &dyn Programs, partition: &Partition) -> String {
    let call = Call::new("blkdiscard", "without its keys nothing on it can be read").arguments(["--force"]).arguments([&partition.device]);
    match programs.run(call.deadline(Duration::from_secs(ERASE_DEADLINE_S))) {
        Ok(_) => DISCARDED.to_owned(),
        Err(CommandError::Failed { complaint, .. }) if complaint.ends_with(NOT_SUPPORTED) => "not supported".to_owned(),
        Err(error) => format!("failed: {error}"),
    }
}

fn luks(what: &str, partition: &Partition) -> Call {
    Call::new("cryptsetup", "destroy the disk").arguments([what]).arguments([&partition.device])
}

/// The identity of the volume, which the certificate names.
fn volume_name(programs: &dyn Programs, partition: &Partition) -> String {
    let answer = programs.attempt(luks("luksUUID", partition));
    answer.ok().filter(|answer| answer.success).map_or_else(|| "without a header".to_owned(), |answer| answer.text().trim().to_owned())
}

fn overwrite(device: &Path) -> io::Result<()> {
    let mut opened = OpenOptions::new().write(true).open(device)?;
    let zeros = vec![0; 1 << 20];
    for _ in 0..HEADER_MIB {
        opened.write_all(&zeros)?;
    }
    opened.sync_all()
}

fn write_certificate(mounted: &dyn Mounted, mut certificate: Certificate, key: &Signer) -> anyhow::Result<()> {
    let (json, text) = match sealed(&certificate, key) {
        Err(ReportError::NotSigned(why)) => {
            crate::cli::say(&why);
            certificate.signature_by = KEY_FOR_THIS;
            sealed(&certificate, &Signer::root(SigningKey::generate()?))
        }
        ended => ended,
    }?;
    write_file(&mounted.folder().join(CERTIFICATE), json.as_bytes())?;
    Ok(write_file(&mounted.folder().join(CERTIFICATE_TEXT), for_windows(&text).as_bytes())?)
}

/// The certificate for programs and for people.
fn sealed(certificate: &Certificate, key: &Signer) -> Result<(String, String), ReportError> {
    let json = serde_json::to_string_pretty(certificate)?;
    let rows = [
        ("Serial number", certificate.serial.as_str()),
        ("Action", &certificate.action),
        ("Request", &certificate.request),
        ("Technician", &certificate.technician),
        ("Reason", &certificate.reason),
        ("Signed by", &certificate.signed_by),
        ("Erased", &certificate.erased),
        ("Clock", certificate.clock),
        ("Volume", &certificate.volume),
        ("Keys", certificate.key_slots),
        ("Header", &certificate.header),
        ("Key beside it", certificate.key_beside),
        ("Disk discarded", &certificate.discard),
        ("This is signed by", certificate.signature_by),
    ];
    let lines: String = rows.iter().map(|(name, value)| format!("{name:<18} {value}\n")).collect();
    let text = format!("Vitalgate: certificate of erasure\n=================================\n\n{lines}");
    Ok((seal_report_json(&json, key)?, seal_report_text(&text, key)?))
}

/// At once: nothing that still runs has anything left to store.
fn leave(programs: &dyn Programs, action: Action) -> anyhow::Result<()> {
    let verb = if action == Action::Decommission { "poweroff" } else { "reboot" };
    programs.run(Call::new("systemctl", "switch the appliance off and on").arguments(["--force", verb]))?;
    Ok(())
}
