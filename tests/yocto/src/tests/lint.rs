//! The style of the recipes, by the linter that their community uses.

use std::{path::PathBuf, process::Command};

use crate::{Tree, tests::Copy};

fn linter() -> PathBuf {
    let tree = Tree::repository();
    let setup = Command::new(tree.path("tools/setup")).arg("yocto").output().unwrap();
    assert!(setup.status.success(), "tools/setup yocto: {}", String::from_utf8_lossy(&setup.stderr));
    tree.path("target/venv-yocto/bin/oelint-adv")
}

/// What the linter finds in the recipes of a tree.
fn findings(tree: &Tree) -> String {
    let files: Vec<_> = tree
        .metadata()
        .into_iter()
        .filter(|name| [".bb", ".bbappend", ".bbclass"].iter().any(|ending| name.ends_with(ending)))
        .map(|name| tree.path(&name))
        .collect();
    assert!(files.len() > 8, "only {} recipes found: the linter would pass for nothing", files.len());
    let output = Command::new(linter())
        .args(["--extra-layer=rauc", "--extra-layer=openembedded-layer", "--jobs=2", "--"])
        .args(files)
        .current_dir(tree.path("yocto-layer"))
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

#[test]
fn the_recipes_are_clean() {
    let found = findings(&Tree::repository());
    assert!(found.trim().is_empty(), "mend it, or give the reason in yocto-layer/.oelint.cfg\n{found}");
}

#[test]
fn a_recipe_without_a_licence_is_found() {
    let copy = Copy::of_the_repository();
    copy.replace("yocto-layer/recipes-gateway/vitalgate-platform/vitalgate-platform_0.1.0.bb", "LICENSE = \"Apache-2.0\"\n", "");
    let found = findings(&copy.tree);
    assert!(found.contains("oelint.var.mandatoryvar.LICENSE"), "{found}");
}
