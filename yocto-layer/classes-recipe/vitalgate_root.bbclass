# Makes the root of the packages' files: what image/dropped names goes, of the programs only those of
# image/programs stay, the files of image/rootfs are laid over it, keys to trust are put in, and
# image/build/check refuses a root with a way in. The same lists, files and check as the Debian-built image.

inherit vitalgate_lists

IMAGE_PREPROCESS_COMMAND:append = " vitalgate_root vitalgate_root_check"
do_image[vardeps] += "VITALGATE_KEYS VITALGATE_VERSION VITALGATE_SUPPORT_YEARS VITALGATE_TIMESTAMP RAUC_COMPATIBLE"
do_image[file-checksums] += "\
    ${VITALGATE_TOPDIR}/image/dropped:True \
    ${VITALGATE_TOPDIR}/image/programs:True \
    ${VITALGATE_TOPDIR}/image/build/check:True \
    ${VITALGATE_TOPDIR}/image/version-floor:True \
"

# How long this image gets updates, in years, as in image/build/root.
VITALGATE_SUPPORT_YEARS ?= "5"
# Made by packages below a folder that image/dropped empties.
VITALGATE_KEPT = "etc/mke2fs.conf etc/ssl/certs/ca-certificates.crt"
# Programs beyond image/programs: our own, and one that newer systemd has moved here.
VITALGATE_PROGRAMS = "vitalgate vitalgate-appliance vitalgate-status systemd-cryptsetup"
# Of image/programs, those that no layer named in README.md has.
VITALGATE_PROGRAMS_ABSENT = "apparmor_parser"


def vitalgate_braces(pattern):
    """Shell braces, one level: a{b,c} is ab and ac."""
    head, opening, rest = pattern.partition("{")
    if not opening:
        return [pattern]
    choices, _, tail = rest.partition("}")
    return [head + choice + end for choice in choices.split(",") for end in vitalgate_braces(tail)]


def vitalgate_delete(path):
    import os
    import shutil

    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


def vitalgate_prune(d, root):
    """Removes what the packages bring and the appliance does not keep."""
    import glob
    import os
    import stat

    for line in vitalgate_lines(d, "dropped"):
        for pattern in vitalgate_braces(line):
            for path in glob.glob(os.path.join(root, pattern)):
                vitalgate_delete(path)
    programs = set(vitalgate_words(d, "programs")) | set(d.getVar("VITALGATE_PROGRAMS").split())
    folders = [os.path.join(root, folder) for folder in ("usr/bin", "usr/sbin")]
    files = {os.path.join(folder, name) for folder in folders if os.path.isdir(folder) for name in os.listdir(folder)}
    kept = {path for path in files if os.path.basename(path) in programs}
    missing = programs - {os.path.basename(path) for path in kept} - set(d.getVar("VITALGATE_PROGRAMS_ABSENT").split())
    if missing:
        bb.fatal("no package brings %s: add one that does to packagegroup-vitalgate" % " ".join(sorted(missing)))
    # A program may be a link to one of another name: mount -> mount.util-linux.
    for path in sorted(kept):
        while os.path.islink(path):
            target = os.readlink(path)
            path = root + target if target.startswith("/") else os.path.normpath(os.path.join(os.path.dirname(path), target))
            kept.add(path)
    for path in files - kept:
        vitalgate_delete(path)
    for folder, _, names in os.walk(root):
        for path in (os.path.join(folder, name) for name in names):
            if os.path.islink(path) or not os.path.isfile(path):
                continue
            with open(path, "rb") as text:
                script = text.read(2) == b"#!"
            if script:
                os.unlink(path)
            else:
                os.chmod(path, os.stat(path).st_mode & ~(stat.S_ISUID | stat.S_ISGID))
    vitalgate_tidy(root)


def vitalgate_tidy(root):
    """Removes links that lead nowhere any more, and folders with nothing in them."""
    import os

    for folder, folders, names in os.walk(root, topdown=False):
        for path in (os.path.join(folder, name) for name in names + folders):
            if os.path.islink(path) and not os.readlink(path).startswith("/") and not os.path.exists(path):
                os.unlink(path)
        if folder != root and not os.listdir(folder):
            os.rmdir(folder)


vitalgate_root[doc] = "Makes the root of the packages' files and the shared ones"
python vitalgate_root() {
    import os
    import shutil
    import time

    root = d.getVar("IMAGE_ROOTFS")
    keys = d.getVar("VITALGATE_KEYS")
    if not keys:
        bb.fatal("VITALGATE_KEYS is empty: set it to the folder with the keys that the appliance trusts (see yocto-layer/README.md)")
    if not d.getVar("VITALGATE_TIMESTAMP"):
        bb.fatal("VITALGATE_TIMESTAMP is empty: set it to the time of the revision, git log -1 --format=%ct")
    built = int(d.getVar("VITALGATE_TIMESTAMP"))
    kept = {name: open(os.path.join(root, name), "rb").read() for name in d.getVar("VITALGATE_KEPT").split()}
    shared = root + d.expand("${datadir}/vitalgate-platform")
    overlay = os.path.join(d.getVar("WORKDIR"), "vitalgate-overlay")
    vitalgate_delete(overlay)
    shutil.copytree(os.path.join(shared, "rootfs"), overlay, symlinks=True)
    shutil.rmtree(shared)

    vitalgate_prune(d, root)

    for folder in "dev proc sys run tmp var efi data etc/ssl/certs usr/lib/vitalgate/trust".split():
        bb.utils.mkdirhier(os.path.join(root, folder))
    for name, content in kept.items():
        with open(os.path.join(root, name), "wb") as output:
            output.write(content)
    for folder, folders, names in os.walk(overlay):
        target = os.path.join(root, os.path.relpath(folder, overlay))
        bb.utils.mkdirhier(target)
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        for name in names + links:
            path = os.path.join(target, name)
            vitalgate_delete(path)
            shutil.copy2(os.path.join(folder, name), path, follow_symlinks=False)
            if not os.path.islink(path):
                os.chmod(path, 0o755 if os.stat(path).st_mode & 0o111 else 0o644)
    os.chmod(os.path.join(root, "etc/shadow"), 0o600)
    trust = os.path.join(root, "usr/lib/vitalgate/trust")
    for source, name in (("site/root.pub", "site-root.pub"), ("support/recipient", "support.age"), ("rauc/ca.crt", "bundles.pem")):
        if name != "support.age" or os.path.exists(os.path.join(keys, source)):
            shutil.copyfile(os.path.join(keys, source), os.path.join(trust, name))
            os.chmod(os.path.join(trust, name), 0o644)
    shutil.copyfile(d.expand("${VITALGATE_TOPDIR}/image/version-floor"), os.path.join(trust, "version-floor"))
    # Its time, which the image's last step sets, is the earliest that the clock can have.
    open(os.path.join(root, "usr/lib/clock-epoch"), "w").close()
    supported = built + int(d.getVar("VITALGATE_SUPPORT_YEARS")) * 31557600
    with open(os.path.join(root, "usr/lib/os-release"), "a") as release:
        release.write(d.expand("IMAGE_ID=${RAUC_COMPATIBLE}\n"))
        release.write(time.strftime("BUILD_ID=%Y%m%d%H%M%S\n", time.gmtime(built)))
        release.write(time.strftime("SUPPORT_END=%Y-%m-%d\n", time.gmtime(supported)))
}

vitalgate_root_check[doc] = "Refuses a root with a way in"
vitalgate_root_check() {
    # The package manager's own records are no part of an appliance that is replaced as a whole.
    rm -rf ${IMAGE_ROOTFS}/var/lib ${IMAGE_ROOTFS}/boot
    bash ${VITALGATE_TOPDIR}/image/build/check ${IMAGE_ROOTFS} ""
}
