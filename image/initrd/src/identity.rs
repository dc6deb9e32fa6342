//! The machine's own name: stable over updates and resets, made from what the maker wrote into it.

use std::{fs, path::Path};

use sha2::{Digest, Sha256};

use crate::verity;

const DMI: &str = "/sys/class/dmi/id";
/// What a maker may have filled in; the first byte of each line keeps them apart.
const FIELDS: [&str; 4] = ["product_uuid", "product_serial", "board_serial", "chassis_serial"];

/// 32 hex digits for `/etc/machine-id`.
pub(crate) fn machine_id() -> String {
    machine_id_of(Path::new(DMI))
}

fn machine_id_of(folder: &Path) -> String {
    let mut hash = Sha256::new();
    hash.update(b"vitalgate machine id 1\n");
    for field in FIELDS {
        let value = fs::read_to_string(folder.join(field)).unwrap_or_default();
        hash.update(format!("{field}={}\n", value.trim()));
    }
    verity::hex(hash.finalize().get(..16).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same machine has the same name at each boot, another machine has another.
    #[test]
    fn the_name_follows_the_machine() {
        let folder = tempfile::tempdir().unwrap();
        let unnamed = machine_id_of(folder.path());
        fs::write(folder.path().join("product_uuid"), "6d1c\n").unwrap();
        let named = machine_id_of(folder.path());
        assert_eq!(named, machine_id_of(folder.path()));
        assert_ne!(named, unnamed);
        assert_eq!(named.len(), 32);
    }
}
