SUMMARY = "First program of the boot, veritysetup and drivers"
DESCRIPTION = "Finds the slot that fits the signed root hash, opens it with dm-verity and hands over to systemd. \
There is no shell and nothing else in it."
HOMEPAGE = "https://vitalgate.example"
BUGTRACKER = "https://vitalgate.example/issues"
SECTION = "base"
LICENSE = "Apache-2.0"

IMAGE_FSTYPES = "cpio.zst"
INITRAMFS_FSTYPES = "cpio.zst"

inherit image vitalgate_initrd

PACKAGE_INSTALL = "vitalgate-initrd"
PACKAGE_INSTALL_ATTEMPTONLY = "${@' '.join('kernel-module-' + name.replace('_', '-') for name in vitalgate_drivers(d))}"
PACKAGE_EXCLUDE = "kernel-image-*"
IMAGE_FEATURES = ""
IMAGE_LINGUAS = ""
IMAGE_NAME_SUFFIX = ""
IMAGE_ROOTFS_SIZE = "8192"
IMAGE_ROOTFS_EXTRA_SPACE = "0"
INITRAMFS_MAXSIZE = "65536"
NO_RECOMMENDATIONS = "1"
