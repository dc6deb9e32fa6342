//! RAUC: slots, bundle, machine.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Breach, Tree, partitions, recipe};

const SYSTEM: &str = "image/rootfs/usr/lib/rauc/system.conf";
const BUNDLE: &str = "yocto-layer/dynamic-layers/rauc/recipes-core/bundles/vitalgate-bundle.bb";
const MACHINE: &str = "yocto-layer/conf/machine/vitalgate-x86.conf";

/// Sections of an INI file with their keys.
fn sections(text: &str) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut found: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    let mut section = String::new();
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            name.clone_into(&mut section);
            found.entry(section.clone()).or_default();
        } else if let Some((key, value)) = line.split_once('=')
            && !line.starts_with('#')
        {
            found.entry(section.clone()).or_default().insert(key.trim().to_owned(), value.trim().to_owned());
        }
    }
    found
}

/// Slots of system.conf are partitions of the disk, and the bundle has an image for each class of them.
pub(crate) fn slots_agree(tree: &Tree) -> Vec<Breach> {
    let mut breaches = Vec::new();
    let labels: BTreeSet<_> = partitions::described(tree).into_iter().map(|(name, _)| name).collect();
    let mut classes = BTreeSet::new();
    for (section, keys) in sections(&tree.text(SYSTEM)) {
        let Some(slot) = section.strip_prefix("slot.") else { continue };
        classes.insert(slot.split('.').next().unwrap_or_default().to_owned());
        let device = keys.get("device").map(String::as_str).unwrap_or_default();
        let label = device.strip_prefix("/dev/disk/by-partlabel/").unwrap_or_default();
        if !labels.contains(label) {
            breaches.push(format!("{SYSTEM}: slot {slot} is on {device}, the disk has {labels:?}; name one of these"));
        }
    }
    let bundled: BTreeSet<_> = recipe::value(tree, BUNDLE, "RAUC_BUNDLE_SLOTS").split_ascii_whitespace().map(str::to_owned).collect();
    if classes != bundled || classes.is_empty() {
        breaches.push(format!("{BUNDLE}: RAUC_BUNDLE_SLOTS is {bundled:?}, {SYSTEM} has {classes:?}; write the same in both"));
    }
    for class in &bundled {
        for variable in [format!("RAUC_SLOT_{class}"), format!("RAUC_SLOT_{class}[file]")] {
            if recipe::value(tree, BUNDLE, &variable).is_empty() {
                breaches.push(format!("{BUNDLE}: {variable} is not set; say what goes into the slot"));
            }
        }
    }
    breaches
}

/// A bundle is for the machine that the installed system says it is.
pub(crate) fn compatible_agrees(tree: &Tree) -> Vec<Breach> {
    let system = sections(&tree.text(SYSTEM)).remove("system").and_then(|mut keys| keys.remove("compatible")).unwrap_or_default();
    let machine = recipe::value(tree, MACHINE, "RAUC_COMPATIBLE");
    let bundle = recipe::value(tree, BUNDLE, "RAUC_BUNDLE_COMPATIBLE");
    let mut breaches = Vec::new();
    if system != machine || system.is_empty() {
        breaches.push(format!("{MACHINE}: RAUC_COMPATIBLE is \"{machine}\", {SYSTEM} says \"{system}\"; write the same in both"));
    }
    if bundle != "${RAUC_COMPATIBLE}" {
        breaches.push(format!("{BUNDLE}: RAUC_BUNDLE_COMPATIBLE is \"{bundle}\"; leave it to the machine: ${{RAUC_COMPATIBLE}}"));
    }
    breaches
}
