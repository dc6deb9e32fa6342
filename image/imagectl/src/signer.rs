//! Which key signs: a file, or a program that speaks to a token.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use vitalgate_site::{Day, Delegation, Purpose, SignError, Signer};

use crate::cli;
use crate::digest::hex;
use crate::failure::{Failure, Outcome};
use crate::{files, say};

/// Stands for the file with the message in the arguments of a program.
const FILE_MARK: &str = "{}";
/// Longest answer of a program in bytes.
const ANSWER_BYTES_MAX: usize = 4096;

/// The signer that the command line names, if it may sign such a file; `None` when it names none.
pub(crate) fn named(arguments: &cli::Signer, purpose: Purpose) -> Outcome<Option<Signer>> {
    let signer = match (&arguments.key, &arguments.sign_with, &arguments.public) {
        (Some(key), _, _) => Signer::root(files::signing_key(key)?),
        (None, Some(program), Some(public)) => {
            let program: Vec<String> = program.split_whitespace().map(str::to_owned).collect();
            Signer::elsewhere(files::public_key(public)?, Box::new(move |message| ask(&program, message)))
        }
        _ => return Ok(None),
    };
    let Some(path) = &arguments.delegation else { return Ok(Some(signer)) };
    let refused = |error| Failure::refused(format!("{}: {error}", path.display()), "name the delegation of this key");
    let delegation = Delegation::parse(&files::read_text(path)?).map_err(refused)?;
    if delegation.expires() < files::today() {
        let what = format!("{} ended on {}", path.display(), delegation.expires());
        return Err(Failure::refused(what, "ask the holder of the root key for a new delegation"));
    }
    if !delegation.purposes().contains(&purpose) {
        let may: Vec<_> = delegation.purposes().iter().map(|purpose| purpose.word()).collect();
        let what = format!("{} is for {} alone, and this is a {}", path.display(), may.join(" and "), purpose.word());
        let remedy = format!("ask the holder of the root key for a delegation --for {}", purpose.word());
        return Err(Failure::refused(what, remedy));
    }
    signer.with_delegation(delegation).map(Some).map_err(refused)
}

/// Says so when appliances stop taking a file before its own last day.
pub(crate) fn note_early_end(signer: &Signer, expires: Day) {
    if let Some(until) = signer.delegation().map(Delegation::expires).filter(|until| *until < expires) {
        say::note(format_args!(
            "the delegation ends on {until}, the file on {expires}: no appliance takes it after {until}; ask for a longer delegation if that is too early"
        ));
    }
}

/// The signer that must be named.
pub(crate) fn needed(arguments: &cli::Signer, purpose: Purpose) -> Outcome<Signer> {
    named(arguments, purpose)?.ok_or_else(|| Failure::refused("no key is named", "add --key FILE, or --sign-with PROGRAM --public KEY"))
}

/// What to say when nothing was signed.
pub(crate) fn unsigned(error: &SignError) -> Failure {
    match error {
        SignError::Errors(errors) => {
            errors.iter().for_each(say::note);
            Failure::refused(error.to_string(), "correct the lines above")
        }
        SignError::TooLarge => Failure::refused(error.to_string(), "remove devices, texts or certificates that are not needed"),
        SignError::Unopened(_) => Failure::refused(error.to_string(), "move the text above it, or remove the lines of the old signature"),
        SignError::NoSignature(_) => Failure::machine(
            error.to_string(),
            "plug the token in; check --sign-with and --public; let the program take the PIN from its arguments and print nothing but the signature",
        ),
    }
}

/// Lets a program sign.
fn ask(program: &[String], message: &[u8]) -> Result<Vec<u8>, String> {
    let (name, arguments) = program.split_first().ok_or("--sign-with names no program")?;
    let mut file = None;
    if arguments.iter().any(|argument| argument.contains(FILE_MARK)) {
        file = Some(MessageFile::write(message)?);
    }
    let path = file.as_ref().map(|file| file.0.to_string_lossy().into_owned()).unwrap_or_default();
    let mut command = Command::new(name);
    command.args(arguments.iter().map(|argument| argument.replace(FILE_MARK, &path)));
    let failed = |error: std::io::Error| format!("{name} cannot be used ({error})");
    // A program that asks for a PIN would take the message for it, and a token locks itself after a few wrong ones.
    let input = if file.is_some() { Stdio::null() } else { Stdio::piped() };
    let mut child = command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().map_err(failed)?;
    if let Some(mut input) = child.stdin.take() {
        // One that ends early says why itself.
        let _ = input.write_all(message);
    }
    let output = child.wait_with_output().map_err(failed)?;
    if !output.status.success() {
        return Err(format!("{name} ended with {}", output.status));
    }
    let answer = output.stdout.get(..output.stdout.len().min(ANSWER_BYTES_MAX)).unwrap_or_default();
    Ok(crate::digest::bytes_or_hex(answer))
}

/// A file that is gone when it is no longer needed.
struct MessageFile(PathBuf);

impl MessageFile {
    fn write(message: &[u8]) -> Result<Self, String> {
        let mut name = [0; 8];
        SystemRandom::new().fill(&mut name).map_err(|_| "the system gives no random numbers")?;
        let path = std::env::temp_dir().join(format!("imagectl-{}", hex(&name)));
        files::write_secret(&path, message).map_err(|error| error.to_string())?;
        Ok(Self(path))
    }
}

impl Drop for MessageFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
