SUMMARY = "What the appliance's root is made of"
DESCRIPTION = "The counterpart of image/packages. What a package brings beyond image/programs is removed again by the image."
HOMEPAGE = "https://vitalgate.example"
BUGTRACKER = "https://vitalgate.example/issues"
SECTION = "base"

PACKAGE_ARCH = "${MACHINE_ARCH}"

inherit packagegroup vitalgate_lists

RDEPENDS:${PN} = "\
    ca-certificates \
    chrony \
    chronyc \
    cryptsetup \
    dbus \
    dosfstools \
    e2fsprogs-e2fsck \
    e2fsprogs-mke2fs \
    e2fsprogs-resize2fs \
    kernel-base \
    kmod \
    libdevmapper \
    nftables \
    os-release \
    systemd \
    systemd-analyze \
    systemd-crypt \
    systemd-extra-utils \
    systemd-networkd \
    udev \
    util-linux-blkdiscard \
    util-linux-blkid \
    util-linux-fsck \
    util-linux-lsblk \
    util-linux-mount \
    util-linux-partx \
    util-linux-sfdisk \
    util-linux-umount \
    util-linux-wipefs \
    vitalgate \
    vitalgate-appliance \
    vitalgate-platform \
    vitalgate-status \
"

# A driver that is built into the kernel, or that this machine's kernel has not, has no package.
RRECOMMENDS:${PN} = "${@' '.join('kernel-module-' + name.replace('_', '-') for name in vitalgate_words(d, 'modules') + vitalgate_words(d, 'modules-amd64') + vitalgate_words(d, 'modules-arm64'))}"
