//! `vitalgate`: collects readings from devices, keeps them on disk, and delivers them to the EHR.

#![forbid(unsafe_code)]

mod admin;
mod alarm_log;
mod beacon;
mod cli;
mod clock;
mod commands;
mod commit;
mod delivery;
mod devices;
mod disk;
mod growth;
mod logging;
mod metrics;
mod notify;
mod panics;
mod read_model;
mod renewal;
mod replay;
mod rotation;
mod run;
mod shared;
mod undated;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    panics::abort_on_panic();
    let arguments = cli::Arguments::parse();
    match commands::execute(arguments) {
        Ok(code) => code,
        Err(error) => {
            commands::say_error(&error);
            ExitCode::FAILURE
        }
    }
}
