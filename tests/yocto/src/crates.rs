//! The crates that the recipe of the programs fetches.

use std::{fmt::Write as _, io};

use crate::{Breach, RUST_VERSION_MAX, Tree};

/// The list, in bitbake's words.
pub const LIST: &str = "yocto-layer/recipes-gateway/vitalgate/vitalgate-crates.inc";
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// A package of Cargo.lock that is not our own.
struct Locked {
    name: String,
    version: String,
    source: String,
    checksum: Option<String>,
}

fn locked(tree: &Tree) -> Vec<Locked> {
    let lock: toml::Table = tree.text("Cargo.lock").parse().unwrap_or_default();
    let packages = lock.get("package").and_then(toml::Value::as_array).into_iter().flatten();
    let text = |package: &toml::Value, key: &str| package.get(key).and_then(toml::Value::as_str).map(str::to_owned);
    packages
        .filter_map(|package| {
            Some(Locked {
                name: text(package, "name")?,
                version: text(package, "version")?,
                source: text(package, "source")?,
                checksum: text(package, "checksum"),
            })
        })
        .collect()
}

/// The text of the list for a tree's Cargo.lock, and how many crates it has.
fn list(tree: &Tree) -> (String, usize) {
    let crates: Vec<_> = locked(tree).into_iter().filter(|package| package.source == REGISTRY).collect();
    let mut text = "# Made from Cargo.lock by `make yocto-crates`; not to be changed by hand.\n\nSRC_URI += \"\\\n".to_owned();
    for package in &crates {
        let _ = writeln!(text, "    crate://crates.io/{}/{} \\", package.name, package.version);
    }
    text.push_str("\"\n\n");
    for Locked { name, version, checksum, .. } in &crates {
        let _ = writeln!(text, "SRC_URI[{name}-{version}.sha256sum] = \"{}\"", checksum.as_deref().unwrap_or_default());
    }
    (text, crates.len())
}

/// Writes the list.
///
/// # Errors
/// Cargo.lock names no crate, or the list can not be written.
pub fn write_list(tree: &Tree) -> io::Result<usize> {
    let (text, count) = list(tree);
    if count == 0 {
        return Err(io::Error::other("Cargo.lock names no crate"));
    }
    tree.write(LIST, &text)?;
    Ok(count)
}

/// The list is what Cargo.lock says, and all of it comes from the registry with a checksum.
pub(crate) fn list_is_current(tree: &Tree) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for package in locked(tree) {
        if package.source != REGISTRY {
            breaches.push(format!("Cargo.lock: {} comes from {}; take a release of it from the registry", package.name, package.source));
        } else if package.checksum.is_none() {
            breaches.push(format!("Cargo.lock: {} has no checksum; run `cargo generate-lockfile`", package.name));
        }
    }
    let (wanted, count) = list(tree);
    if count == 0 {
        breaches.push("Cargo.lock: no crate found; is it there?".to_owned());
    }
    let present = tree.text(LIST);
    let difference = wanted.lines().find(|line| !present.lines().any(|other| other == *line));
    let surplus = present.lines().find(|line| !wanted.lines().any(|other| other == *line));
    if let Some(line) = difference.or(surplus) {
        breaches.push(format!("{LIST}: differs from Cargo.lock in `{}`; run `make yocto-crates`", line.trim()));
    } else if wanted != present {
        breaches.push(format!("{LIST}: differs from Cargo.lock in its order; run `make yocto-crates`"));
    }
    breaches
}

/// The workspace's own bound; [`newer_than_the_layer`] looks at each crate.
pub(crate) fn rust_is_not_too_new(tree: &Tree) -> Vec<Breach> {
    let manifest: toml::Table = tree.text("Cargo.toml").parse().unwrap_or_default();
    let wanted = manifest
        .get("workspace")
        .and_then(|workspace| workspace.get("package"))
        .and_then(|package| package.get("rust-version"))
        .and_then(toml::Value::as_str)
        .unwrap_or_default();
    newer_than_the_layer("Cargo.toml", wanted).into_iter().collect()
}

/// Says so if `rust_version` is newer than the Rust of the layer's series.
pub fn newer_than_the_layer(name: &str, rust_version: &str) -> Option<Breach> {
    let mut parts = rust_version.split('.').map(str::parse);
    let (Some(Ok(major)), Some(Ok(minor))) = (parts.next(), parts.next()) else {
        return Some(format!("{name}: rust-version is `{rust_version}`; write it as major.minor"));
    };
    let (major_max, minor_max) = RUST_VERSION_MAX;
    ((major, minor) > RUST_VERSION_MAX).then(|| {
        format!("{name}: needs Rust {rust_version}, the layer's series has {major_max}.{minor_max}; take an older version of it, or move the layer to a newer series")
    })
}
