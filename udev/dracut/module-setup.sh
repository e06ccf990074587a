#!/bin/bash
# Puts the hiding of PCI cards into the initramfs (dracut.modules(7)): before a driver for disks or a screen is loaded there.

check() { return 0; }
depends() { echo udev-rules; }
installkernel() { hostonly='' instmods xen-pciback; }
install() {
    inst_rules 60-xenback-pci.rules
    inst_simple /usr/lib/udev/xenback-pci-hide
    [[ ! -e /etc/xenback/xenbackd.toml ]] || inst_simple /etc/xenback/xenbackd.toml
}
