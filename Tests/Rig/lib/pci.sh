# shellcheck shell=bash
# The words of PCI scenarios in dom0. Cards go by the names of the scenario's line "# pci: …".

# pci_up: the stub that libxl insists on, and dom0's end of the wire. Where the kernel's command line says what is to be hidden, ours has
# udev do it (pci_coldplug), as at a boot; the kernel's module reads that line itself.
pci_up() {
    sed -i '/xen-pciback/d' /etc/modprobe.d/rig.conf
    modprobe virtio_net || rig_abort "dom0 has no driver for its end of the wire"
    if [[ $RIG_BACKEND == kernel ]]; then
        modprobe xen-pciback || rig_abort "dom0 has no xen-pciback"
    else
        # No driver of the kernel's takes what is ours on the bus of backends.
        printf '[kernel]\nautoprobe = "off"\n' >/etc/xenback/xenbackd.toml
        if [[ -n $(scenario_setting arguments "") ]]; then pci_coldplug; else modprobe xen-pciback; fi
    fi
    wire_up
}
# pci_coldplug: what systemd-udev-trigger.service does at a boot.
pci_coldplug() {
    /usr/lib/systemd/systemd-udevd --daemon
    udevadm trigger --action=add --subsystem-match=pci
    udevadm settle --timeout 60
}

# wire_up: dom0's own card on e1000e's wire is called wire.
wire_up() {
    local folder
    for folder in /sys/class/net/*; do
        [[ $(<"$folder/address") == 52:54:00:00:05:01 ]] || continue
        ip link set "${folder##*/}" name wire
        ip address add 10.5.0.1/24 dev wire
        ip link set wire up
    done
}

wire_link() { [[ ! -e /sys/class/net/wire ]] || ip link set wire "$1"; }

# pci_address NAME: where the card is. pci_driver NAME: who has it in dom0. pci_config NAME: its space, as lspci -xxxx shows it.
pci_address() {
    case $1 in
    e1000e) echo 0000:00:05.0 ;;
    nvme) echo 0000:00:06.0 ;;
    *) echo "$1" ;;
    esac
}
pci_folder() { echo "/sys/bus/pci/devices/$(pci_address "$1")"; }
pci_driver() { basename "$(readlink "$(pci_folder "$1")/driver" 2>/dev/null || echo none)"; }
pci_driven_by() { [[ $(pci_driver "$1") == "$2" ]]; }
pci_config() { lspci -xxxx -s "$(pci_address "$1")" | sed 1d; }

# pci_hide NAME, pci_give_back NAME: by the commands of whoever serves.
pci_hide() {
    [[ $RIG_BACKEND == ours ]] || { xl pci-assignable-add "$(pci_address "$1")"; return; }
    # It has been started, and may not listen yet.
    wait_until 30 xenback list && xenback pci-assignable-add "$(pci_address "$1")"
}
pci_give_back() {
    if [[ $RIG_BACKEND == kernel ]]; then xl pci-assignable-remove -r "$(pci_address "$1")"; else xenback pci-assignable-remove -r "$(pci_address "$1")"; fi
}
# pci_is_ours GUEST: no driver of the kernel's stands on the guest's backend.
pci_is_ours() { [[ ! -e /sys/bus/xen-backend/devices/pci-$(guest_id "$1")-0/driver ]]; }
# pci_key GUEST KEY: what stands in the backend's half. pci_says GUEST STATE.
pci_key() { xenstore-read "/local/domain/0/backend/pci/$(guest_id "$1")/0/$2"; }
pci_says() { [[ $(pci_key "$1" state) == "$2" ]]; }

# pci_guest NAME LINE…: a PV guest with these cards, if any, and what drives them loaded, or the scenario ends. The wire is silent until
# then: of a reset by power states, the only one that the kernel knows for it, the emulator's e1000e takes no notice, and receives into the
# buffers of the guest before until the next one's driver resets it.
pci_guest() {
    local name=$1
    shift
    guest_pci=("$@")
    guest_memory=512
    wire_link down
    guest_start "$name" pv
    check "guest $name loads its drivers" guest "$name" pci_load $# || exit 1
    wire_link up
}
