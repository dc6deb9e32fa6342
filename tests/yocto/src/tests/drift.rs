//! Each rule finds the fault that it is there for, and says what to do.

use crate::{RULES, crates, layer, overlay, partitions, tests::Copy, updater};

const SYSTEM: &str = "image/rootfs/usr/lib/rauc/system.conf";
const WKS: &str = "yocto-layer/files/wic/vitalgate-ab-efi.wks.in";

/// Runs a rule on a copy: nothing before the fault, a line with all of `words` after it.
fn found(rule: crate::Rule, plant: impl FnOnce(&Copy), words: &[&str]) {
    let copy = Copy::of_the_repository();
    assert_eq!(rule(&copy.tree), Vec::<String>::new(), "a breach before the fault was planted");
    plant(&copy);
    let breaches = rule(&copy.tree);
    assert!(breaches.iter().any(|breach| words.iter().all(|word| breach.contains(word))), "no line with {words:?} among {breaches:#?}");
    assert!(RULES.iter().any(|(_, known)| std::ptr::fn_addr_eq(*known, rule)), "the rule is not among those that are run");
}

#[test]
fn a_renamed_slot() {
    found(
        updater::slots_agree,
        |copy| copy.replace(SYSTEM, "[slot.rootfs.", "[slot.system."),
        &["RAUC_BUNDLE_SLOTS", "system", "write the same in both"],
    );
}

#[test]
fn a_slot_on_a_partition_that_is_not_there() {
    found(
        updater::slots_agree,
        |copy| copy.replace(SYSTEM, "by-partlabel/root-b", "by-partlabel/root-c"),
        &["root-c", "name one of these"],
    );
}

#[test]
fn another_machine() {
    found(
        updater::compatible_agrees,
        |copy| copy.replace("yocto-layer/conf/machine/vitalgate-x86.conf", "vitalgate-amd64", "vitalgate-x86"),
        &["RAUC_COMPATIBLE", "write the same in both"],
    );
}

#[test]
fn a_dropped_crate() {
    found(
        crates::list_is_current,
        |copy| {
            let text = copy.tree.text(crates::LIST);
            let dropped: Vec<_> = text.lines().filter(|line| !line.contains("crates.io/tokio/")).collect();
            copy.tree.write(crates::LIST, &format!("{}\n", dropped.join("\n"))).unwrap();
        },
        &["crate://crates.io/tokio/", "make yocto-crates"],
    );
}

#[test]
fn a_checksum_that_is_another() {
    found(
        crates::list_is_current,
        |copy| {
            let text = copy.tree.text(crates::LIST);
            let sum = text.lines().find(|line| line.contains("sha256sum")).unwrap().to_owned();
            copy.replace(crates::LIST, &sum, "SRC_URI[adler2-0.0.0.sha256sum] = \"00\"");
        },
        &["sha256sum", "make yocto-crates"],
    );
}

#[test]
fn a_crate_from_a_repository() {
    found(
        crates::list_is_current,
        |copy| {
            let lock = copy.tree.text("Cargo.lock");
            let package = "\n[[package]]\nname = \"sled\"\nversion = \"1.0.0\"\nsource = \"git+https://example.org/sled#0\"\n";
            copy.tree.write("Cargo.lock", &format!("{lock}{package}")).unwrap();
        },
        &["sled", "take a release"],
    );
}

#[test]
fn a_workspace_that_needs_a_newer_compiler() {
    found(
        crates::rust_is_not_too_new,
        |copy| copy.replace("Cargo.toml", "rust-version = \"1.94\"", "rust-version = \"1.97\""),
        &["needs Rust 1.97", "older version"],
    );
}

#[test]
fn a_copy_of_the_updaters_configuration() {
    found(
        overlay::no_copies,
        |copy| copy.add("yocto-layer/dynamic-layers/rauc/recipes-core/rauc/files/system.conf", &copy.tree.text(SYSTEM)),
        &["a copy of image/rootfs/usr/lib/rauc/system.conf", "delete it"],
    );
}

#[test]
fn a_copy_under_another_name() {
    found(
        overlay::no_copies,
        |copy| copy.add("yocto-layer/files/kernel-words", &copy.tree.text("image/cmdline")),
        &["a copy of image/cmdline", "delete it"],
    );
}

#[test]
fn a_renamed_partition() {
    found(
        partitions::labels_agree,
        |copy| copy.replace(WKS, "--part-name verity-b", "--part-name hash-b"),
        &["hash-b", "verity-b", "write that"],
    );
}

#[test]
fn a_partition_of_another_size() {
    found(partitions::labels_agree, |copy| copy.replace(WKS, "--fixed-size 160M", "--fixed-size 96M"), &["96", "160", "write that"]);
}

#[test]
fn a_renamed_partition_of_the_other_build() {
    found(
        partitions::labels_agree,
        |copy| copy.replace("image/build/disk", "part root-b", "part root-2"),
        &["image/build/disk", "root-2", "write these"],
    );
}

#[test]
fn a_static_file_that_no_recipe_ships() {
    found(
        overlay::all_is_shipped,
        |copy| copy.add("image/rootfs/usr/share/vitalgate/words.txt", "words"),
        &["shipped by no recipe", "add usr/share/vitalgate to VITALGATE_FOLDERS"],
    );
}

#[test]
fn a_deleted_folder_that_a_recipe_names() {
    found(
        overlay::references_lead_somewhere,
        |copy| copy.remove("image/rootfs/usr/lib/tmpfiles.d"),
        &["image/rootfs/usr/lib/tmpfiles.d", "take the name out"],
    );
}

#[test]
fn a_deleted_list_that_a_class_reads() {
    found(overlay::references_lead_somewhere, |copy| copy.remove("image/modules-initrd"), &["image/modules-initrd", "bring it back"]);
}

#[test]
fn a_deleted_configuration_of_the_updater() {
    found(
        overlay::references_lead_somewhere,
        |copy| copy.remove("image/rootfs/usr/lib/rauc"),
        &["image/rootfs/usr/lib/rauc", "bring it back"],
    );
}

#[test]
fn a_list_that_only_one_build_reads() {
    found(
        overlay::inputs_agree,
        |copy| {
            copy.add("image/fonts", "noto");
            copy.replace("image/build/root", "cp image/version-floor ", "cp image/fonts \"$root/\"; cp image/version-floor ");
        },
        &["image/fonts", "read it in a class", "or give the reason"],
    );
}

#[test]
fn another_time_of_support() {
    found(
        overlay::inputs_agree,
        |copy| copy.replace("yocto-layer/classes-recipe/vitalgate_root.bbclass", "SUPPORT_YEARS ?= \"5\"", "SUPPORT_YEARS ?= \"7\""),
        &["VITALGATE_SUPPORT_YEARS", "write the same in both"],
    );
}

#[test]
fn a_disk_description_where_nobody_looks() {
    found(
        layer::disk_descriptions_are_found,
        |copy| {
            copy.add("yocto-layer/wic/vitalgate-ab-efi.wks.in", "part");
            copy.remove(WKS);
        },
        &["yocto-layer/wic/", "move it"],
    );
}

#[test]
fn a_layer_that_does_not_say_its_series() {
    found(
        layer::conf_is_complete,
        |copy| copy.replace("yocto-layer/conf/layer.conf", "wrynose", "scarthgap"),
        &["LAYERSERIES_COMPAT", "wrynose"],
    );
}

#[test]
fn a_recipe_of_another_version() {
    found(
        layer::versions_agree,
        |copy| copy.replace("Cargo.toml", "version = \"0.1.0\"", "version = \"0.2.0\""),
        &["vitalgate_0.2.0.bb", "rename"],
    );
}

#[test]
fn a_key_in_the_layer() {
    found(
        layer::nothing_foreign,
        |copy| copy.add("yocto-layer/files/ca.pem", "-----BEGIN CERTIFICATE-----\n"),
        &["ca.pem", "VITALGATE_KEYS"],
    );
}

#[test]
fn an_account_of_the_layers_own() {
    found(
        layer::nothing_foreign,
        |copy| copy.add("yocto-layer/recipes-core/extra/extra_1.0.bb", "inherit allarch useradd\n"),
        &["makes accounts", "image/rootfs/etc/passwd"],
    );
}
