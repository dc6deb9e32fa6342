# The loader is signed as the kernel image is. Other distributions get it as it is.
DEPENDS:append:vitalgate-os = " sbsigntool-native"
do_deploy[vardeps] += "VITALGATE_KEYS"
do_deploy:append:vitalgate-os() {
    if [ -z "${VITALGATE_KEYS}" ]; then
        bbfatal "VITALGATE_KEYS is empty: set it to the folder with the keys that sign (see yocto-layer/README.md)"
    fi
    for loader in ${DEPLOYDIR}/systemd-boot*.efi; do
        sbsign --key ${VITALGATE_KEYS}/secureboot/db.key --cert ${VITALGATE_KEYS}/secureboot/db.crt --output "$loader" "$loader"
    done
}
