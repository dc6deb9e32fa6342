//! `imagectl support`: what an appliance sealed for support.

use std::path::Path;

use vitalgate_site::age::{self, Identity};
use zeroize::Zeroizing;

use crate::cli;
use crate::failure::{Failure, Outcome};
use crate::provision::with_end;
use crate::{files, say};

/// Largest support bundle in bytes (1 GiB).
const BUNDLE_BYTES_MAX: u64 = 1 << 30;

/// `imagectl support ...`
pub(crate) fn run(command: &cli::Support) -> Outcome {
    match command {
        cli::Support::Decrypt { file, key, output } => decrypt(file, key, output),
        cli::Support::Keygen { name } => keygen(name),
    }
}

fn decrypt(file: &Path, key: &Path, output: &Path) -> Outcome {
    let refused = |path: &Path, error| {
        Failure::refused(format!("{}: {error}", path.display()), "name the bundle from the stick, and the key that the image was built for")
    };
    let text = Zeroizing::new(files::read_text(key)?);
    let identity = Identity::parse(&text).map_err(|error| refused(key, error))?;
    let sealed = files::read(file, BUNDLE_BYTES_MAX)?;
    let plain = Zeroizing::new(age::open(&sealed, &identity).map_err(|error| refused(file, error))?);
    files::write_secret(output, &plain)?;
    say::result(format_args!("wrote {} ({} bytes); it holds no patient data, but treat it as confidential", output.display(), plain.len()));
    Ok(())
}

fn keygen(name: &Path) -> Outcome {
    let failed = |error: age::AgeError| Failure::machine(error.to_string(), "try again on another machine");
    let identity = Identity::generate().map_err(failed)?;
    let recipient = identity.recipient().map_err(failed)?;
    let (private, public) = (with_end(name, "key"), with_end(name, "recipient"));
    files::must_be_new(&public)?;
    files::write_secret(&private, format!("# public key: {recipient}\n{}\n", *identity.to_text()).as_bytes())?;
    files::write(&public, format!("{recipient}\n").as_bytes())?;
    say::result(format_args!("wrote {} (keep it secret) and {}", private.display(), public.display()));
    Ok(())
}
