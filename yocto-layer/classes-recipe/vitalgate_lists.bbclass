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
