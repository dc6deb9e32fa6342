//! `vitalgate store`: looks at the store on disk while the gateway is stopped.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;

use crate::cli::StoreAction;
use crate::run::{key_file, store_folder};

/// Checks, counts or exports.
pub(super) fn store(config_path: &Path, action: StoreAction) -> anyhow::Result<ExitCode> {
    if let StoreAction::Probe { arguments } = &action {
        let sound = vitalgate_store::keyed::serve_probe(arguments, &mut std::io::stdout()).context("the answer cannot be written")?;
        return Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let config = super::load(config_path)?;
    let _ = (store_folder(&config), key_file(&config));
    anyhow::bail!("not in this build")
}
