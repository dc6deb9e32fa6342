//! `vitalgate device`: who is let in, and with what.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use vitalgate_config::{Config, DeviceSource};
use vitalgate_domain::DeviceId;
use vitalgate_trust::{DeviceCertificate, DeviceRegistry, LocalAuthority, Secret, generate_password};

use crate::cli::DeviceAction;
use crate::run::{authority_folder, registry_file};

/// Adds, lists or revokes.
pub(super) fn device(config: &Config, action: DeviceAction) -> anyhow::Result<ExitCode> {
    std::fs::create_dir_all(&config.gateway.state_dir).with_context(|| format!("cannot make {}", config.gateway.state_dir.display()))?;
    let registry = DeviceRegistry::open(&registry_file(config)).context("the list of devices cannot be opened")?;
    match action {
        DeviceAction::Add { device, output_dir, replace } => add(config, &registry, &device, output_dir.as_deref(), replace)?,
        DeviceAction::List => list(config, &registry),
        DeviceAction::Revoke { device } => {
            registry.revoke(&DeviceId::new(&device)?).context("not revoked")?;
            println!("{device} is revoked; a connection it has ends within seconds");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn add(config: &Config, registry: &DeviceRegistry, name: &str, output_dir: Option<&Path>, replace: bool) -> anyhow::Result<()> {
    let device = DeviceId::new(name)?;
    let Some(configured) = config.devices.iter().find(|configured| configured.id == device) else {
        bail!("{device} is not in the configuration; add a [[device]] with this id and its profile first");
    };
    if matches!(configured.source, DeviceSource::Modbus(_)) {
        bail!("{device} is polled over Modbus and needs no credentials");
    }
    let authority = LocalAuthority::open_or_create(&authority_folder(config), &config.gateway.name).context("no local authority")?;
    let certificate = authority.issue_device(&device).context("no certificate")?;
    let (password, hash) = generate_password().context("no password")?;
    let admit = if replace { DeviceRegistry::replace } else { DeviceRegistry::add };
    admit(registry, &device, Some(certificate.fingerprint), Some(hash)).context("not added")?;
    match output_dir {
        Some(folder) => write_files(folder, &authority, &certificate)?,
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

fn write_files(folder: &Path, authority: &LocalAuthority, certificate: &DeviceCertificate) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let files = [
        ("ca.pem", authority.ca_certificate_pem(), 0o644),
        ("certificate.pem", certificate.certificate_pem.as_str(), 0o644),
        ("key.pem", certificate.key_pem.expose(), 0o600),
    ];
    for (name, text, mode) in files {
        let path = folder.join(name);
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .open(&path)
            .and_then(|mut file| file.write_all(text.as_bytes()));
        written.with_context(|| format!("cannot write {}", path.display()))?;
    }
    println!("written   {}/{{ca.pem, certificate.pem, key.pem}}", folder.display());
    Ok(())
}

fn list(config: &Config, registry: &DeviceRegistry) {
    let registered = registry.list();
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
}
