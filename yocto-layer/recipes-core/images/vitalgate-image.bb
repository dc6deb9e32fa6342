SUMMARY = "The appliance: a verified root without a shell, in two slots"
DESCRIPTION = "Read-only squashfs root with dm-verity, its root hash in a signed kernel image, slots for updates by RAUC. \
The same lists, static files, accounts and checks as the Debian-built image."
HOMEPAGE = "https://vitalgate.example"
BUGTRACKER = "https://vitalgate.example/issues"
SECTION = "base"
LICENSE = "Apache-2.0"

COMPATIBLE_MACHINE = "^vitalgate-"

# uki among the image classes tells wic that the loader has no entries of its own.
IMAGE_CLASSES += "uki image_types_verity sbom-cve-check"
IMAGE_FSTYPES = "squashfs-zst verity wic.zst wic.bmap"
INITRAMFS_IMAGE = "vitalgate-initramfs"
INITRAMFS_FSTYPES = "cpio.zst"

inherit image features_check vitalgate_root vitalgate_uki

REQUIRED_DISTRO_FEATURES = "efi rauc seccomp systemd tpm2"
REQUIRED_MACHINE_FEATURES = "efi"

IMAGE_INSTALL = "packagegroup-vitalgate rauc rauc-conf"
IMAGE_FEATURES = "read-only-rootfs"
NO_RECOMMENDATIONS = "0"
# Marking a slot good is the health gate's decision.
BAD_RECOMMENDATIONS = "rauc-mark-good busybox busybox-syslog busybox-udhcpc"
FORCE_RO_REMOVE = "1"

# Root and hashes, as the slots take them: 4096-byte blocks, superblock, salt.
VERITY_IMAGE_FSTYPE = "squashfs-zst"
VERITY_IMAGE_HASHDEV_SUFFIX = ".verity-hash"
VERITY_SALT = "${@__import__('hashlib').sha256(d.expand('vitalgate ${VITALGATE_VERSION} verity').encode()).hexdigest()}"
# nooelint: oelint.vars.specific - the type of the image, as in image_types.bbclass
EXTRA_IMAGECMD:squashfs-zst = "-all-root -no-xattrs -b 128K -Xcompression-level 19"

# Names that the disk (files/wic) and the bundle use.
VITALGATE_ROOT_FILE = "${IMGDEPLOYDIR}/${IMAGE_LINK_NAME}.squashfs-zst.verity"
VITALGATE_VERITY_FILE = "${IMGDEPLOYDIR}/${IMAGE_LINK_NAME}.squashfs-zst.verity-hash"
VITALGATE_LOADER_FILE = "vitalgate-loader-${MACHINE}.conf"
UKI_FILENAME = "vitalgate-${MACHINE}.efi"
IMAGE_EFI_BOOT_FILES = "\
    ${UKI_FILENAME};EFI/Linux/vitalgate-a_${VITALGATE_VERSION}+3.efi \
    ${VITALGATE_LOADER_FILE};loader/loader.conf \
"
WKS_FILE = "vitalgate-ab-efi.wks.in"
do_image_wic[depends] += "systemd-boot:do_deploy"
