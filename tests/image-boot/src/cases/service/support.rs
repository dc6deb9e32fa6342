//! A signed request gets a bundle that only support opens, with everything in it that the manual promises
//! and neither patients nor secrets.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::Value;
use vitalgate_layout::stick as labels;

use super::{OTHER_SERIAL, READINGS_WITHIN, SERIAL, SOME, SUPPORT, answered, exactly_once, folder, stick};
use crate::appliance::Appliance;
use crate::command;
use crate::evidence::{Evidence, figure};
use crate::image::{self, Image};
use crate::machine::Running;
use crate::practice::{PATIENT_MARK, POLLED, PUBLISHERS};

const REPORT: &str = "support-report.txt";
/// What the manual promises, by the files that hold it, and a word that shows that it is the thing itself.
const PROMISED: [(&str, &str); 16] = [
    ("about.json", SERIAL),
    ("journal.jsonl", "vitalgate.service"),
    ("starts.txt", " 0 "),
    ("units.txt", "vitalgate-update.timer"),
    ("slots.json", "rootfs"),
    ("time.txt", "Stratum"),
    ("time-sources.txt", "10.0.2.2"),
    ("network.txt", "10.0.2.15"),
    ("disk.txt", "verity-b"),
    ("configuration/vitalgate.toml", "boot-test-01"),
    ("configuration/nftables.conf", "policy drop"),
    ("configuration/chrony.conf", "server 10.0.2.2"),
    ("commissioning-report.json", "fingerprints"),
    ("state/data.json", "READY"),
    ("state/clock.json", "source-1"),
    ("os-release", "IMAGE_VERSION"),
];
/// What no bundle may hold, whoever it belongs to.
const MARKS: [&str; 2] = ["PRIVATE KEY-----", "AGE-SECRET-KEY"];
/// Shortest line of a key file that is looked for: shorter ones would hit anything.
const SECRET_CHARS_MIN: usize = 20;

pub(super) async fn run(first: &Image, evidence: &mut Evidence) -> anyhow::Result<()> {
    let mut appliance = Appliance::commissioned(first, "service-machine", evidence).await?;
    let mut devices = appliance.devices()?;
    let mut running = appliance.boot(evidence).await?;
    devices.more(SOME, READINGS_WITHIN).await?;
    refused(&mut running, evidence).await?;

    let stick = stick(evidence, "support", SUPPORT, SERIAL).await?;
    let began = std::time::Instant::now();
    let said = answered(&mut running, &stick, REPORT).await.with_context(|| running.console.end())?;
    figure("support_bundle_s", crate::evidence::tenths(began.elapsed().as_secs_f64()))?;
    evidence.say(&format!("after {:.0} s on the stick: {said:?}", began.elapsed().as_secs_f64()));
    evidence.check("nothing is missing in the bundle", !said.contains("Missing") && !said.contains("REFUSED"));
    let back = folder(evidence, "support-stick")?;
    stick.read_back(&back).await?;
    let sealed = sealed_in(&back)?.context("no bundle on the stick")?;
    evidence.check(&format!("a bundle is on the stick: {}", sealed.display()), true);

    let again = answered_again(&mut running, &stick).await?;
    evidence.check(&format!("the same request again is refused: {again:?}"), again.contains("REFUSED (19)"));
    exactly_once(&appliance, &mut devices, evidence).await?;
    running.cut().await?;

    let opened = open(&sealed, evidence).await?;
    promised(&opened, evidence)?;
    nothing_secret(&opened, &appliance, evidence)
}

/// Another appliance's request gets nothing.
async fn refused(running: &mut Running, evidence: &mut Evidence) -> anyhow::Result<()> {
    let wrong = stick(evidence, "support-other", SUPPORT, OTHER_SERIAL).await?;
    let said = answered(running, &wrong, REPORT).await?;
    let back = folder(evidence, "support-other-stick")?;
    wrong.read_back(&back).await?;
    let nothing = sealed_in(&back)?.is_none();
    evidence.check("a request for another appliance is refused (16) and gets no bundle", said.contains("REFUSED (16)") && nothing);
    Ok(())
}

/// The report of the first time is taken away, so that the next one is told from it.
async fn answered_again(running: &mut Running, stick: &crate::stick::Stick) -> anyhow::Result<String> {
    stick.remove(REPORT).await?;
    answered(running, stick, REPORT).await
}

fn sealed_in(folder: &Path) -> anyhow::Result<Option<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        files.push(entry?.path());
    }
    Ok(files.into_iter().find(|file| file.extension().is_some_and(|ending| ending == "age")))
}

/// A bundle's files by their names; what is no text is made one.
type Files = Vec<(String, String)>;

/// Decrypts with support's key, and not with another; unpacks. The files by their names.
async fn open(sealed: &Path, evidence: &mut Evidence) -> anyhow::Result<Files> {
    let stranger = evidence.folder().join("stranger");
    image::imagectl(["support".into(), "keygen".into(), stranger.clone().into_os_string()]).await?;
    let archive = evidence.folder().join("support.tar");
    let decrypt = |key: PathBuf| {
        let line: [OsString; 7] = [
            "support".into(),
            "decrypt".into(),
            sealed.into(),
            "--key".into(),
            key.into_os_string(),
            "--output".into(),
            archive.clone().into_os_string(),
        ];
        image::imagectl(line)
    };
    evidence.check("a stranger's key does not open it", decrypt(stranger.with_extension("key")).await.is_err() && !archive.exists());
    let opened = decrypt(image::keys().join("support/key")).await;
    evidence.outcome("support's key opens it", opened).context("no archive")?;
    let closed = text(sealed)?;
    evidence.check("nothing can be read in it as it is", !closed.contains("vitalgate.service") && !closed.contains("boot-test-01"));

    let folder = folder(evidence, "support")?;
    command::run("tar", ["-xf".as_ref(), archive.as_os_str(), "-C".as_ref(), folder.as_os_str()]).await?;
    let names = command::run("tar", ["-tf".as_ref(), archive.as_os_str()]).await?;
    let mut files = Vec::new();
    for name in names.lines() {
        files.push((name.to_owned(), text(&folder.join(name))?));
    }
    Ok(files)
}

fn promised(files: &Files, evidence: &mut Evidence) -> anyhow::Result<()> {
    let sizes: Vec<_> = files.iter().map(|(name, text)| format!("{name} {}", text.len())).collect();
    evidence.say(&format!("in the bundle: {}", sizes.join(", ")));
    for (name, word) in PROMISED {
        let there = files.iter().any(|(file, text)| file == name && text.contains(word));
        evidence.check(&format!("{name} is in the bundle and tells of {word:?}"), there);
    }
    let file = |name: &str| files.iter().find(|(file, _)| file == name).map(|(_, text)| text.as_str()).unwrap_or_default();
    let about: Value = serde_json::from_str(file("about.json")).context("about.json is no JSON")?;
    evidence.check(&format!("nothing is missing: {}", about["missing"]), about["missing"].as_array().is_some_and(Vec::is_empty));
    let parsed: Vec<bool> = file("journal.jsonl").lines().map(|line| serde_json::from_str::<Value>(line).is_ok()).collect();
    evidence.check(
        &format!("every one of {} lines of the journal is JSON", parsed.len()),
        parsed.len() > 100 && parsed.iter().all(|good| *good),
    );
    Ok(())
}

/// Neither a patient nor anything that opens something; and a search that would find it.
fn nothing_secret(files: &Files, appliance: &Appliance, evidence: &mut Evidence) -> anyhow::Result<()> {
    let all: String = files.iter().map(|(_, text)| text.as_str()).collect();
    let found = PUBLISHERS.iter().chain([&POLLED]).all(|device| all.contains(device));
    evidence.check("the search finds the devices, which are there", found);
    let taken_out = all.matches(r#"patient = "[patient]""#).count();
    evidence.check(&format!("{taken_out} patients were taken out of the configuration"), taken_out > PUBLISHERS.len());
    evidence.check("no patient is named", !all.contains(PATIENT_MARK));

    let mut secrets = Vec::new();
    for device in PUBLISHERS {
        for name in ["key.pem", "credentials.txt"] {
            secrets_of(&appliance.handed_over.join(labels::DEVICES).join(device).join(name), &mut secrets)?;
        }
    }
    secrets_of(&appliance.handed_over.join(labels::RECOVERY_KEY), &mut secrets)?;
    let keys = image::keys();
    for name in ["pcr/private.pem", "rauc/ca.key", "rauc/release.key", "release/key", "site/root.key", "support/key"] {
        secrets_of(&keys.join(name), &mut secrets)?;
    }
    for name in ["PK.key", "KEK.key", "db.key"] {
        secrets_of(&keys.join("secureboot").join(name), &mut secrets)?;
    }
    let leaked: Vec<_> = secrets.iter().filter(|(_, secret)| all.contains(secret.as_str())).map(|(file, _)| file.clone()).collect();
    evidence.check(
        &format!("none of {} pieces of keys and passwords is in it: {leaked:?}", secrets.len()),
        secrets.len() > 50 && leaked.is_empty(),
    );
    let marks: Vec<_> = MARKS.iter().filter(|mark| all.contains(**mark)).collect();
    evidence.check(&format!("nothing in it looks like a private key: {marks:?}"), marks.is_empty());
    Ok(())
}

/// The words of a file that are long enough to be secret: not its headings.
fn secrets_of(file: &Path, secrets: &mut Vec<(String, String)>) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?;
    let lines = text.lines().filter(|line| !line.starts_with("-----") && !line.starts_with('#'));
    let words = lines.flat_map(str::split_whitespace).filter(|word| word.len() >= SECRET_CHARS_MIN);
    secrets.extend(words.map(|word| (file.display().to_string(), word.to_owned())));
    Ok(())
}

fn text(file: &Path) -> anyhow::Result<String> {
    let bytes = std::fs::read(file).with_context(|| format!("{} cannot be read", file.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
