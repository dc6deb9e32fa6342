SUMMARY = "Update bundle of the appliance"
DESCRIPTION = "Root, hashes and the signed kernel image that goes with them, signed as a whole."
HOMEPAGE = "https://vitalgate.example"
BUGTRACKER = "https://vitalgate.example/issues"
SECTION = "base"
LICENSE = "Apache-2.0"

COMPATIBLE_MACHINE = "^vitalgate-"

inherit bundle

RAUC_BUNDLE_COMPATIBLE = "${RAUC_COMPATIBLE}"
RAUC_BUNDLE_VERSION = "${VITALGATE_VERSION}"
RAUC_BUNDLE_DESCRIPTION = "Vitalgate ${VITALGATE_VERSION}"
RAUC_BUNDLE_BUILD = "${VITALGATE_VERSION}"
RAUC_BUNDLE_FORMAT = "verity"

# Slot classes of image/rootfs/usr/lib/rauc/system.conf.
RAUC_BUNDLE_SLOTS = "rootfs verity"
RAUC_SLOT_rootfs = "vitalgate-image"
RAUC_SLOT_rootfs[file] = "vitalgate-image-${MACHINE}.rootfs.squashfs-zst.verity"
RAUC_SLOT_rootfs[rename] = "rootfs.img"
RAUC_SLOT_rootfs[adaptive] = "block-hash-index"
RAUC_SLOT_verity = "vitalgate-image"
RAUC_SLOT_verity[file] = "vitalgate-image-${MACHINE}.rootfs.squashfs-zst.verity-hash"
RAUC_SLOT_verity[rename] = "verity.img"

# The handler before an installation takes it from the bundle.
RAUC_BUNDLE_EXTRA_DEPENDS = "vitalgate-image:do_image_complete"
RAUC_BUNDLE_EXTRA_FILES = "vitalgate-${MACHINE}.efi"

python do_configure:append() {
    import os
    bundle = d.getVar("BUNDLE_DIR")
    os.rename(d.expand("%s/vitalgate-${MACHINE}.efi" % bundle), os.path.join(bundle, "vitalgate.efi"))
}

RAUC_KEY_FILE = "${VITALGATE_KEYS}/rauc/release.key"
RAUC_CERT_FILE = "${VITALGATE_KEYS}/rauc/release.crt"
RAUC_KEYRING_FILE = "${VITALGATE_KEYS}/rauc/ca.crt"
