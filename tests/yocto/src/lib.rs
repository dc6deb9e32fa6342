//! Keeps the Yocto layer and the Debian-built image the same, without bitbake: both are read as text.
//!
//! A rule is a function from a [`Tree`] to its breaches. Each breach is one line that says what to do.
//! The tests run all rules on the repository, and each rule on a copy with a fault planted in it.

#![forbid(unsafe_code)]

pub mod crates;
mod layer;
mod overlay;
mod partitions;
mod recipe;
#[cfg(test)]
mod tests;
mod tree;
mod updater;

pub use tree::Tree;

/// What is wrong and what to do, in one line.
pub type Breach = String;
/// Looks at one thing that must not drift.
pub type Rule = fn(&Tree) -> Vec<Breach>;

/// The newest Rust that a crate may ask for: the one of Yocto 6.0 "wrynose" is 1.94.1.
pub const RUST_VERSION_MAX: (u64, u64) = (1, 94);

/// All rules, by what they keep.
pub const RULES: [(&str, Rule); 13] = [
    ("the list of crates is that of Cargo.lock", crates::list_is_current),
    ("no crate needs a newer Rust than the layer's series has", crates::rust_is_not_too_new),
    ("layer.conf says all that a layer must say", layer::conf_is_complete),
    ("one version in all places", layer::versions_agree),
    ("disk descriptions are where wic looks", layer::disk_descriptions_are_found),
    ("no key, no script and no account is in the layer", layer::nothing_foreign),
    ("no file is in both places", overlay::no_copies),
    ("what the layer names is there", overlay::references_lead_somewhere),
    ("each static file of the image is shipped", overlay::all_is_shipped),
    ("both builds read the same lists", overlay::inputs_agree),
    ("both disks have the same partitions", partitions::labels_agree),
    ("the bundle fits the updater's slots", updater::slots_agree),
    ("the bundle is for the same machine", updater::compatible_agrees),
];
