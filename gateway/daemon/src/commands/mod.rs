//! The commands, one file each.

/// In the place of the standard library's, which panics when the reader has left.
macro_rules! println {
    ($($text:tt)*) => { $crate::commands::output::line(format_args!($($text)*)) };
}

macro_rules! eprintln {
    ($($text:tt)*) => { $crate::commands::output::error_line(format_args!($($text)*)) };
}

mod check;
mod dead_letters;
mod device;
mod discard;
mod output;
mod status;
mod store;
mod trace;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use vitalgate_config::{Config, ConfigError, Places};

use crate::admin::Admin;
use crate::cli::{Arguments, Command};

/// Carries out a command and says what it says.
///
/// # Errors
/// When the command fails, or not all that it says could be written.
pub(crate) fn execute(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let code = carry_out(arguments)?;
    output::finished().map(|()| code)
}

fn carry_out(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match arguments.command {
        Command::Run => crate::run::run(&load(&arguments.config)?),
        Command::Check => Ok(check::check(&arguments.config)),
        Command::Status { json } => ask(&arguments.config, async |admin| status::status(admin, json).await),
        Command::Trace { reading_id, device, at, window_s, json } => {
            let question = trace::Question::new(reading_id, device, at, window_s)?;
            ask(&arguments.config, async |admin| trace::trace(admin, &question, json).await)
        }
        Command::DeadLetters { action } => ask(&arguments.config, async |admin| dead_letters::dead_letters(admin, action).await),
        Command::Device { action } => device::device(&arguments.config, action),
        Command::Store { action } => store::store(&arguments.config, action),
    }
}

/// Says an error with its whole chain of causes.
pub(crate) fn say_error(error: &anyhow::Error) {
    eprintln!("vitalgate: {error:#}");
}

/// Loads the configuration or says all of its errors.
fn load(path: &Path) -> anyhow::Result<Config> {
    or_say(path, check::checked(path))
}

/// Finds the gateway or what it keeps: a gateway that runs answers also where the rest of its file has been spoilt since.
fn places(path: &Path) -> anyhow::Result<Places> {
    or_say(path, Places::load(path))
}

fn or_say<T>(path: &Path, read: Result<T, Vec<ConfigError>>) -> anyhow::Result<T> {
    read.or_else(|errors| {
        for error in &errors {
            eprintln!("{error}");
        }
        anyhow::bail!("{}: {} errors; nothing was done", path.display(), errors.len())
    })
}

/// Asks the running daemon.
fn ask(path: &Path, question: impl AsyncFnOnce(&Admin) -> anyhow::Result<ExitCode>) -> anyhow::Result<ExitCode> {
    let places = places(path)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    let admin = Admin::new(&places.console.admin_socket);
    runtime.block_on(question(&admin))
}

/// When something came, as it is printed: what the clock showed means nothing while it was not set.
fn received(at: &str, dated: bool) -> &str {
    if dated || at.is_empty() { at } else { "while no clock was set" }
}

/// Prints as JSON.
fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string_pretty(value).context("cannot be written as JSON")?);
    Ok(())
}
