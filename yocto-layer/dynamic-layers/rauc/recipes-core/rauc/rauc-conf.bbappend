# The updater's configuration is the Debian-built image's own file; the authority comes from outside.
FILESEXTRAPATHS:prepend:vitalgate-os := "${VITALGATE_TOPDIR}/image/rootfs/etc/rauc:${VITALGATE_KEYS}/rauc:"
RAUC_KEYRING_FILE:vitalgate-os = "ca.crt"
