//! `imagectl provision`: site files and the keys for them.

mod dialog;

use std::path::{Path, PathBuf};

use vitalgate_layout::Rejection;
use vitalgate_layout::stick::{SITE_FILE, SITE_FILE_BYTES_MAX};
use vitalgate_site::{Delegation, PublicKey, Purpose, Signer, SigningKey, Site, SiteError, SiteFile, open_signed};

use crate::cli::{self, Provision, Right};
use crate::failure::{Failure, Outcome};
use crate::{files, say, signer};

/// A site file with every section, for `--template`.
const TEMPLATE: &str = include_str!("provision/template.toml");

/// How the text is called where no other name is given.
const TEXT_FILE: &str = "site.toml";

/// `imagectl provision ...`
pub(crate) fn run(command: Provision) -> Outcome {
    match command {
        Provision::New(arguments) => new(&arguments),
        Provision::Sign(arguments) => sign(&arguments),
        Provision::Keygen(arguments) => keygen(&arguments.name),
        Provision::Delegate(arguments) => delegate(&arguments),
        Provision::Check(arguments) => check(&arguments),
    }
}

fn new(arguments: &cli::New) -> Outcome {
    let signer = signer::named(&arguments.signer, Purpose::Site)?;
    let output = arguments.output.clone().unwrap_or_else(|| PathBuf::from(if signer.is_some() { SITE_FILE } else { TEXT_FILE }));
    files::must_be_new(&output)?;
    if arguments.template {
        files::write_new(&output, TEMPLATE.as_bytes())?;
        say::result(format_args!("wrote {}: fill it in, then imagectl provision sign", output.display()));
        return Ok(());
    }
    let text = match &arguments.from {
        Some(path) => {
            let text = text_of(path)?;
            checked(&text, &path.display().to_string())?;
            if signer.is_none() {
                files::write_new(&output, text.as_bytes())?;
            }
            text
        }
        None => asked(&if signer.is_some() { output.with_extension("toml") } else { output.clone() })?,
    };
    if let Some(signer) = signer {
        return sign_to(&text, &signer, &output);
    }
    say::result(format_args!("wrote {}: read it, then imagectl provision sign", output.display()));
    Ok(())
}

/// Asks for a site. Every section is in the file before the next one is asked for, and before anything is said against it.
fn asked(file: &Path) -> Outcome<String> {
    files::must_be_new(file)?;
    let asked = dialog::ask(&mut say::ask, &mut |section| files::append(file, section.as_bytes()));
    if file.exists() {
        say::note(format_args!("the answers are in {}", file.display()));
    }
    let text = asked?;
    checked(&text, &file.display().to_string())?;
    Ok(text)
}

fn sign(arguments: &cli::Sign) -> Outcome {
    let text = text_of(&arguments.file)?;
    checked(&text, &arguments.file.display().to_string())?;
    sign_to(&text, &signer::needed(&arguments.signer, Purpose::Site)?, &arguments.output)
}

fn sign_to(text: &str, signer: &Signer, output: &Path) -> Outcome {
    let signed = vitalgate_site::sign(text, signer).map_err(|error| signer::unsigned(&error))?;
    let site = checked(&signed, SITE_FILE)?;
    if site.expires < files::today() {
        return Err(Failure::refused(format!("the file expired on {}", site.expires), "set a later date in expires"));
    }
    files::write(output, signed.as_bytes())?;
    say::result(format_args!("signed {} with key {}", output.display(), signer.public().fingerprint()));
    summary(&site);
    signer::note_early_end(signer, site.expires);
    if output.file_name().is_none_or(|name| name != SITE_FILE) {
        say::note(format_args!("on the stick it must be called {SITE_FILE}"));
    }
    Ok(())
}

fn check(arguments: &cli::Check) -> Outcome {
    let name = arguments.file.display().to_string();
    if arguments.root.is_empty() {
        let site = checked(&text_of(&arguments.file)?, &name)?;
        may_follow(&site, arguments)?;
        say::result(format_args!("{name}: the text is right; its signature was not checked (--root)"));
        summary(&site);
        return Ok(());
    }
    let roots: Vec<PublicKey> = arguments.root.iter().map(|root| files::public_key(root)).collect::<Outcome<_>>()?;
    let bytes = files::read(&arguments.file, files::TEXT_BYTES_MAX)?;
    let serial = match &arguments.serial {
        Some(serial) => serial.clone(),
        None => any_serial(&bytes),
    };
    match open_signed(&bytes, &roots, &serial, files::today()) {
        Ok((site, signed_by)) => {
            may_follow(&site, arguments)?;
            say::result(format_args!("{name}: right, and signed by {signed_by}"));
            summary(&site);
            Ok(())
        }
        Err(refusal) => {
            refusal.errors().iter().for_each(say::note);
            let rejection = refusal.rejection();
            let detail = if refusal.detail().is_empty() { String::new() } else { format!(": {}", refusal.detail()) };
            Err(Failure::refused(format!("{name} would be refused with PROVISION-REJECTED{rejection}{detail}"), rejection.remedy()))
        }
    }
}

/// Whether it may follow the site file in service, where that one is given.
fn may_follow(site: &Site, arguments: &cli::Check) -> Outcome {
    let Some(before) = &arguments.after else { return Ok(()) };
    let obstacles = site.obstacles_after(&checked(&text_of(before)?, &before.display().to_string())?);
    if obstacles.is_empty() {
        return Ok(());
    }
    obstacles.iter().for_each(say::note);
    let rejection = Rejection::NoSuccessor;
    Err(Failure::refused(format!("{} would be refused with PROVISION-REJECTED{rejection}", arguments.file.display()), rejection.remedy()))
}

/// A serial number that the file is for, so that nothing but the serial number is left out of the check.
fn any_serial(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    match SiteFile::check(&text, SITE_FILE).map(|site| site.serial) {
        Ok(vitalgate_site::Serial::OneOf(serials)) => serials.first().map(|one| one.trim_end_matches('*').to_owned()).unwrap_or_default(),
        _ => String::new(),
    }
}

fn keygen(name: &Path) -> Outcome {
    let failed = |error: vitalgate_site::KeyError| Failure::machine(format!("the key {error}"), "try again on another machine");
    let key = SigningKey::generate().map_err(failed)?;
    let (private, public) = (with_end(name, "key"), with_end(name, "pub"));
    if public.exists() {
        return Err(Failure::machine(
            format!("{} is there already", public.display()),
            "take another name; a key that is lost cannot be made again",
        ));
    }
    files::write_secret(&private, key.to_pem().map_err(failed)?.as_bytes())?;
    files::write(&public, format!("{}\n", key.public().to_hex()).as_bytes())?;
    say::result(format_args!("wrote {} (keep it secret) and {}", private.display(), public.display()));
    say::result(format_args!("fingerprint {}", key.public().fingerprint()));
    Ok(())
}

pub(crate) fn with_end(name: &Path, end: &str) -> PathBuf {
    let mut path = name.as_os_str().to_owned();
    path.push(".");
    path.push(end);
    PathBuf::from(path)
}

fn delegate(arguments: &cli::Delegate) -> Outcome {
    let root = files::signing_key(&arguments.key)?;
    let to = files::public_key(&arguments.to)?;
    let expires = files::day(&arguments.expires)?;
    if expires < files::today() {
        return Err(Failure::refused(format!("{expires} has passed"), "give a later day"));
    }
    let purposes: Vec<_> = arguments
        .rights
        .iter()
        .map(|right| match right {
            Right::Site => Purpose::Site,
            Right::Request => Purpose::Request,
        })
        .collect();
    let granted = Delegation::grant(&root, to, &arguments.name, expires, &purposes);
    let delegation = granted.map_err(|what| Failure::refused(what, "correct --name or --for"))?;
    files::write_new(&arguments.output, delegation.to_text().as_bytes())?;
    say::result(format_args!("{} (key {}) may sign until {expires}: {}", arguments.name, to.fingerprint(), arguments.output.display()));
    Ok(())
}

fn text_of(path: &Path) -> Outcome<String> {
    files::text(path, files::read(path, SITE_FILE_BYTES_MAX)?)
}

/// Checks a text and says everything that is wrong with it.
fn checked(text: &str, name: &str) -> Outcome<Site> {
    SiteFile::check(text, name).map_err(|errors| with_errors(&errors))
}

fn with_errors(errors: &[SiteError]) -> Failure {
    errors.iter().for_each(say::note);
    let count = if errors.len() == 1 { "1 error".to_owned() } else { format!("{} errors", errors.len()) };
    Failure::refused(format!("the site file has {count}"), "correct the lines above")
}

fn summary(site: &Site) {
    say::result(format_args!("  site       {} (gateway {})", site.name, site.gateway));
    say::result(format_args!("  serial     {}, until {}", site.serial, site.expires));
    say::result(format_args!("  technician {}", site.technician));
    say::result(format_args!("  devices    {}, destinations {}", site.devices.len(), site.destinations.len()));
    for destination in &site.client_certificate_for {
        say::result(format_args!("  to {destination} it identifies itself by its own certificate: the commissioning report holds it"));
    }
    for warning in site.warnings() {
        say::result(format_args!("  note       {warning}"));
    }
}
