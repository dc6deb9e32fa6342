# What the appliance expects of its kernel. Other distributions get theirs as it is.
FILESEXTRAPATHS:prepend:vitalgate-os := "${THISDIR}/linux-yocto:"
SRC_URI:append:vitalgate-os = " file://vitalgate.cfg"
