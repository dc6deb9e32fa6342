# The updater's configuration is the Debian-built image's own file; the authority comes from outside.
FILESEXTRAPATHS:prepend:vitalgate-os := "${VITALGATE_TOPDIR}/image/rootfs/usr/lib/rauc:${VITALGATE_KEYS}/rauc:"
RAUC_KEYRING_FILE:vitalgate-os = "ca.crt"

# The same file on another machine takes other bundles.
PACKAGE_ARCH:vitalgate-os = "${MACHINE_ARCH}"
do_install:append:vitalgate-os() {
    sed -i "s/^compatible=.*/compatible=${RAUC_COMPATIBLE}/" ${D}${nonarch_libdir}/rauc/system.conf
}
