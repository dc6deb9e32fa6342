//! The appliance's privileged steps: sealed storage, provisioning, updates, health gate, support, reset.
//!
//! Each is a short program of its own, started by a unit with just the rights it needs, and says
//! what became of it in a state file ([`state_file`]). None speaks to the network. The updater calls
//! the same program by the names `bootchooser` and `pre-install`.

#![forbid(unsafe_code)]

mod boot;
mod cli;
mod clock;
mod command;
mod configure;
mod errand;
mod gate;
mod identity;
mod insist;
mod lock;
mod machine;
mod pause;
mod places;
mod provision;
mod replay;
mod report;
mod reset;
mod room;
mod self_test;
mod site_file;
mod state_file;
mod stick;
mod storage;
mod support;
mod text;
mod tpm;
mod update;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::execute(std::env::args_os()) {
        Ok(code) => code,
        Err(error) => {
            cli::say_error(&error);
            ExitCode::FAILURE
        }
    }
}
