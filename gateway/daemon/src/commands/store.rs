//! `vitalgate store`: looks at the store on disk while the gateway is stopped.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use vitalgate_config::Places;
use vitalgate_domain::{ClockTrust, Sequence};
use vitalgate_store::{Opened, RealFiles, StoreOptions};

use crate::cli::StoreAction;
use crate::run::keys::existing;
use crate::run::store_options;

/// Checks, counts or exports.
pub(super) fn store(config_path: &Path, action: StoreAction) -> anyhow::Result<ExitCode> {
    match action {
        StoreAction::Probe { arguments } => {
            let sound = vitalgate_store::keyed::serve_probe(&arguments, &mut std::io::stdout()).context("the answer cannot be written")?;
            Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        StoreAction::Check => check(&super::places(config_path)?),
        StoreAction::Stats => stats(&super::places(config_path)?),
        StoreAction::Export { file } => export(&super::places(config_path)?, &file),
    }
}

fn open(places: &Places) -> anyhow::Result<Opened> {
    let Places { gateway, store, .. } = places;
    let options = StoreOptions { background: false, ..store_options(gateway, store) };
    vitalgate_store::open(options, existing(gateway, store)?, Arc::new(RealFiles))
        .context("the store cannot be opened; is the gateway still running?")
}

fn check(places: &Places) -> anyhow::Result<ExitCode> {
    let Places { gateway, store, .. } = places;
    let report = vitalgate_store::check(store_options(gateway, store), existing(gateway, store)?, Arc::new(RealFiles));
    let report = report.context("the store cannot be checked; is the gateway still running?")?;
    println!("{report}");
    Ok(if report.is_complete() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn stats(places: &Places) -> anyhow::Result<ExitCode> {
    let reader = open(places)?.reader;
    let stats = reader.stats().context("the store cannot be read")?;
    println!("entries   {} to {}", stats.oldest, stats.committed);
    let oldest = reader.read(Sequence(stats.oldest), Sequence(stats.committed), 1, usize::MAX).context("the store cannot be read")?;
    if let Some(oldest) = oldest.records.first() {
        let (_, at) = oldest.entry.origin();
        println!("oldest    received {}", super::received(&at.wall.rfc3339(0), at.trust != ClockTrust::Unset));
    }
    println!("journal   {} segments, {} bytes", stats.segments, stats.journal_bytes);
    println!("free      {} bytes", stats.free_bytes);
    Ok(ExitCode::SUCCESS)
}

fn export(places: &Places, file: &Path) -> anyhow::Result<ExitCode> {
    let exported = vitalgate_store::export_to_file(&open(places)?.reader, file);
    let exported = exported.with_context(|| format!("the store cannot be exported to {}; the file must not exist yet", file.display()))?;
    println!("{} entries written to {}; the file holds patient data", exported.entries, file.display());
    for (first, last) in &exported.damaged {
        println!("entries {first} to {last} are damaged in every copy");
    }
    Ok(if exported.damaged.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
