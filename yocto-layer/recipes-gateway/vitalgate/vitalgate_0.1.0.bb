SUMMARY = "Gateway for vital signs of medical devices, and the programs of its appliance"
SUMMARY:${PN}-appliance = "The appliance's privileged steps"
SUMMARY:${PN}-status = "The appliance's status page"
SUMMARY:${PN}-initrd = "First program of the appliance's boot"
DESCRIPTION = "Takes readings over MQTT and Modbus, keeps them on disk and delivers them to the EHR as FHIR \
R4 Observations. With it: the appliance's privileged steps, its status page and the first program of its boot."
HOMEPAGE = "https://vitalgate.example"
BUGTRACKER = "https://vitalgate.example/issues"
SECTION = "net"
CVE_PRODUCT = "vitalgate"
LICENSE = "Apache-2.0"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/Apache-2.0;md5=89aea4e17d99a7cacdbeed46a0096b10"

DEPENDS = "cmake-native systemd"

require vitalgate-crates.inc

# The product's own sources, from the repository that this layer is a folder of.
# tests/ is part of the workspace: cargo reads its manifests, nothing of it is built.
FILESEXTRAPATHS:prepend := "${VITALGATE_TOPDIR}:"
SRC_URI += "\
    file://Cargo.toml;subdir=${BP} \
    file://Cargo.lock;subdir=${BP} \
    file://gateway;subdir=${BP} \
    file://device-drivers;subdir=${BP} \
    file://cloud-bridge;subdir=${BP} \
    file://image/appliance;subdir=${BP} \
    file://image/imagectl;subdir=${BP} \
    file://image/initrd;subdir=${BP} \
    file://image/layout;subdir=${BP} \
    file://image/site;subdir=${BP} \
    file://image/status;subdir=${BP} \
    file://tests;subdir=${BP} \
"

S = "${UNPACKDIR}/${BP}"

inherit cargo pkgconfig

CARGO_BUILD_FLAGS += "\
    --package vitalgate-daemon \
    --package vitalgate-appliance \
    --package vitalgate-status \
    --package vitalgate-initrd \
"

do_install() {
    for program in vitalgate vitalgate-appliance vitalgate-status; do
        install -D -m 0755 "${B}/target/${CARGO_TARGET_SUBDIR}/$program" "${D}${bindir}/$program"
    done
    install -d ${D}${nonarch_libdir}/vitalgate
    # The updater calls these by name.
    for name in bootchooser pre-install; do
        ln -s ../../bin/vitalgate-appliance "${D}${nonarch_libdir}/vitalgate/$name"
    done
    install -D -m 0755 "${B}/target/${CARGO_TARGET_SUBDIR}/vitalgate-initrd" "${D}/init"
}

PACKAGE_BEFORE_PN = "${PN}-appliance ${PN}-status ${PN}-initrd"
FILES:${PN}-appliance = "${bindir}/vitalgate-appliance ${nonarch_libdir}/vitalgate"
FILES:${PN}-status = "${bindir}/vitalgate-status"
FILES:${PN}-initrd = "/init"
RDEPENDS:${PN}-initrd = "cryptsetup"
