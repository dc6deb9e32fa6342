//! `imagectl request`: what a stick SUPPORT, RESET, REPLAY or CERTIFICATE carries.

use std::path::{Path, PathBuf};

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use vitalgate_layout::stick::{CERTIFICATE, CERTIFICATE_REQUEST, REPLAY, REPLAY_REQUEST, RESET, RESET_REQUEST, SUPPORT, SUPPORT_REQUEST};
use vitalgate_site::{Action, DeadLetterSelector, Discard, Purpose, Request, Serial, sign_request};
use vitalgate_trust::{ClientChain, ClientChainError};

use crate::cli::{self, RequestAction};
use crate::digest::hex;
use crate::failure::{Failure, Outcome};
use crate::{client_certificate, files, say, signer};

/// Makes and signs a request.
pub(crate) fn make(arguments: &cli::Request) -> Outcome {
    let signer = signer::needed(&arguments.signer, Purpose::Request)?;
    let (action, label, name) = match arguments.action {
        RequestAction::Support => (Action::Support, SUPPORT, SUPPORT_REQUEST),
        RequestAction::Reset => (Action::Reset, RESET, RESET_REQUEST),
        RequestAction::Decommission => (Action::Decommission, RESET, RESET_REQUEST),
        RequestAction::Certificate => (Action::Certificate, CERTIFICATE, CERTIFICATE_REQUEST),
        RequestAction::Replay => (Action::Replay, REPLAY, REPLAY_REQUEST),
        RequestAction::Discard => (Action::Discard, REPLAY, REPLAY_REQUEST),
    };
    let expires = files::day(&arguments.expires)?;
    if expires < files::today() {
        return Err(Failure::refused(format!("{expires} has passed"), "give a later day"));
    }
    let serial = if arguments.serial == ["any"] {
        if action != Action::Support {
            return Err(Failure::refused(format!("a {action} is for any appliance"), "name the serial numbers"));
        }
        Serial::Any
    } else {
        Serial::OneOf(arguments.serial.clone())
    };
    let chain = match &arguments.certificate {
        Some(_) if action != Action::Certificate => {
            return Err(Failure::refused(format!("a {action} brings no certificate"), "leave --certificate out"));
        }
        Some(file) => Some(issued(file, arguments.report.as_deref())?),
        None => None,
    };
    let discard = discard(action, &arguments.discard)?;
    let mut id = [0; 16];
    SystemRandom::new()
        .fill(&mut id)
        .map_err(|_| Failure::machine("the system gives no random numbers", "try again on another machine"))?;
    let request = Request {
        action,
        id: hex(&id),
        serial,
        expires,
        technician: arguments.technician.clone(),
        reason: arguments.reason.clone(),
        certificate_pem: chain.as_ref().map(|chain| chain.pem.clone()),
        discard,
    };
    let text = sign_request(&request, &signer).map_err(|error| signer::unsigned(&error))?;
    let output = arguments.output.clone().unwrap_or_else(|| PathBuf::from(name));
    files::write(&output, text.as_bytes())?;
    say::result(format_args!("signed {}: copy it as {name} to a FAT stick with the label {label}", output.display()));
    say::result(format_args!("  {action} of {}, until {expires}, request {}", request.serial, request.id));
    if let Some(Discard { selector, count }) = &request.discard {
        let does = if *count { "counts" } else { "discards" };
        say::result(format_args!("  {does} dead letters: {selector}"));
    }
    signer::note_early_end(&signer, expires);
    if let Some(chain) = chain {
        client_certificate::describe(&chain);
    }
    Ok(())
}

/// Which dead letters, with the one action that discards. Nothing named is not everything.
fn discard(action: Action, given: &cli::Discard) -> Outcome<Option<Discard>> {
    let cli::Discard { kind, device, before, all, count } = given;
    let named = kind.is_some() || device.is_some() || before.is_some();
    match (action, named, *all) {
        (Action::Discard, true, true) => Err(Failure::refused("--all is more than the others name", "leave --all or the others out")),
        (Action::Discard, false, false) => {
            Err(Failure::refused("nothing says which dead letters to discard", "give --kind, --device or --before, or else --all"))
        }
        (Action::Discard, _, _) => {
            let selector = DeadLetterSelector::parse(kind.as_deref(), device.as_deref(), before.as_deref())
                .map_err(|error| Failure::refused(format!("--{} cannot be read", error.name), error.remedy))?;
            Ok(Some(Discard { selector, count: *count }))
        }
        (_, false, false) if !count => Ok(None),
        _ => Err(Failure::refused(format!("a {action} names no dead letters"), "leave --kind, --device, --before, --all and --count out")),
    }
}

/// The certificate that an authority issued, judged as the appliance does.
fn issued(file: &Path, report: Option<&Path>) -> Outcome<ClientChain> {
    let refused = |error: ClientChainError| {
        let said = error.to_string();
        let (what, remedy) = said.split_once("; ").unwrap_or((&said, "ask the authority"));
        Failure::refused(format!("{}: {what}", file.display()), remedy)
    };
    let text = files::read_text(file)?;
    if text.contains("PRIVATE KEY-----") {
        let remedy = "the appliance's key never leaves it: take the certificate that the authority issued for the appliance's request";
        return Err(Failure::refused(format!("{} holds a private key", file.display()), remedy));
    }
    let chain = ClientChain::read(&text).map_err(refused)?;
    chain.valid_at(files::now_unix_s()).map_err(refused)?;
    if let Some(report) = report {
        chain.for_key_of(&client_certificate::of_report(report)?).map_err(refused)?;
    }
    Ok(chain)
}
