//! Dependencies point inward.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, MetadataCommand, Package};

use crate::{assert_none, root};

/// Which of our crates each crate may depend on. An empty list is a crate of the innermost ring.
const ARROWS: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("intake", &["domain"]),
    ("pipeline", &["domain"]),
    ("store", &["domain"]),
    ("config", &["domain"]),
    ("trust", &["domain"]),
    ("console", &["domain", "trust"]),
    ("profile", &["domain"]),
    ("mqtt", &["domain", "intake", "profile", "trust"]),
    ("modbus", &["domain", "intake", "profile", "trust"]),
    ("fhir", &["domain"]),
    ("transport", &["domain", "fhir", "trust"]),
    ("layout", &[]),
    ("site", &["domain", "config", "profile", "layout"]),
    ("initrd", &["layout"]),
    ("appliance", &["domain", "config", "profile", "layout", "site", "trust"]),
    ("status", &["layout", "trust"]),
    ("imagectl", &["layout", "site", "trust"]),
];

/// Crates that are not product: the simulator and everything under tests/.
const BESIDE_THE_PRODUCT: &[&str] =
    &["simulator", "test-support", "demo", "e2e", "simulation", "faults", "bench", "image-boot", "tidy", "yocto-checks"];

/// Which of our crates alone may name an external crate.
const KEEPERS: &[(&str, &[&str])] = &[
    ("sled", &["store"]),
    ("tokio-modbus", &["modbus"]),
    ("rumqttc", &["mqtt", "simulator"]),
    ("reqwest", &["transport", "e2e", "test-support", "demo", "bench", "image-boot"]),
    ("rcgen", &["trust", "test-support"]),
    (
        "anyhow",
        &[
            "daemon",
            "simulator",
            "test-support",
            "demo",
            "e2e",
            "simulation",
            "faults",
            "bench",
            "image-boot",
            "appliance",
            "status",
            "imagectl",
        ],
    ),
    ("serde_cbor_2", &["store"]),
];

fn packages() -> Vec<Package> {
    let metadata =
        MetadataCommand::new().manifest_path(root().join("Cargo.toml")).no_deps().other_options(vec!["--offline".into()]).exec().unwrap();
    metadata.packages
}

fn short(name: &str) -> Option<&str> {
    name.strip_prefix("vitalgate-")
}

#[test]
fn dependencies_point_inward() {
    let allowed: BTreeMap<_, BTreeSet<_>> = ARROWS.iter().map(|(from, to)| (*from, to.iter().copied().collect())).collect();
    let mut breaches = Vec::new();
    for package in packages() {
        let from = short(&package.name).unwrap_or_default().to_owned();
        let beside = BESIDE_THE_PRODUCT.contains(&from.as_str());
        for dependency in package.dependencies.iter().filter(|dependency| dependency.kind != DependencyKind::Development) {
            let Some(to) = short(&dependency.name) else { continue };
            let free = beside || from == "daemon";
            let outward = to == "daemon" || (!beside && BESIDE_THE_PRODUCT.contains(&to));
            if outward || (!free && !allowed.get(from.as_str()).is_some_and(|targets| targets.contains(to))) {
                breaches.push(format!("{from} -> {to}: take the dependency out, or move the shared part into domain"));
            }
        }
        if !beside && from != "daemon" && !allowed.contains_key(from.as_str()) {
            breaches.push(format!("{from}: a new crate; give it its arrows in tests/tidy/src/arrows.rs"));
        }
    }
    assert_none("an arrow points the wrong way", &breaches);
}

#[test]
fn one_crate_keeps_each_library_that_could_leak() {
    let mut breaches = Vec::new();
    for package in packages() {
        let from = short(&package.name).unwrap_or_default().to_owned();
        for dependency in package.dependencies.iter().filter(|dependency| dependency.kind != DependencyKind::Development) {
            for (library, keepers) in KEEPERS {
                if dependency.name == *library && !keepers.contains(&from.as_str()) {
                    breaches.push(format!("{from} names {library}; only {} may", keepers.join(", ")));
                }
            }
        }
    }
    assert_none("a library is named outside its crate", &breaches);
}

/// rustls types may be passed on; making a configuration is trust's alone.
#[test]
fn only_trust_configures_tls() {
    let mut breaches = Vec::new();
    for (name, text) in crate::tracked_files() {
        let product =
            name.ends_with(".rs") && ["gateway/", "device-drivers/", "cloud-bridge/", "image/"].iter().any(|top| name.starts_with(top));
        let exempt = name.starts_with("gateway/trust/") || name.starts_with("device-drivers/simulator/") || name.contains("/tests/");
        if product && !exempt && (text.contains("ServerConfig::builder") || text.contains("ClientConfig::builder")) {
            breaches.push(format!("{name}: take the configuration from vitalgate-trust"));
        }
    }
    assert_none("TLS is configured outside trust", &breaches);
}

#[test]
fn every_crate_keeps_the_workspace_lints() {
    let mut breaches = Vec::new();
    for package in packages() {
        let manifest: toml::Table = std::fs::read_to_string(&package.manifest_path).unwrap().parse().unwrap();
        let inherits = manifest.get("lints").and_then(|lints| lints.get("workspace")).and_then(toml::Value::as_bool) == Some(true);
        let own_reason = package.manifest_path.as_str().contains("/tests/") && manifest.contains_key("lints");
        if !inherits && !own_reason {
            breaches.push(format!("{}: add [lints] workspace = true", package.manifest_path));
        }
    }
    assert_none("a crate forgets the workspace lints", &breaches);
}
