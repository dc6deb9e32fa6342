//! The manifest of a bundle: a key file of RAUC (rauc, "Manifest").

use crate::digest::{BYTES, Digest};

/// Length of the salt in bytes.
const SALT_BYTES: usize = 32;

/// What a manifest says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) compatible: String,
    pub(crate) version: String,
    pub(crate) build: Option<String>,
    /// Slot class and hash.
    pub(crate) images: Vec<(String, String)>,
    pub(crate) verity_hash: [u8; BYTES],
    pub(crate) verity_salt: [u8; SALT_BYTES],
    pub(crate) verity_bytes: u64,
}

impl Manifest {
    /// Reads a manifest; says what it lacks.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut section = String::new();
        let mut facts: Vec<(String, String, String)> = Vec::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                section = name.to_owned();
            } else if let Some((key, value)) = line.split_once('=') {
                facts.push((section.clone(), key.trim().to_owned(), value.trim().chars().filter(|one| !one.is_control()).collect()));
            }
        }
        let fact = |section: &str, key: &str| facts.iter().find(|fact| fact.0 == section && fact.1 == key).map(|fact| fact.2.clone());
        let needed = |section: &str, key: &str| fact(section, key).ok_or_else(|| format!("has no {key} in [{section}]"));
        if needed("bundle", "format")? != "verity" {
            return Err("is of another format than verity".to_owned());
        }
        let hash = |key: &str| Digest::parse(&needed("bundle", key)?).map(|digest| digest.0).ok_or_else(|| format!("has no usable {key}"));
        let images = facts
            .iter()
            .filter(|fact| fact.1 == "sha256")
            .filter_map(|fact| Some((fact.0.strip_prefix("image.")?.to_owned(), fact.2.clone())))
            .collect();
        Ok(Self {
            compatible: needed("update", "compatible")?,
            version: needed("update", "version")?,
            build: fact("update", "build"),
            images,
            verity_hash: hash("verity-hash")?,
            verity_salt: hash("verity-salt")?,
            verity_bytes: needed("bundle", "verity-size")?.parse().map_err(|_| "has no usable verity-size".to_owned())?,
        })
    }
}
