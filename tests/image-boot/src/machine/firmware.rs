//! The firmware with Secure Boot, our keys enrolled.

use std::path::Path;

use anyhow::{Context as _, ensure};

use super::model::Model;

use crate::command::{self, setting};

/// Owner of the enrolled keys: any number that is always the same.
const OWNER: &str = "5f0f7f7a-6f0c-4d43-9a6d-9a6a2f1f5e10";

/// Writes the firmware's variables with PK, KEK and db of `keys` and Secure Boot switched on.
///
/// # Errors
/// When a key or the tool is missing.
pub(crate) async fn enrol(model: Model, keys: &Path, variables: &Path) -> anyhow::Result<()> {
    let tool = setting("VITALGATE_VIRT_FW_VARS", "target/venv-image/bin/virt-fw-vars");
    let before = model.variables();
    let certificate = |name: &str| -> anyhow::Result<String> {
        let path = keys.join(name);
        ensure!(path.is_file(), "{} is missing; make image writes it", path.display());
        path.into_os_string().into_string().ok().context("a path that is not UTF-8")
    };
    let (pk, kek, db) = (certificate("PK.crt")?, certificate("KEK.crt")?, certificate("db.crt")?);
    let output = variables.to_str().context("a path that is not UTF-8")?;
    let strangers = ["--delete", "PK", "--delete", "KEK", "--delete", "db", "--delete", "dbx"];
    let ours = ["--set-pk", OWNER, &pk, "--add-kek", OWNER, &kek, "--add-db", OWNER, &db, "--secure-boot", "--output", output];
    let arguments = ["--input", &before].into_iter().chain(strangers).chain(ours);
    command::run(tool, arguments).await.map(drop)
}
