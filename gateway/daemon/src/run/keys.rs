//! Which key-encryption key opens the store.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use vitalgate_config::{Config, Gateway, Store};
use vitalgate_domain::KeyWrap;
use vitalgate_trust::{CredentialKeyWrap, FileKeyWrap};

use super::store_folder;

/// The file of the key-encryption key, where no credential is named.
fn key_file(gateway: &Gateway) -> PathBuf {
    gateway.state_dir.join("trust").join("store.key")
}

/// The key for a gateway that starts. A store that holds something is never given a new key: it
/// could not be read any more.
///
/// # Errors
/// When the key is not there or is none.
pub(super) fn for_gateway(config: &Config) -> anyhow::Result<Arc<dyn KeyWrap>> {
    let filled = std::fs::read_dir(store_folder(&config.gateway)).is_ok_and(|mut listing| listing.next().is_some());
    if filled || config.store.key_credential.is_some() {
        return existing(&config.gateway, &config.store);
    }
    let keys = FileKeyWrap::open_or_create(&key_file(&config.gateway));
    Ok(Arc::new(keys.context("the store's key-encryption key cannot be made")?))
}

/// The key that must be there.
///
/// # Errors
/// When it is not there or is none.
pub(crate) fn existing(gateway: &Gateway, store: &Store) -> anyhow::Result<Arc<dyn KeyWrap>> {
    if let Some(name) = &store.key_credential {
        let keys = CredentialKeyWrap::open(name);
        return Ok(Arc::new(keys.context("the credential with the store's key-encryption key (key_credential) cannot be read")?));
    }
    let keys = FileKeyWrap::open(&key_file(gateway));
    Ok(Arc::new(keys.context("the store's key-encryption key cannot be read; bring trust/ back from its backup")?))
}
