# shellcheck shell=sh
# The words in which a scenario's guest part is written (busybox sh, plus fio, e2fsprogs, dd, blkdiscard of Debian).

# wait_for SECONDS COMMAND…
wait_for() {
    limit=$(($(date +%s) + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$(date +%s)" -lt "$limit" ] || return 1
        usleep 100000
    done
}
# refuses COMMAND…: succeeds if the command fails.
refuses() { ! "$@"; }

# sum DEVICE: checksum of what the disk holds, read past the page cache.
sum() { dd if="/dev/$1" bs=1M iflag=direct status=none | md5sum | cut -d' ' -f1; }
# sectors DEVICE
sectors() { blockdev --getsz "/dev/$1"; }

# verify DEVICE [FIO OPTION…]: mixed block sizes, random order, every block read back and its checksum compared.
verify() {
    device=$1
    shift
    fio --name=verify --filename="/dev/$device" --direct=1 --ioengine=libaio --iodepth=16 --rw=randwrite \
        --bssplit=4k/40:8k/20:16k/10:64k/20:128k/10 --verify=crc32c --verify_fatal=1 --verify_backlog=64 --exitall_on_error=1 \
        --randrepeat=0 "$@"
}

# measure DEVICE RW BLOCKSIZE DEPTH SECONDS: prints "IOPS KiB/s mean-latency-us".
measure() {
    fio --name=measure --filename="/dev/$1" --direct=1 --ioengine=libaio --rw="$2" --bs="$3" --iodepth="$4" --time_based \
        --runtime="$5" --ramp_time=1 --norandommap --randrepeat=1 --output-format=terse --terse-version=3 >/tmp/measure 2>/tmp/measure.err ||
        { cat /tmp/measure.err; return 1; }
    case $2 in
    *read) tail -n 1 /tmp/measure | awk -F';' '{ print $8, $7, $40 }' ;;
    *write) tail -n 1 /tmp/measure | awk -F';' '{ print $49, $48, $81 }' ;;
    esac
}

#
# Networks
#

# net_up ADDRESS…: eth0 with these addresses, once the link is there.
net_up() {
    wait_for 20 test -e /sys/class/net/eth0 || { echo "no eth0" && return 1; }
    echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad
    for address in "$@"; do ip address add "$address" dev eth0 || return; done
    ip link set eth0 up && wait_for 20 grep -q 1 /sys/class/net/eth0/carrier
}

# nic_reload PARAMETER…: the frontend's module goes and comes back. It is held as long as its driver has a device.
nic_reload() {
    for nic in /sys/bus/xen/drivers/vif/vif-*; do echo "${nic##*/}" >/sys/bus/xen/drivers/vif/unbind; done
    rmmod xen_netfront && [ ! -e /sys/class/net/eth0 ] && insmod "$(grep xen-netfront /modules)" "$@"
}
# queues: how many eth0 uses. The driver leaves its receiving ones at what it made room for.
queues() { ls -d /sys/class/net/eth0/queues/tx-* | wc -l; }

# busybox's shell runs busybox's own ping when it is only named, and that one cannot forbid fragments.
ping() { /usr/bin/ping "$@"; }
# pings ADDRESS SIZE…: five requests of each size, no answer may be missing. Two more are sent: for the last one's answer ping waits twice
# the longest time so far and no more, which on a busy machine is too little.
pings() {
    address=$1
    shift
    # Unjudged: what waits for the neighbour's address may be dropped on a slow machine.
    ping -q -c 1 -W 10 "$address" >/dev/null
    for size in "$@"; do
        ping -c 7 -i 0.1 -W 5 -s "$size" "$address" >/tmp/ping
        [ "$(grep -v DUP /tmp/ping | grep -c 'bytes from .*icmp_seq=[1-5] ')" = 5 ] || {
            echo "size $size:" && cat /tmp/ping && return 1
        }
    done
}

# make_data FILE MIB: as dom0's.
make_data() {
    head -c 1048576 /dev/urandom >"$1.part"
    for number in $(seq -w "$2"); do echo "$number" && cat "$1.part"; done >"$1"
    rm "$1.part"
}
# send FILE ADDRESS: to a listening port 5001; the file's sum. receive: one connection's bytes; their sum and the mean size of the
# packets that eth0 took in meanwhile.
send() { socat -u -b 65536 "OPEN:$1" "TCP:$2:5001,retry=100,interval=0.1" && sha256sum <"$1"; }
receive() {
    bytes=$(cat /sys/class/net/eth0/statistics/rx_bytes)
    packets=$(cat /sys/class/net/eth0/statistics/rx_packets)
    timeout 120 socat -u TCP6-LISTEN:5001,ipv6only=0,reuseaddr OPEN:/tmp/received,creat,trunc || return
    bytes=$(($(cat /sys/class/net/eth0/statistics/rx_bytes) - bytes))
    packets=$(($(cat /sys/class/net/eth0/statistics/rx_packets) - packets))
    sha256sum </tmp/received && echo "mean $((bytes / packets))"
    rm /tmp/received
}

# stream ADDRESS OPTION…: what iperf3's receiver saw: "Mbit/s", for UDP also "LOST SENT".
stream() {
    address=$1
    shift
    iperf3 -c "$address" -f m "$@" >/tmp/stream 2>&1 || { cat /tmp/stream && return 1; }
    awk '/receiver/ { rate = ""; lost = ""; for (i = 2; i <= NF; i++) {
            if ($i == "Mbits/sec") rate = $(i - 1); if ($i ~ /^[0-9]+\/[0-9]+$/) { lost = $i; sub("/", " ", lost) } } }
        END { print rate, lost; exit rate <= 0 }' /tmp/stream
}

# flood ADDRESS [BYTES [DEVICE]]: small UDP packets by the kernel's packet generator, as fast as the card takes them, until told.
flood() {
    load_spare_modules
    pktgen kpktgend_0 rem_device_all "add_device eth0"
    pktgen eth0 "count 0" "clone_skb 0" "pkt_size ${2:-60}" "delay 0" "dst $1" \
        "dst_mac $(neighbour "$1")" "udp_dst_min 9" "udp_dst_max 9"
    rm -f /run/rig/enough
    echo start >/proc/net/pktgen/pgctrl &
    wait_for 300 test -e /run/rig/enough
    echo stop >/proc/net/pktgen/pgctrl
    wait
}
pktgen() {
    file=/proc/net/pktgen/$1
    shift
    for word in "$@"; do echo "$word" >"$file" || { echo "pktgen refuses $word" && return 1; }; done
}
# neighbour ADDRESS: its MAC.
neighbour() {
    ping -q -c 1 -W 5 "$1" >/dev/null && ip neigh show "$1" | sed -n 's/.*lladdr \([^ ]*\).*/\1/p'
}
load_spare_modules() {
    [ -e /proc/net/pktgen ] || while read -r module; do insmod "$module"; done </spare-modules
}

#
# USB
#

[ ! -e /rig/usbtest.sh ] || . /rig/usbtest.sh

# usb_load: the frontend and the drivers of what may be behind it. usb_up [NUMBER]: and a root hub for so many controllers.
# A module for instructions that this CPU lacks refuses to load.
usb_load() {
    [ -e /sys/bus/usb ] || while read -r module; do insmod "$module"; done </usb-modules
    [ -e /sys/bus/xen/drivers/vusb ] && [ -e /sys/bus/usb/drivers/usb-storage ] && [ -e /sys/bus/usb/drivers/snd-usb-audio ]
}
usb_up() { usb_load && wait_for 60 test -e "/sys/bus/usb/devices/usb${1:-1}"; }
# usb_node NAME: the device's folder below /sys, by its serial number. usb_there, usb_gone NAME: in a while.
usb_node() {
    for file in /sys/bus/usb/devices/*/serial; do
        [ "$(cat "$file" 2>/dev/null)" = "$1" ] && dirname "$file" && return
    done
    return 1
}
usb_there() { wait_for "${2:-60}" usb_node "$1"; }
usb_gone() { wait_for "${2:-60}" refuses usb_node "$1"; }
# usb_disk NAME: what the kernel calls the stick's disk, once it can be read.
usb_disk() { wait_for 60 usb_disk_now "$1" && usb_disk_now "$1"; }
usb_disk_now() {
    node=$(usb_node "$1") || return
    for folder in "$node":*/host*/target*/*/block/*; do
        [ -b "/dev/${folder##*/}" ] && [ "$(cat "$folder/size")" != 0 ] && echo "${folder##*/}" && return
    done
    return 1
}
# usb_sum NAME: checksum of the whole stick.
usb_sum() { disk=$(usb_disk "$1") && sum "$disk"; }
# usb_speed NAME: in Mbit/s.
usb_speed() { cat "$(usb_node "$1")/speed"; }
# usb_event NAME: the device file of a keyboard.
usb_event() { wait_for 60 usb_event_now "$1" && usb_event_now "$1"; }
usb_event_now() {
    node=$(usb_node "$1") || return
    for folder in "$node":*/*/input/input*/event*; do [ -c "/dev/input/${folder##*/}" ] && echo "/dev/input/${folder##*/}" && return; done
    return 1
}

#
# PCI
#

# busybox has a shorter one.
lspci() { /usr/bin/lspci "$@"; }
# pci_load [CARDS]: the frontend, and the drivers of the cards behind it; says how long the frontend took to find the first one, if the
# guest has any.
pci_load() {
    cards=${1:-1}
    [ -e /sys/bus/xen/drivers/pcifront ] || while read -r module; do
        before=$(cut -d' ' -f1 /proc/uptime)
        insmod "$module" || echo "$module is not loaded"
        case $module in
        *xen-pcifront*) [ "$cards" = 0 ] || wait_for 60 pci_any && echo "found after $(cut -d' ' -f1 /proc/uptime | awk "{ print int((\$1 - $before) * 1000) }") ms" || return ;;
        esac
    done </pci-modules
}
pci_any() { [ -n "$(ls /sys/bus/pci/devices)" ]; }
# pci_node ID: where the card with this vendor and device is, for instance 8086:10d3.
pci_node() {
    for folder in /sys/bus/pci/devices/*; do
        [ "$(cat "$folder/vendor" 2>/dev/null)" = "0x${1%:*}" ] && [ "$(cat "$folder/device")" = "0x${1#*:}" ] && echo "${folder##*/}" && return
    done
    return 1
}
# card_up ADDRESS: the network card with this address is up and has its link.
card_up() {
    wait_for 60 test -e /sys/class/net/eth0 || { dmesg | tail -n 20 && return 1; }
    ip address add "$1" dev eth0 && ip link set eth0 up && wait_for 60 grep -q 1 /sys/class/net/eth0/carrier
}
# interrupts WORD: those of the lines of /proc/interrupts with the word, in sum; and how many such lines there are.
interrupts() { awk -v word="$1" 'NR == 1 { cpus = NF } NR > 1 && index($0, word) { n++; for (i = 2; i <= cpus + 1; i++) sum += $i } END { print sum + 0, n + 0 }' /proc/interrupts; }
# config_rate ID: reads of 32 bits a second of the card's configuration space.
config_rate() {
    file=/sys/bus/pci/devices/$(pci_node "$1")/config
    size=$(wc -c <"$file")
    before=$(cut -d' ' -f1 /proc/uptime)
    for round in 1 2 3; do cat "$file" >/dev/null || return; done
    cut -d' ' -f1 /proc/uptime | awk "{ print int($size * $round / 4 / (\$1 - $before + 0.01)) }"
}
