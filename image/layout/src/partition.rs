//! The partitions of the appliance's disk (GPT), by label.

/// EFI system partition: boot loader and one signed kernel image a slot.
pub const ESP: &str = "esp";
/// Created at the first boot over the rest of the disk: LUKS2, ext4.
pub const DATA: &str = "data";
/// What [`DATA`] is called until it is complete. A partition of this name holds nothing that anybody
/// needs; one that is called [`DATA`] is never made anew, except by a signed request.
pub const DATA_UNFINISHED: &str = "data-new";
/// Smallest data partition in MiB.
pub const DATA_MIB_MIN: u64 = 256;
/// Size of the EFI system partition in MiB.
pub const ESP_MIB: u64 = 160;
/// Size of a root partition in MiB.
pub const ROOT_MIB: u64 = 128;
/// Size of a partition of hashes (dm-verity) in MiB.
pub const VERITY_MIB: u64 = 4;
/// Name of the opened root under `/dev/mapper`.
pub const ROOT_MAPPING: &str = "root";
/// Name of the opened data partition under `/dev/mapper`.
pub const DATA_MAPPING: &str = "data";

#[cfg(test)]
mod tests {
    use super::*;

    /// The build writes the sizes that the updater and the tools count on.
    #[test]
    fn the_build_has_the_same_sizes() {
        let sizes = format!("\nESP_MIB={ESP_MIB} ROOT_MIB={ROOT_MIB} VERITY_MIB={VERITY_MIB}\n");
        assert!(include_str!("../../build/image").contains(&sizes), "{sizes}");
    }
}
