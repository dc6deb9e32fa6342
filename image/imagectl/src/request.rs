//! `imagectl request`: what a stick SUPPORT or RESET carries.

use std::path::PathBuf;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use vitalgate_layout::stick::{RESET, RESET_REQUEST, SUPPORT, SUPPORT_REQUEST};
use vitalgate_site::{Action, Request, Serial, sign_request};

use crate::cli::{self, RequestAction};
use crate::digest::hex;
use crate::failure::{Failure, Outcome};
use crate::{files, say, signer};

/// Makes and signs a request.
pub(crate) fn make(arguments: &cli::Request) -> Outcome {
    let signer = signer::needed(&arguments.signer)?;
    let (action, label, name) = match arguments.action {
        RequestAction::Support => (Action::Support, SUPPORT, SUPPORT_REQUEST),
        RequestAction::Reset => (Action::Reset, RESET, RESET_REQUEST),
        RequestAction::Decommission => (Action::Decommission, RESET, RESET_REQUEST),
    };
    let expires = files::day(&arguments.expires)?;
    if expires < files::today() {
        return Err(Failure::refused(format!("{expires} has passed"), "give a later day"));
    }
    let serial = if arguments.serial.iter().any(|one| one == "any") {
        if action != Action::Support {
            return Err(Failure::refused(format!("a {action} is for any appliance"), "name the serial numbers"));
        }
        Serial::Any
    } else {
        Serial::OneOf(arguments.serial.clone())
    };
    let mut id = [0; 16];
    SystemRandom::new()
        .fill(&mut id)
        .map_err(|_| Failure::machine("the system gives no random numbers", "try again on another machine"))?;
    let request =
        Request { action, id: hex(&id), serial, expires, technician: arguments.technician.clone(), reason: arguments.reason.clone() };
    let text = sign_request(&request, &signer).map_err(|error| signer::unsigned(&error))?;
    let output = arguments.output.clone().unwrap_or_else(|| PathBuf::from(name));
    files::write(&output, text.as_bytes())?;
    say::result(format_args!("signed {}: copy it as {name} to a FAT stick with the label {label}", output.display()));
    say::result(format_args!("  {action} of {}, until {expires}, request {}", request.serial, request.id));
    Ok(())
}
