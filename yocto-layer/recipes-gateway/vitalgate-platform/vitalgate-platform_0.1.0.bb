SUMMARY = "Static files of the appliance: units, accounts, updater, network, journal"
DESCRIPTION = "The files below image/rootfs, as they are. They are laid over the root as the last step of the image, \
since some take the place of a file of another package."
HOMEPAGE = "https://vitalgate.example"
BUGTRACKER = "https://vitalgate.example/issues"
SECTION = "base"
LICENSE = "Apache-2.0"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/Apache-2.0;md5=89aea4e17d99a7cacdbeed46a0096b10"

INHIBIT_DEFAULT_DEPS = "1"

inherit allarch vitalgate_lists

# Whole folders of image/rootfs: a file that is added to one of them is shipped. A new folder is named here.
# usr/lib/rauc is not: the rauc-conf of the updater's layer ships that one.
VITALGATE_FOLDERS = "\
    etc \
    usr/lib/modules-load.d \
    usr/lib/sysctl.d \
    usr/lib/systemd \
    usr/lib/tmpfiles.d \
    usr/lib/udev \
    usr/lib/vitalgate \
    usr/share/dbus-1/system.d \
"

# Links lead to files of other packages: bitbake's checksums can not follow them, so they are made here.
FILESEXTRAPATHS:prepend := "${VITALGATE_TOPDIR}/image:"
SRC_URI = "${@vitalgate_files(d)}"
VITALGATE_LINKS = "${@vitalgate_links(d)}"

S = "${UNPACKDIR}"

do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    install -d ${D}${datadir}/vitalgate-platform
    cp -R --no-preserve=ownership ${S}/rootfs ${D}${datadir}/vitalgate-platform/
    for link in ${VITALGATE_LINKS}; do
        name="${D}${datadir}/vitalgate-platform/rootfs/${link%%=*}"
        install -d "$(dirname "$name")"
        ln -s "${link#*=}" "$name"
    done
}

FILES:${PN} = "${datadir}/vitalgate-platform"
