//! The technician's tool on the host: verify, flash, provision, request, bundle, report, support.

#![forbid(unsafe_code)]

mod bundle;
mod cli;
mod client_certificate;
mod digest;
mod failure;
mod files;
mod flash;
mod progress;
mod provision;
mod release;
mod report;
mod request;
mod say;
mod signer;
mod support;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Verify(arguments) => release::verify(&arguments),
        Command::Flash(arguments) => flash::flash(&arguments),
        Command::Provision(command) => provision::run(command),
        Command::Request(arguments) => request::make(&arguments),
        Command::Bundle(command) => bundle::run(&command),
        Command::Report(command) => report::run(&command),
        Command::Support(command) => support::run(&command),
        Command::Release(command) => release::run(&command),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            say::error(&failure);
            failure.exit_code()
        }
    }
}
