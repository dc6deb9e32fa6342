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
    for (file, text) in [
        (path::FIREWALL, vitalgate_site::render_firewall(site)),
        (path::TIME_SOURCES, vitalgate_site::render_time(site)),
        (path::DAEMON_CONFIG, vitalgate_site::render_daemon_config(site)),
    ] {
        write(&places.at(file), &text)?;
    }
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

/// Writes a file that every account may read; it holds no secret. A file that is right is left alone.
fn write(file: &Path, text: &str) -> io::Result<()> {
    if fs::read(file).is_ok_and(|before| before == text.as_bytes()) {
        return Ok(());
    }
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    replace(file, text.as_bytes(), 0o644)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

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
        assert!(fs::read_to_string(places.at(path::FIREWALL)).unwrap().contains("\nflush ruleset\n"));

        fs::write(places.at(path::NETWORK).join("90-old.network"), "").unwrap();
        apply(&site, &places, &recorder).unwrap();
        assert!(!places.at(path::NETWORK).join("90-old.network").exists());
        assert_eq!(fs::read_to_string(places.at(path::DAEMON_CONFIG)).unwrap(), config);
        assert_eq!(*recorder.0.borrow(), vec![format!("nft -f {}", places.at(path::FIREWALL).display()); 2]);
    }
}
