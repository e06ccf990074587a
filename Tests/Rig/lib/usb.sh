# shellcheck shell=bash
# The words of USB scenarios in dom0. Devices go by the names of the scenario's line "# usb: …", which are their serial numbers as well.

#
# The devices of dom0
#

# usb_up: dom0's own drivers, and udev, which tells the service of devices that come and go. Ends when all devices are there.
usb_up() {
    modprobe -a xhci_pci ehci_pci usb_storage sd_mod usbhid hid-generic evdev
    if [[ $mode == quick ]]; then
        /usr/lib/systemd/systemd-udevd --daemon
        udevadm trigger --subsystem-match=usb
    fi
    local name
    for name in $(scenario_setting usb ""); do
        case $name in
        gadget) make_gadget || rig_abort "dom0 cannot make the gadget" ;;
        zero | mic) make_device "$name" || rig_abort "dom0 cannot make $name" ;;
        esac
    done
    for name in $(scenario_setting usb ""); do
        wait_until 60 usb_busid "$name" || rig_abort "dom0 does not see the emulator's $name"
    done
    udevadm settle --timeout 60
}

# make_gadget: the kernel's test gadget on a bus of its own, both ends of which are in dom0 (dummy_hcd). Its functions send and expect
# bytes that count modulo 63, so whoever tests with pattern=1 compares data.
make_gadget() {
    local gadget=/sys/kernel/config/usb_gadget/rig
    modprobe -a dummy_hcd libcomposite || return
    mountpoint -q /sys/kernel/config || mount -t configfs configfs /sys/kernel/config || return
    mkdir -p $gadget/strings/0x409 $gadget/configs/c.1 $gadget/configs/c.2 $gadget/functions/{SourceSink,Loopback}.0 || return
    echo 0x0525 >$gadget/idVendor && echo 0xa4a0 >$gadget/idProduct && echo gadget >$gadget/strings/0x409/serialnumber || return
    echo 1 >$gadget/functions/SourceSink.0/pattern || return
    ln -s $gadget/functions/SourceSink.0 $gadget/configs/c.1/
    ln -s $gadget/functions/Loopback.0 $gadget/configs/c.2/
    basename "$(ls -d /sys/class/udc/* | head -n 1)" >$gadget/UDC
}

# make_device NAME: a device that is a program (lib/usbip-device.c), behind vhci-hcd. What it says is in /share/logs/NAME.log.
make_device() {
    local port=0
    [[ $1 == zero ]] || port=1
    modprobe vhci-hcd || return
    usbip-device "$1" $port >>"$logs/$1.log" 2>&1 </dev/null &
    echo $! >"/run/rig/$1.pid"
}
# device_says NAME WORD: the last of the device's lines that begin with the word.
device_says() { grep "^$2" "$logs/$1.log" | tail -n 1; }

# usb_busid NAME: where the device is, for instance 2-1.
usb_busid() {
    local file
    for file in /sys/bus/usb/devices/*/serial; do
        [[ $(cat "$file" 2>/dev/null) == "$1" ]] || continue
        basename "$(dirname "$file")"
        return
    done
    return 1
}
# usb_driver NAME: what drives the device's first interface; usbfs is how libusb holds it.
usb_driver() { basename "$(readlink "/sys/bus/usb/devices/$(usb_busid "$1"):1.0/driver")"; }
usb_driven_by() { [[ $(usb_driver "$1") == "$2" ]]; }
# usb_disk NAME: the block device that dom0's own driver makes of a stick.
usb_disk() {
    local folder
    for folder in "/sys/bus/usb/devices/$(usb_busid "$1")":*/host*/target*/*/block/*; do
        [[ -b /dev/${folder##*/} ]] && echo "/dev/${folder##*/}" && return
    done
    return 1
}
# dom0_sum NAME: what dom0's own driver reads of the stick, past its page cache; image_sum of /share/usb/NAME.img is the emulator's view.
dom0_sum() { dd if="$(usb_disk "$1")" bs=1M iflag=direct status=none | md5sum | cut -d' ' -f1; }
stick_image() { echo "/share/usb/$1.img"; }
stick_sum() { image_sum "$(stick_image "$1")"; }

# monitor COMMAND…: an order to the emulator, as a human would type it; prints what it says.
monitor() {
    local name=/share/monitor/${EPOCHREALTIME/./} answer
    printf '%s' "$*" >"$name.part"
    mv "$name.part" "$name.request"
    wait_until 30 test -e "$name.answer" || { echo "the emulator does not answer to: $*" && return 1; }
    answer=$(<"$name.answer")
    rm "$name.answer"
    [[ -z $answer ]] || echo "$answer"
    [[ $answer != *[Ee]rror* ]]
}
# pull NAME: the device leaves its port. put NAME [PORT]: it comes back to it, or into another port of the emulator's controller.
pull() { if [[ -e /run/rig/$1.pid ]]; then kill "$(<"/run/rig/$1.pid")"; else monitor device_del "$1"; fi; }
put() {
    if [[ -e /run/rig/$1.pid ]]; then
        make_device "$1"
    else
        monitor device_add "$(sed "${2:+s/port=[0-9]*/port=$2/}" "/share/usb/$1.device")"
    fi
}

#
# Controllers and ports of guests
#

# usb_guest NAME [VERSION [PORTS]]: a PV guest with a controller, its drivers loaded, or the scenario ends. QEMU's must be there from
# the start, ours comes to the running guest.
usb_guest() {
    local name=$1 version=${2:-2} ports=${3:-4}
    guest_usb=()
    [[ $RIG_BACKEND != qusb ]] || guest_usb=("type=qusb,version=$version,ports=$ports")
    guest_start "$name" pv
    if [[ $RIG_BACKEND != qusb ]]; then
        check "guest $name loads its drivers" guest "$name" usb_load || exit 1
        check "guest $name gets a USB $version controller of $ports ports" usb_controller "$name" "$version" "$ports" || exit 1
    fi
    check "guest $name has the controller" guest "$name" usb_up || exit 1
}
usb_controller() { xenback usb-hc-create "$(guest_id "$1")" "$2" "$3"; }

# usb_attach GUEST PORT BUSID [CONTROLLER]
usb_attach() {
    local controller=${4:-0}
    case $RIG_BACKEND in
    qusb)
        xl usbdev-attach "$(guest_id "$1")" type=hostdev "hostbus=$(($(<"/sys/bus/usb/devices/$3/busnum")))" \
            "hostaddr=$(($(<"/sys/bus/usb/devices/$3/devnum")))" "controller=$controller" "port=$2"
        ;;
    *) xenback usb-attach "$(guest_id "$1")" "$controller" "$2" "$3" ;;
    esac
}
# usb_detach GUEST PORT [CONTROLLER]
usb_detach() {
    case $RIG_BACKEND in
    qusb) xl usbdev-detach "$(guest_id "$1")" "${3:-0}" "$2" ;;
    *) xenback usb-detach "$(guest_id "$1")" "${3:-0}" "$2" ;;
    esac
}
usb_kind() { if [[ $RIG_BACKEND == qusb ]]; then echo qusb; else echo vusb; fi; }
# usb_key GUEST KEY [CONTROLLER]: what XenStore says of the controller, for instance `usb_key g1 port/1`.
usb_key() { xenstore-read "/local/domain/0/backend/$(usb_kind)/$(guest_id "$1")/${3:-0}/$2"; }

#
# The kernel's own USB test
#

# shellcheck source=usbtest.sh
source /share/lib/usbtest.sh

# What a case of testusb is (drivers/usb/misc/usbtest.c).
usb_cases=(
    "0 nothing"
    "1 bulk out" "2 bulk in" "3 bulk out, lengths vary" "4 bulk in, lengths vary"
    "5 scatter-gather out" "6 scatter-gather in" "7 scatter-gather out, lengths vary" "8 scatter-gather in, lengths vary"
    "9 control: chapter 9" "10 control: queue of 32" "11 unlink reads" "12 unlink writes" "13 halt set and cleared"
    "14 control out" "15 isochronous out" "16 isochronous in" "17 bulk out, odd addresses" "18 bulk in, odd addresses"
    "19 bulk out, odd addresses, premapped" "20 bulk in, odd addresses, premapped" "21 control out, odd addresses"
    "22 isochronous out, odd addresses" "23 isochronous in, odd addresses" "24 unlink a queue of bulk"
    "25 interrupt out" "26 interrupt in" "27 bulk out, queue" "28 bulk in, queue" "29 toggles after clear halt"
)
# usb_test NAME CASES: the device with dom0's usbtest, which must run so many of the cases, and then in guest g1 through the backend. There
# it stays, in port 1.
usb_test() {
    local node in_dom0 in_guest dom0_results guest_results line number guest_limit=600
    node=/sys/bus/usb/devices/$(usb_busid "$1")
    check "dom0's own usbtest takes $1" test_module || exit 1
    dom0_results=$(run_cases "/dev/bus/usb/$(printf '%03d/%03d' "$(<"$node/busnum")" "$(<"$node/devnum")")")
    rmmod usbtest
    check_equal "$2 of the cases run in dom0" "$2" "$(grep -c '\.' <<<"$dom0_results")"

    usb_guest g1
    check "$1 goes to the guest" usb_attach g1 1 "$(usb_busid "$1")" || exit 1
    check "the guest's usbtest takes it" guest g1 "usb_there $1 && test_module" || exit 1
    guest_results=$(guest g1 "run_cases \"\$(usb_file $1)\"")
    say "$(printf '%-42s %12s %12s' 'case of testusb' dom0 guest)"
    for line in "${usb_cases[@]}"; do
        number=${line%% *}
        in_dom0=$(sed -n "s/^$number //p" <<<"$dom0_results") in_guest=$(sed -n "s/^$number //p" <<<"$guest_results")
        say "$(printf '%-42s %12s %12s' "$line" "${in_dom0:-none}" "${in_guest:-none}")"
        # What dom0 itself cannot do with this device the guest need not.
        [[ $in_dom0 != *.* ]] || check "case $number, ${line#* }, runs in the guest as in dom0" test "${in_guest/./}" != "$in_guest"
    done
    check "the guest has $1 still" guest g1 usb_node "$1"
}

#
# Sound
#

# usb_sound NAME: dom0's name of a sound card, for aplay.
usb_sound() {
    local folder
    for folder in "/sys/bus/usb/devices/$(usb_busid "$1")":*/sound/card*; do
        [[ -e $folder ]] && echo "hw:${folder##*card},0" && return
    done
    return 1
}
# heard_while CARD COMMAND…: the command plays on the emulator's sound card. Afterwards /run/rig/heard says "MILLISECONDS GAPS PACE": how
# long the recording's tone is, how often it is broken, and how fast it came, in percent of what was to be played. A backend that is
# late delays the tone instead of breaking it, and only the pace shows that.
heard_while() {
    local file=/share/usb/$1.wav status meter milliseconds gaps
    shift
    rm -f /run/rig/heard /run/rig/played
    (
        size=0 first=0 last=0 start=0
        while [[ ! -e /run/rig/played ]]; do
            found=$(stat -c %s "$file" 2>/dev/null || echo 0)
            ((found == size)) || { ((first > 0)) || { first=$(now) start=$found; }; size=$found last=$(now); }
            sleep 0.1
        done
        echo $((last > first ? (size - start) * 100 / 192 / (last - first) : 0)) >/run/rig/pace
    ) &
    meter=$!
    "$@"
    status=$?
    touch /run/rig/played
    wait $meter
    read -r milliseconds gaps _ < <(tone check "$file" 44)
    echo "$milliseconds $gaps $(</run/rig/pace)" >/run/rig/heard
    return $status
}
