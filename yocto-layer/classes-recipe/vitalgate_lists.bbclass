# The lists in image/ that both builds of the image read.

def vitalgate_lines(d, name):
    """The lines of a list without comments. The recipe is parsed again when the list changes."""
    import os

    path = os.path.join(d.getVar("VITALGATE_TOPDIR"), "image", name)
    bb.parse.mark_dependency(d, path)
    with open(path) as text:
        lines = [line.split("#")[0].strip() for line in text]
    return [line for line in lines if line]


def vitalgate_words(d, name):
    """The words of a list, once each."""
    return sorted({word for line in vitalgate_lines(d, name) for word in line.split()})


def vitalgate_static(d):
    """Files, and links with where they lead, below the folders of image/rootfs that the recipe names."""
    import os

    top = os.path.join(d.getVar("VITALGATE_TOPDIR"), "image")
    files, links = [], []
    for named in d.getVar("VITALGATE_FOLDERS").split():
        for folder, folders, names in os.walk(os.path.join(top, "rootfs", named)):
            # Parsed again when a file comes or goes.
            bb.parse.mark_dependency(d, folder)
            for name in names + folders:
                path = os.path.join(folder, name)
                if os.path.islink(path):
                    links.append((os.path.relpath(path, os.path.join(top, "rootfs")), os.readlink(path)))
                elif name in names:
                    files.append(os.path.relpath(path, top))
    return sorted(files), sorted(links)


def vitalgate_files(d):
    """The files, as SRC_URI names them."""
    return " ".join("file://" + name for name in vitalgate_static(d)[0])


def vitalgate_links(d):
    """The links, as name=target."""
    return " ".join("%s=%s" % link for link in vitalgate_static(d)[1])
