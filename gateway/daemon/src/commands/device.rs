//! `vitalgate device`: who is let in, and with what.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use vitalgate_config::{Config, DeviceSource, Gateway};
use vitalgate_domain::DeviceId;
use vitalgate_trust::{DeviceCertificate, DeviceRegistry, LocalAuthority, Secret, generate_password};

use crate::cli::DeviceAction;
use crate::run::{authority_folder, registry_file};

/// File mode of what holds a secret, and of what everyone may know.
const SECRET_MODE: u32 = 0o600;
const PUBLIC_MODE: u32 = 0o644;

/// Adds, lists or revokes.
pub(super) fn device(path: &Path, action: DeviceAction) -> anyhow::Result<ExitCode> {
    match action {
        DeviceAction::Add { device, output_dir, replace } => add(&super::load(path)?, &device, output_dir.as_deref(), replace)?,
        DeviceAction::List => list(&super::load(path)?)?,
        DeviceAction::Revoke { device } => {
            // Whoever is to be shut out need not stand in the file, nor the file be good.
            let registry = open(&super::places(path)?.gateway)?;
            registry.revoke(&DeviceId::new(&device)?).context("not revoked")?;
            println!("{device} is revoked; a connection it has ends within seconds");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn open(gateway: &Gateway) -> anyhow::Result<DeviceRegistry> {
    DeviceRegistry::open(&registry_file(gateway)).context("the list of devices cannot be opened")
}

fn add(config: &Config, name: &str, output_dir: Option<&Path>, replace: bool) -> anyhow::Result<()> {
    let device = DeviceId::new(name)?;
    let Some(configured) = config.devices.iter().find(|configured| configured.id == device) else {
        bail!("{device} is not in the configuration; add a [[device]] with this id and its profile first");
    };
    if matches!(configured.source, DeviceSource::Modbus(_)) {
        bail!("{device} is polled over Modbus and needs no credentials");
    }
    let registry = open(&config.gateway)?;
    let authority = LocalAuthority::open_or_create(&authority_folder(config), &config.gateway.name).context("no local authority")?;
    let certificate = authority.issue_device(&device).context("no certificate")?;
    let (password, hash) = generate_password().context("no password")?;
    // Nothing counts before it can be handed over: what the device has now stays good until then.
    let written = output_dir.map(|folder| NewFiles::write(folder, &authority, &certificate)).transpose()?;
    let admit = if replace { DeviceRegistry::replace } else { DeviceRegistry::add };
    admit(&registry, &device, Some(certificate.fingerprint), Some(hash)).context("not added")?;
    match written {
        Some(files) => files.hand_over()?,
        None => println!("{}\n{}\n{}", authority.ca_certificate_pem(), certificate.certificate_pem, certificate.key_pem.expose()),
    }
    say(&device, &password);
    Ok(())
}

fn say(device: &DeviceId, password: &Secret) {
    println!("device    {device}");
    println!("client id {device}");
    println!("topics    vitals/{device}/...");
    println!("username  {device}");
    println!("password  {}", password.expose());
    println!("These credentials are shown once and kept nowhere here in clear text.");
}

/// The files of a device, on disk beside those that they replace. They go when they are not handed over.
struct NewFiles<'a> {
    folder: &'a Path,
    written: Vec<(PathBuf, PathBuf)>,
}

impl<'a> NewFiles<'a> {
    fn write(folder: &'a Path, authority: &LocalAuthority, certificate: &DeviceCertificate) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let mut files = Self { folder, written: Vec::new() };
        files.add("ca.pem", authority.ca_certificate_pem(), PUBLIC_MODE)?;
        files.add("certificate.pem", &certificate.certificate_pem, PUBLIC_MODE)?;
        files.add("key.pem", certificate.key_pem.expose(), SECRET_MODE)?;
        Ok(files)
    }

    fn add(&mut self, name: &str, text: &str, mode: u32) -> anyhow::Result<()> {
        let (new, path) = (self.folder.join(format!("{name}.new")), self.folder.join(name));
        let written = write_new(&new, text, mode).with_context(|| format!("cannot write {}; nothing has changed", path.display()));
        self.written.push((new, path));
        written
    }

    fn hand_over(mut self) -> anyhow::Result<()> {
        for (new, path) in std::mem::take(&mut self.written) {
            std::fs::rename(&new, &path)
                .with_context(|| format!("the device is admitted, but {} cannot be renamed to {}", new.display(), path.display()))?;
        }
        let synced = File::open(self.folder).and_then(|folder| folder.sync_all());
        synced.with_context(|| format!("the device is admitted, but {} cannot be synced; add it again", self.folder.display()))?;
        println!("written   {}/{{ca.pem, certificate.pem, key.pem}}", self.folder.display());
        Ok(())
    }
}

impl Drop for NewFiles<'_> {
    fn drop(&mut self) {
        for (new, _) in &self.written {
            // What cannot be removed opens nothing: it was not admitted.
            let _ = std::fs::remove_file(new);
        }
    }
}

/// A file of an earlier try goes first: the mode counts for a new file only.
fn write_new(path: &Path, text: &str, mode: u32) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn list(config: &Config) -> anyhow::Result<()> {
    let registered = open(&config.gateway)?.list();
    for configured in &config.devices {
        let state = match registered.iter().find(|entry| entry.device == configured.id) {
            _ if matches!(configured.source, DeviceSource::Modbus(_)) => "polled".to_owned(),
            Some(entry) if entry.revoked => "revoked".to_owned(),
            Some(entry) => {
                format!("admitted, {} certificates{}", entry.certificates.len(), if entry.has_password { ", password" } else { "" })
            }
            None => "no credentials yet: vitalgate device add".to_owned(),
        };
        println!("{:<32} {:<24} {state}", configured.id, configured.profile);
    }
    for entry in registered.iter().filter(|entry| config.devices.iter().all(|configured| configured.id != entry.device)) {
        println!("{:<32} {:<24} not in the configuration: refused", entry.device, "-");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// Whoever else is on the machine does not look into the folder of the state, also where a command makes it before the first start.
    #[test]
    fn the_folder_of_the_state_is_private_from_the_first_command_on() {
        let folder = tempfile::tempdir().unwrap();
        let (file, state) = (folder.path().join("vitalgate.toml"), folder.path().join("state"));
        std::fs::write(&file, "[gateway]\nname = \"g1\"\nstate_dir = \"state\"\n").unwrap();
        device(&file, DeviceAction::List).unwrap();
        for folder in [&state, &state.join("trust")] {
            assert_eq!(std::fs::metadata(folder).unwrap().permissions().mode() & 0o777, 0o700, "{}", folder.display());
        }
    }
}
