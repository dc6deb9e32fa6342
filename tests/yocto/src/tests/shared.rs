//! The shared units, by the program that will read them.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::Command,
};

use crate::{Tree, tests::Copy};

const UNITS: &str = "usr/lib/systemd/system";

/// Makes a root of the shared files, the units of this machine's systemd and empty programs.
fn root(tree: &Tree, root: &Path) {
    for folder in ["usr/bin", "usr/sbin", "usr/lib"] {
        fs::create_dir_all(root.join(folder)).unwrap();
        symlink(folder, root.join(folder.trim_start_matches("usr/"))).unwrap();
    }
    let copied = Command::new("cp").arg("-a").arg(tree.path("image/rootfs/.")).arg(root).status().unwrap();
    let others = Command::new("cp").args(["-a", "--update=none"]).arg(format!("/{UNITS}/.")).arg(root.join(UNITS)).output().unwrap();
    let older = || Command::new("cp").args(["-a", "--no-clobber"]).arg(format!("/{UNITS}/.")).arg(root.join(UNITS)).status().unwrap();
    assert!(copied.success() && (others.status.success() || older().success()), "the files were not copied");
    for program in programs(tree) {
        let path = root.join(program.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

fn units(tree: &Tree) -> Vec<String> {
    let endings = [".service", ".mount", ".timer", ".target", ".socket", ".path"];
    tree.files(&format!("image/rootfs/{UNITS}"))
        .into_iter()
        .filter(|name| endings.iter().any(|ending| name.ends_with(ending)) && !name.contains(".wants/"))
        .filter(|name| !tree.path(name).is_symlink() && !name.contains("@."))
        .collect()
}

fn programs(tree: &Tree) -> BTreeSet<String> {
    units(tree)
        .iter()
        .chain(&tree.files(&format!("image/rootfs/{UNITS}")))
        .flat_map(|name| tree.text(name).lines().map(str::to_owned).collect::<Vec<_>>())
        .filter_map(|line| {
            let (key, value) = line.split_once('=')?;
            let program = value.trim_start_matches(['-', '+', '!', '@', ':']).split(' ').next()?.to_owned();
            (key.starts_with("Exec") && program.starts_with('/')).then_some(program)
        })
        .collect()
}

/// What systemd has against the units of a tree.
fn objections(tree: &Tree) -> String {
    let folder = tempfile::tempdir().unwrap();
    root(tree, folder.path());
    let names: Vec<_> = units(tree).iter().map(|name| name.rsplit('/').next().unwrap().to_owned()).collect();
    assert!(names.len() > 8, "only {} units found: nothing would be looked at", names.len());
    let root = format!("--root={}", folder.path().display());
    let output = Command::new("systemd-analyze").args(["verify", "--man=no", "--recursive-errors=no", &root]).args(names).output().unwrap();
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn systemd_understands_the_shared_units() {
    assert_eq!(objections(&Tree::repository()), "", "mend the unit below image/rootfs");
}

#[test]
fn systemd_objects_to_a_key_that_it_does_not_know() {
    let copy = Copy::of_the_repository();
    copy.replace(&format!("image/rootfs/{UNITS}/vitalgate.service"), "[Service]\n", "[Service]\nRestartt=always\n");
    assert!(objections(&copy.tree).contains("Restartt"), "the fault was not found");
}

/// What the firewall's own program has against the rules that hold until the site file has its own.
fn firewall_objections(tree: &Tree) -> String {
    let rules = std::fs::read_to_string(tree.path("image/rootfs/usr/lib/vitalgate/firewall.nft")).unwrap();
    vitalgate_test_support::firewall_objections(&rules).unwrap()
}

#[test]
fn the_firewall_understands_the_first_rules() {
    assert_eq!(firewall_objections(&Tree::repository()), "", "mend image/rootfs/usr/lib/vitalgate/firewall.nft");
    let copy = Copy::of_the_repository();
    copy.replace("image/rootfs/usr/lib/vitalgate/firewall.nft", "policy drop", "policy deny");
    assert!(firewall_objections(&copy.tree).contains("policy deny"), "the fault was not found");
}
