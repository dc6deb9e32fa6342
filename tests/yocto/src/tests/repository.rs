//! The repository keeps its rules.

use cargo_metadata::MetadataCommand;

use crate::{RULES, Tree, crates};

#[test]
fn the_layer_and_the_image_have_not_drifted() {
    let tree = Tree::repository();
    let breaches: Vec<_> =
        RULES.iter().flat_map(|(keeps, rule)| rule(&tree).into_iter().map(move |breach| format!("{keeps}: {breach}"))).collect();
    assert!(breaches.is_empty(), "the Yocto layer and the image have drifted apart\n{}", breaches.join("\n"));
}

/// The compiler of the layer's series builds every crate of Cargo.lock.
#[test]
fn no_crate_needs_a_newer_compiler_than_the_layer_has() {
    let metadata = MetadataCommand::new()
        .manifest_path(Tree::repository().path("Cargo.toml"))
        .other_options(vec!["--offline".into(), "--locked".into()])
        .exec()
        .unwrap();
    assert!(metadata.packages.len() > 150, "only {} crates: the rule would pass for nothing", metadata.packages.len());
    let breaches: Vec<_> = metadata
        .packages
        .iter()
        .filter_map(|package| {
            let wanted = package.rust_version.as_ref()?;
            crates::newer_than_the_layer(&format!("{} {}", package.name, package.version), &wanted.to_string())
        })
        .collect();
    assert!(breaches.is_empty(), "a crate is too new\n{}", breaches.join("\n"));
    assert!(crates::newer_than_the_layer("a crate", "1.95.0").is_some_and(|breach| breach.contains("older version")));
}
