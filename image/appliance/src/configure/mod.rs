//! Configuration files of this boot, made from the site file.

use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use vitalgate_layout::path;
use vitalgate_site::Site;

use crate::command::{Call, Programs, System};
use crate::identity;
use crate::places::Places;
use crate::site_file;
use crate::state_file::replace;

/// Mode of a file that every account reads.
const EVERYBODYS: u32 = 0o644;
/// Mode of a file that names patients: for root and for the gateway, whose group the unit of this step has.
const GATEWAYS: u32 = 0o640;

/// Makes them and puts the firewall in force.
pub(crate) fn configure() -> anyhow::Result<ExitCode> {
    let places = Places::system();
    apply(&site_file::kept(&places)?, &places, &System)?;
    crate::cli::say("configured from the site file");
    Ok(ExitCode::SUCCESS)
}

/// Writes every file that the site file makes, and loads the firewall. Doing it again changes nothing.
///
/// # Errors
/// When a file cannot be written or the firewall refuses its rules.
pub(crate) fn apply(site: &Site, places: &Places, programs: &dyn Programs) -> anyhow::Result<()> {
    write_files(site, places).context("the site's files cannot be written; restart the appliance")?;
    let call = Call::new("nft", "the old rules stay in force; install the appliance's image anew");
    programs.run(call.arguments(["-f"]).arguments([places.at(path::FIREWALL)]))?;
    Ok(())
}

fn write_files(site: &Site, places: &Places) -> io::Result<()> {
    let authorities = vitalgate_site::extra_files(site);
    fill(&places.at(path::SITE_AUTHORITIES), &authorities.iter().map(|(file, text)| (name(file), text.as_str())).collect::<Vec<_>>())?;
    let networks = vitalgate_site::render_network(site);
    fill(&places.at(path::NETWORK), &networks.iter().map(|(file, text)| (file.as_str(), text.as_str())).collect::<Vec<_>>())?;
    write(&places.at(path::FIREWALL), &vitalgate_site::render_firewall(site))?;
    write(&places.at(path::TIME_SOURCES), &vitalgate_site::render_time(site))?;
    write_for(GATEWAYS, &places.at(path::DAEMON_CONFIG), &vitalgate_site::render_daemon_config(site))?;
    if !site.client_certificate_for.is_empty() {
        let shown = identity::shown(places).ok_or_else(|| io::Error::other(identity::MISSING))?;
        write(&places.at(path::CLIENT_CERTIFICATE), &shown.chain.pem)?;
    }
    Ok(())
}

fn name(file: &str) -> &str {
    file.rsplit('/').next().unwrap_or(file)
}

/// Makes a folder hold these files and no others.
fn fill(folder: &Path, files: &[(&str, &str)]) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if !files.iter().any(|(name, _)| entry.file_name() == *name) {
            fs::remove_file(entry.path())?;
        }
    }
    files.iter().try_for_each(|(name, text)| write(&folder.join(name), text))
}

/// Writes a file that every account may read: it holds no secret and names no patient.
fn write(file: &Path, text: &str) -> io::Result<()> {
    write_for(EVERYBODYS, file, text)
}

/// Writes a file with that mode. A file that is right is left alone.
fn write_for(mode: u32, file: &Path, text: &str) -> io::Result<()> {
    if fs::read(file).is_ok_and(|before| before == text.as_bytes()) {
        return Ok(());
    }
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    replace(file, text.as_bytes(), mode)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::os::unix::fs::PermissionsExt as _;

    use vitalgate_site::SiteFile;

    use super::*;
    use crate::command::{Answer, CommandError};

    /// Takes every call and remembers it.
    #[derive(Default)]
    struct Recorder(RefCell<Vec<String>>);

    impl Programs for Recorder {
        fn attempt(&self, call: Call) -> Result<Answer, CommandError> {
            self.0.borrow_mut().push(call.line());
            Ok(Answer { success: true, ..Answer::default() })
        }
    }

    /// Every file is there, the daemon reads its own, and a second time changes nothing but takes away
    /// what the site no longer has.
    #[test]
    fn a_site_is_applied_whole_and_again() {
        let folder = tempfile::tempdir().unwrap();
        let places = Places::under(folder.path());
        let site = SiteFile::check(crate::provision::SITE_EXAMPLE, "site").unwrap();
        let recorder = Recorder::default();
        apply(&site, &places, &recorder).unwrap();
        let config = fs::read_to_string(places.at(path::DAEMON_CONFIG)).unwrap();
        vitalgate_config::check(&config, "vitalgate.toml").unwrap();
        // It names patients: of the accounts only the gateway's group, which the unit gives its files, reads it.
        let mode = |file| fs::metadata(places.at(file)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(path::DAEMON_CONFIG), mode(path::FIREWALL), mode(path::TIME_SOURCES)), (0o640, 0o644, 0o644));
        let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../rootfs/usr/lib/systemd/system/vitalgate-configure.service");
        assert!(
            fs::read_to_string(unit).unwrap().lines().any(|line| line == "Group=vitalgate"),
            "the gateway cannot read its configuration"
        );
        assert!(fs::read_to_string(places.at(path::FIREWALL)).unwrap().contains("\nflush ruleset\n"));

        fs::write(places.at(path::NETWORK).join("90-old.network"), "").unwrap();
        apply(&site, &places, &recorder).unwrap();
        assert!(!places.at(path::NETWORK).join("90-old.network").exists());
        assert_eq!(fs::read_to_string(places.at(path::DAEMON_CONFIG)).unwrap(), config);
        assert_eq!(*recorder.0.borrow(), vec![format!("nft -f {}", places.at(path::FIREWALL).display()); 2]);
    }
}
