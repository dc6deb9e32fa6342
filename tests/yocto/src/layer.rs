//! What a layer must say, and what has no place in it.

use crate::{Breach, Tree, recipe};

const CONF: &str = "yocto-layer/conf/layer.conf";
const DISTRO: &str = "yocto-layer/conf/distro/vitalgate-os.conf";

/// Collection, pattern, series, layers it depends on, version, and where the shared files are.
pub(crate) fn conf_is_complete(tree: &Tree) -> Vec<Breach> {
    let wanted = [
        ("BBFILE_COLLECTIONS", "vitalgate"),
        ("BBFILE_PATTERN_vitalgate", "^${LAYERDIR}/"),
        ("BBFILE_PRIORITY_vitalgate", ""),
        ("LAYERVERSION_vitalgate", ""),
        ("LAYERSERIES_COMPAT_vitalgate", "wrynose"),
        ("LAYERDEPENDS_vitalgate", "core"),
        ("BBFILES_DYNAMIC", "rauc:"),
        ("VITALGATE_TOPDIR", "${LAYERDIR}"),
    ];
    let mut breaches: Vec<_> = wanted
        .iter()
        .map(|(name, part)| (name, part, recipe::value(tree, CONF, name)))
        .filter(|(_, part, value)| value.is_empty() || !value.contains(*part))
        .map(|(name, part, value)| format!("{CONF}: {name} is \"{value}\"; it must be set and contain \"{part}\""))
        .collect();
    for file in ["README.md", "SECURITY.md", "COPYING.MIT"] {
        if !tree.has(&format!("yocto-layer/{file}")) {
            breaches.push(format!("yocto-layer/{file}: missing; a layer has one"));
        }
    }
    breaches
}

/// The names of our own recipes and the distribution carry the workspace's version.
pub(crate) fn versions_agree(tree: &Tree) -> Vec<Breach> {
    let manifest: toml::Table = tree.text("Cargo.toml").parse().unwrap_or_default();
    let version = manifest
        .get("workspace")
        .and_then(|workspace| workspace.get("package"))
        .and_then(|package| package.get("version"))
        .and_then(toml::Value::as_str)
        .unwrap_or_default();
    let mut breaches = Vec::new();
    for folder in ["vitalgate", "vitalgate-platform"] {
        let name = format!("yocto-layer/recipes-gateway/{folder}/{folder}_{version}.bb");
        if !tree.has(&name) {
            breaches.push(format!("{name}: missing; rename the recipe to the version of Cargo.toml"));
        }
    }
    let distro = recipe::value(tree, DISTRO, "VITALGATE_VERSION");
    if distro != version {
        breaches.push(format!("{DISTRO}: VITALGATE_VERSION is \"{distro}\"; write the version of Cargo.toml, {version}"));
    }
    breaches
}

/// wic looks for its descriptions in `files/wic` of each layer.
pub(crate) fn disk_descriptions_are_found(tree: &Tree) -> Vec<Breach> {
    let all: Vec<_> = tree.files("yocto-layer").into_iter().filter(|name| name.ends_with(".wks") || name.contains(".wks.")).collect();
    let mut breaches: Vec<_> = all
        .iter()
        .filter(|name| !name.starts_with("yocto-layer/files/wic/"))
        .map(|name| format!("{name}: wic does not look here; move it to yocto-layer/files/wic/"))
        .collect();
    for name in tree.metadata().into_iter().filter(|name| name.ends_with(".bb")) {
        let wanted = recipe::value(tree, &name, "WKS_FILE");
        if !wanted.is_empty() && !tree.has(&format!("yocto-layer/files/wic/{wanted}")) {
            breaches.push(format!("{name}: WKS_FILE is {wanted}, which is not in yocto-layer/files/wic/; name one that is"));
        }
    }
    breaches
}

/// Keys come by a variable, other layers are named in the README, accounts are those of the image.
pub(crate) fn nothing_foreign(tree: &Tree) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for name in tree.files("yocto-layer") {
        let text = tree.text(&name);
        if text.contains("-----BEGIN ") {
            breaches.push(format!("{name}: a key or a certificate; take it out, it comes from the folder VITALGATE_KEYS"));
        }
        if [".sh", ".yml", ".yaml", ".py", ".patch"].iter().any(|ending| name.ends_with(ending)) {
            breaches.push(format!("{name}: no scripts, patches and descriptions of other layers here; name what is needed in README.md"));
        }
        let own_accounts = text.lines().any(|line| {
            let words = line.split_ascii_whitespace();
            line.starts_with("inherit") && words.into_iter().any(|word| word == "useradd" || word == "extrausers")
        });
        if own_accounts {
            breaches.push(format!("{name}: makes accounts; they stand in image/rootfs/etc/passwd and group, for both builds"));
        }
    }
    breaches
}
