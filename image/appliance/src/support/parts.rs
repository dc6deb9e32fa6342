//! What goes into the bundle, each part for itself: one that cannot be had is named and stops no other.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use vitalgate_layout::state::Part;
use vitalgate_layout::{path, stick};

use super::redaction::Redaction;
use crate::command::{Call, Programs};
use crate::errand::{self, Errand};
use crate::machine;
use crate::places::Places;
use crate::site_file;
use crate::state_file::now_unix_ms;
use crate::stick::Taken;

/// Lines of the journal, newest last, of this and earlier starts.
const JOURNAL_LINES: &str = "30000";
/// Largest file that is taken, in bytes.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// What one program may take, in seconds: a long journal on a slow disk.
const DEADLINE_S: u64 = 120;

/// What was gathered.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    /// Names and contents.
    pub(super) files: Vec<(String, Vec<u8>)>,
    /// What is not there because nothing of the kind has happened.
    never_written: Vec<String>,
    /// What is missing, and why.
    pub(super) errors: Vec<String>,
}

/// Name in the bundle, program, arguments.
const PROGRAMS: [(&str, &str, &[&str]); 7] = [
    ("journal.jsonl", "journalctl", &["--no-pager", "--quiet", "--output=json", "--lines", JOURNAL_LINES]),
    ("starts.txt", "journalctl", &["--no-pager", "--list-boots"]),
    ("units.txt", "systemctl", &["--no-pager", "--full", "--all", "list-units"]),
    ("slots.json", "rauc", &["status", "--detailed", "--output-format=json-pretty"]),
    ("time.txt", "chronyc", &["-n", "tracking"]),
    ("time-sources.txt", "chronyc", &["-n", "sources", "-v"]),
    ("disk.txt", "lsblk", &["--output", "NAME,SIZE,TYPE,FSTYPE,PARTLABEL,MOUNTPOINTS,MODEL,ROTA"]),
];

/// The daemon's configuration in the bundle: without its patients. The site file is not in it.
const CONFIGURATION: &str = "configuration/vitalgate.toml";

/// Files that every appliance has besides.
const FILES: [(&str, &str); 6] = [
    ("configuration/nftables.conf", path::FIREWALL),
    ("configuration/chrony.conf", path::TIME_SOURCES),
    ("boot.env", path::BOOT_ENV),
    (stick::COMMISSIONING_REPORT, path::COMMISSIONING_REPORT),
    ("os-release", "/usr/lib/os-release"),
    ("kernel.txt", "/proc/version"),
];

/// Files that are there only where something has happened.
const FILES_OF_EVENTS: [(&str, &str); 1] = [("rollback.json", path::LAST_ROLLBACK)];

/// Gathers everything that can be had.
pub(super) fn gather(places: &Places, programs: &dyn Programs, taken: &Taken) -> Gathered {
    // Of a board that was replaced too: its patients are taken out all the same.
    let site = site_file::kept_for_any_serial(places).map(|(site, _)| site);
    let redaction = Redaction::of(site.as_ref().ok());
    let mut gathered = Gathered::default();
    if let Err(error) = &site {
        gathered.errors.push(format!("site file: {error:#}"));
    }
    gathered.keep(CONFIGURATION, text_of(&places.at(path::DAEMON_CONFIG)).and_then(|text| redaction.apply_to_configuration(&text)));
    for (name, file) in FILES {
        gathered.file(name, &places.at(file), &redaction);
    }
    for (name, file) in FILES_OF_EVENTS {
        gathered.file_if_there(name, &places.at(file), &redaction);
    }
    for part in Part::ALL {
        gathered.file_if_there(&format!("state/{}", part.file_name()), &places.at(path::STATE_FOLDER).join(part.file_name()), &redaction);
    }
    for (name, program, arguments) in PROGRAMS {
        let call = Call::new(program, "the rest of the bundle is complete").arguments(arguments).deadline(Duration::from_secs(DEADLINE_S));
        match programs.run(call) {
            Ok(answer) => gathered.files.push((name.to_owned(), redaction.apply(&answer.text()).into_bytes())),
            Err(error) => gathered.errors.push(format!("{name}: {error}")),
        }
    }
    let deadline = Duration::from_secs(DEADLINE_S);
    match errand::send::<String>(programs, places, Errand::Network, &(), deadline) {
        Ok(text) => gathered.files.push(("network.txt".to_owned(), redaction.apply(&text).into_bytes())),
        Err(error) => gathered.errors.push(format!("network.txt: {error}")),
    }
    let about = json!({
        "format": "vitalgate-support-1",
        "serial": machine::serial(places),
        "version": machine::version(places),
        "made": machine::moment(now_unix_ms()),
        "request": { "id": taken.request.id, "technician": taken.request.technician, "reason": taken.request.reason, "signed_by": taken.signed_by.to_string() },
        "never_written": gathered.never_written,
        "missing": gathered.errors,
    });
    gathered.files.insert(0, ("about.json".to_owned(), format!("{about:#}\n").into_bytes()));
    gathered
}

/// How the network is, as whoever sees it says; an errand.
///
/// # Errors
/// When the network's service does not say.
pub(crate) fn network(programs: &dyn Programs) -> anyhow::Result<String> {
    let call = Call::new("networkctl", "the rest of the bundle is complete").arguments(["--no-pager", "status", "--all"]);
    Ok(programs.run(call.deadline(Duration::from_secs(DEADLINE_S)))?.text())
}

impl Gathered {
    fn file_if_there(&mut self, name: &str, file: &Path, redaction: &Redaction) {
        if file.exists() {
            self.file(name, file, redaction);
        } else {
            self.never_written.push(name.to_owned());
        }
    }

    fn file(&mut self, name: &str, file: &Path, redaction: &Redaction) {
        self.keep(name, text_of(file).map(|text| redaction.apply(&text)));
    }

    fn keep(&mut self, name: &str, text: Result<String, String>) {
        match text {
            Ok(text) => self.files.push((name.to_owned(), text.into_bytes())),
            Err(error) => self.errors.push(format!("{name}: {error}")),
        }
    }
}

fn text_of(file: &Path) -> Result<String, String> {
    match fs::metadata(file) {
        Ok(metadata) if metadata.len() > FILE_BYTES_MAX => Err(format!("it has {} bytes", metadata.len())),
        Ok(_) => fs::read(file).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}
