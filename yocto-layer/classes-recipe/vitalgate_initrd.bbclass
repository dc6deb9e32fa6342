# Leaves in the initrd what the first program of the boot needs: itself, veritysetup, libraries, and
# drivers with their order (image/modules-initrd) written down as image/build/base writes it.

inherit vitalgate_lists

IMAGE_PREPROCESS_COMMAND:append = " vitalgate_initrd"
do_image[file-checksums] += "${VITALGATE_TOPDIR}/image/modules-initrd:True"


def vitalgate_drivers(d):
    """Drivers of image/modules-initrd, once each."""
    return sorted({name for line in vitalgate_lines(d, "modules-initrd") for name in line.split()[1:]})


def vitalgate_module_files(folder):
    """For each driver its files below the folder of modules, dependencies first."""
    import os

    files = {}
    with open(os.path.join(folder, "modules.dep")) as lines:
        for line in lines:
            path, _, needed = line.partition(":")
            name = os.path.basename(path).split(".")[0].replace("-", "_")
            files[name] = needed.split()[::-1] + [path]
    return files


vitalgate_initrd[doc] = "Leaves in the initrd what the first program of the boot needs"
python vitalgate_initrd() {
    import glob
    import os
    import shutil

    root = d.getVar("IMAGE_ROOTFS")
    modules = os.path.join(root, "modules")
    bb.utils.mkdirhier(modules)
    found = glob.glob(os.path.join(root, "usr/lib/modules/*")) + glob.glob(os.path.join(root, "lib/modules/*"))
    # A kernel with all of them built in has no modules: then the list has no groups.
    files = vitalgate_module_files(found[0]) if found else {}
    with open(os.path.join(modules, "list"), "w") as listing:
        for line in vitalgate_lines(d, "modules-initrd"):
            pattern, *names = line.split()
            group = []
            for path in (path for name in names for path in files.get(name, [])):
                shutil.copyfile(os.path.join(found[0], path), os.path.join(modules, os.path.basename(path)))
                group.append(os.path.basename(path))
            listing.write(" ".join([pattern] + group) + "\n")
    for folder in ("usr/lib/modules", "lib/modules", "etc", "var", "boot", "usr/share", "home", "media", "mnt", "srv", "opt", "root"):
        path = os.path.join(root, folder)
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
    for folder in ("usr/bin", "usr/sbin"):
        for path in glob.glob(os.path.join(root, folder, "*")):
            if os.path.basename(path) != "veritysetup":
                os.unlink(path) if os.path.islink(path) or os.path.isfile(path) else shutil.rmtree(path)
    for folder in ("proc", "sys", "dev", "run", "sysroot"):
        bb.utils.mkdirhier(os.path.join(root, folder))
}
