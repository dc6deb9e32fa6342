//! Boots the production image in a virtual machine and tests it from outside.
//!
//! `make test-image` runs all cases, `make test-image CASES="day refused"` some. One machine runs at a
//! time: QEMU without hardware virtualisation, OVMF with Secure Boot and our keys, a TPM in software.
//! Nothing looks inside the running machine: what counts is the serial console, the status page, the
//! sticks, the network, and the disk while the power is off. Evidence stays in `target/image-boot`.

#![forbid(unsafe_code)]

mod appliance;
mod cases;
mod clock_source;
mod command;
mod disk;
mod evidence;
mod forgery;
mod hospital_authority;
mod image;
mod machine;
mod nts_server;
mod page;
mod practice;
mod release_server;
mod segment;
mod stick;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

/// What can be tested. The order is the order of running.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Case {
    /// From flashing to the return from a bad update, readings flowing.
    Day,
    /// What must not boot, not install, not be taken.
    Refused,
    /// Ports, files of the root, sizes.
    Scan,
    /// Support, updates from a server, time with proof, reset.
    Service,
    /// Power cuts, a cleared TPM, no clock, no network, no space.
    Survived,
}

impl Case {
    /// Name on the command line and of the folder of evidence.
    fn name(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Refused => "refused",
            Self::Scan => "scan",
            Self::Service => "service",
            Self::Survived => "survived",
        }
    }
}

/// Boots the production image in a virtual machine and tests it from outside.
#[derive(Debug, Parser)]
#[command(name = "vitalgate-image-boot")]
struct Arguments {
    /// Which cases; all without.
    #[arg(value_enum)]
    cases: Vec<Case>,
    /// Only this part of a case: `bundles` of `refused`, for example.
    #[arg(long)]
    part: Option<String>,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let Arguments { cases: mut wanted, part } = Arguments::parse();
    if wanted.is_empty() {
        wanted = vec![Case::Day, Case::Refused, Case::Scan, Case::Service, Case::Survived];
    }
    wanted.sort_unstable();
    wanted.dedup();
    let mut asked = match signal(SignalKind::terminate()) {
        Ok(asked) => asked,
        Err(_) => return ExitCode::FAILURE,
    };
    let (mut passed, mut failed) = (0, Vec::new());
    for case in wanted {
        // What is dropped takes its machine with it.
        let (held, broken) = tokio::select! {
            outcome = cases::run(case, part.clone()) => outcome,
            _ = asked.recv() => return ExitCode::FAILURE,
            _ = tokio::signal::ctrl_c() => return ExitCode::FAILURE,
        };
        passed += held;
        failed.extend(broken.into_iter().map(|what| format!("{}: {what}", case.name())));
    }
    let mut text: String = failed.iter().map(|what| format!("FAIL {what}\n")).collect();
    text.push_str(&format!("image: {passed} passed, {} failed; evidence in {}\n", failed.len(), evidence::FOLDER));
    // A closed terminal changes nothing about the result.
    let _ = std::io::stdout().write_all(text.as_bytes());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
