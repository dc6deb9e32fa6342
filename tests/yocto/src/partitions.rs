//! The disk, as both builds describe it.

use vitalgate_layout::{Slot, partition};

use crate::{Breach, Tree};

const DESCRIPTION: &str = "yocto-layer/files/wic/vitalgate-ab-efi.wks.in";
const DISK: &str = "image/build/disk";

/// Name and size in MiB of each partition that a build writes; the data partition is the appliance's.
pub(crate) fn wanted() -> Vec<(String, u64)> {
    let mut partitions = vec![(partition::ESP.to_owned(), partition::ESP_MIB)];
    for slot in Slot::ALL {
        partitions.push((slot.root_label().to_owned(), partition::ROOT_MIB));
        partitions.push((slot.verity_label().to_owned(), partition::VERITY_MIB));
    }
    partitions
}

/// Name and size in MiB of each partition of the layer's description.
pub(crate) fn described(tree: &Tree) -> Vec<(String, u64)> {
    tree.text(DESCRIPTION)
        .lines()
        .filter(|line| line.starts_with("part "))
        .map(|line| {
            let option = |name: &str| {
                let mut words = line.split_ascii_whitespace().skip_while(|word| *word != name);
                words.nth(1).unwrap_or_default()
            };
            (option("--part-name").to_owned(), option("--fixed-size").trim_end_matches('M').parse().unwrap_or_default())
        })
        .collect()
}

/// image/layout is what the appliance looks for; both descriptions must say the same.
pub(crate) fn labels_agree(tree: &Tree) -> Vec<Breach> {
    let wanted = wanted();
    let described = described(tree);
    let mut breaches = Vec::new();
    for index in 0..wanted.len().max(described.len()) {
        let (left, right) = (wanted.get(index), described.get(index));
        if left != right {
            breaches
                .push(format!("{DESCRIPTION}: partition {} is {right:?} (name, MiB); image/layout says {left:?}, write that", index + 1));
        }
    }
    let disk = tree.text(DISK);
    let built: Vec<_> =
        disk.lines().filter_map(|line| line.trim_start().strip_prefix("part ")).filter_map(|rest| rest.split(' ').next()).collect();
    let names: Vec<_> = wanted.iter().map(|(name, _)| name.as_str()).collect();
    if built != names {
        breaches.push(format!("{DISK}: writes the partitions {built:?}; image/layout says {names:?}, write these"));
    }
    breaches
}
