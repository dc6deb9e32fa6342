# The signed kernel image: uki.bbclass with the root hash on the command line, and with the signature
# over PCR 11 that uki.bbclass leaves out. What PCR 11 will be is computed from the sections of the
# finished image, so that nothing of it is guessed; image/build/pcr-signature signs it, no TPM is needed.

inherit uki vitalgate_lists

DEPENDS += "openssl-native"
do_uki[depends] += "${@'sbsigntool-native:do_populate_sysroot' if 'signing-key' in d.getVar('BBFILE_COLLECTIONS') else ''}"
do_uki[vardeps] += "VITALGATE_KEYS VITALGATE_CONSOLE"
do_uki[file-checksums] += "\
    ${VITALGATE_TOPDIR}/image/cmdline:True \
    ${VITALGATE_TOPDIR}/image/build/pcr-signature:True \
"

# The console of the boards that the machine stands for.
VITALGATE_CONSOLE ?= ""
VITALGATE_CONSOLE:aarch64 ?= "console=ttyAMA0,115200"

# In the order in which systemd-stub measures them.
VITALGATE_SECTIONS = ".linux .osrel .cmdline .initrd .ucode .splash .dtb .uname .sbat .pcrpkey .profile"


def vitalgate_sections(image):
    """Name and content of each section of a PE file (Microsoft PE format, section table)."""
    import struct

    with open(image, "rb") as content:
        data = content.read()
    header = struct.unpack_from("<I", data, 0x3C)[0]
    if data[:2] != b"MZ" or data[header:header + 4] != b"PE\0\0":
        bb.fatal("%s is no PE file" % image)
    count, = struct.unpack_from("<H", data, header + 6)
    optional, = struct.unpack_from("<H", data, header + 20)
    sections = {}
    for index in range(count):
        name, virtual, _, raw, offset = struct.unpack_from("<8sIIII", data, header + 24 + optional + 40 * index)
        sections.setdefault(name.rstrip(b"\0").decode(), data[offset:offset + min(virtual, raw)])
    return sections


def vitalgate_root_hash(d):
    """The root hash that image_types_verity wrote down."""
    with open(d.expand("${IMGDEPLOYDIR}/${IMAGE_LINK_NAME}.${VERITY_IMAGE_FSTYPE}.verity-params")) as params:
        values = dict(line.strip().split("=", 1) for line in params if "=" in line)
    return values["VERITY_ROOT_HASH"]


python do_uki() {
    import os
    import bb.process

    keys = d.getVar("VITALGATE_KEYS")
    if not keys:
        bb.fatal("VITALGATE_KEYS is empty: set it to the folder with the keys that sign (see yocto-layer/README.md)")
    deploy = d.getVar("DEPLOY_DIR_IMAGE")
    work = d.getVar("B")
    words = ["vitalgate.roothash=" + vitalgate_root_hash(d)] + " ".join(vitalgate_lines(d, "cmdline")).split()
    words += (d.getVar("VITALGATE_CONSOLE") or "").split()
    with open(os.path.join(work, "cmdline"), "w") as cmdline:
        cmdline.write(" ".join(words))

    def build(output, arguments):
        command = [
            "ukify", "build", "--efi-arch", d.getVar("EFI_ARCH"),
            "--stub", d.expand("%s/linux${EFI_ARCH}.efi.stub" % deploy),
            "--linux", d.expand("%s/${UKI_KERNEL_FILENAME}" % deploy),
            "--initrd", d.expand("%s/${INITRAMFS_IMAGE}-${MACHINE}.%s" % (deploy, d.getVar("INITRAMFS_FSTYPES").split()[0])),
            "--cmdline", "@%s/cmdline" % work,
            "--os-release", d.expand("@${IMAGE_ROOTFS}/usr/lib/os-release"),
            "--pcrpkey", "%s/pcr/public.pem" % keys,
            "--output", output,
        ]
        bb.process.run(command + arguments)

    unsigned = os.path.join(work, "unsigned.efi")
    build(unsigned, [])
    sections = vitalgate_sections(unsigned)
    arguments = []
    for name in d.getVar("VITALGATE_SECTIONS").split():
        if name in sections:
            path = os.path.join(work, "section" + name)
            with open(path, "wb") as output:
                output.write(sections[name])
            arguments.append("%s=%s" % (name, path))
    signer = d.expand("${VITALGATE_TOPDIR}/image/build/pcr-signature")
    signature, _ = bb.process.run(["bash", signer, "%s/pcr/private.pem" % keys, "%s/pcr/public.pem" % keys] + arguments)
    with open(os.path.join(work, "pcrsig"), "w") as output:
        output.write(signature)

    signed = d.expand("%s/${UKI_FILENAME}" % deploy)
    build(signed, [
        "--section", ".pcrsig:@%s/pcrsig" % work,
        "--signtool", "sbsign", "--no-sign-kernel",
        "--secureboot-private-key", "%s/secureboot/db.key" % keys,
        "--secureboot-certificate", "%s/secureboot/db.crt" % keys,
    ])
    measured = vitalgate_sections(signed)
    for name in d.getVar("VITALGATE_SECTIONS").split():
        if measured.get(name) != sections.get(name):
            bb.fatal("%s of the signed kernel image is not what was signed for PCR 11" % name)
    with open(os.path.join(deploy, d.getVar("VITALGATE_LOADER_FILE")), "w") as loader:
        loader.write("default vitalgate-*\ntimeout 0\neditor no\nconsole-mode keep\n")
}
# The command line carries the root hash: after the hash tree, before the disk.
addtask uki after do_image_verity before do_image_wic do_image_complete
