SUMMARY = "Static files of the appliance: units, accounts, updater, network, journal"
DESCRIPTION = "The files below image/rootfs, as they are. They are laid over the root as the last step of the image, \
since some take the place of a file of another package."
HOMEPAGE = "https://vitalgate.example"
BUGTRACKER = "https://vitalgate.example/issues"
SECTION = "base"
LICENSE = "Apache-2.0"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/Apache-2.0;md5=89aea4e17d99a7cacdbeed46a0096b10"

INHIBIT_DEFAULT_DEPS = "1"

# Whole folders: a file that is added to one of them is shipped. A new folder is named here.
# usr/lib/rauc is not: the rauc-conf of the updater's layer ships that one.
FILESEXTRAPATHS:prepend := "${VITALGATE_TOPDIR}/image:"
SRC_URI = "\
    file://rootfs/etc \
    file://rootfs/usr/lib/sysctl.d \
    file://rootfs/usr/lib/systemd \
    file://rootfs/usr/lib/tmpfiles.d \
    file://rootfs/usr/lib/udev \
    file://rootfs/usr/lib/vitalgate \
"

S = "${UNPACKDIR}"

inherit allarch

do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    install -d ${D}${datadir}/vitalgate-platform
    cp -R --no-dereference --no-preserve=ownership ${S}/rootfs ${D}${datadir}/vitalgate-platform/
}

FILES:${PN} = "${datadir}/vitalgate-platform"
