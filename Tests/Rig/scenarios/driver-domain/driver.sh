# shellcheck shell=bash
# How dom0 makes a driver domain and a guest of it.

# make_driver_ramdisk: the guests' user space and what is installed here of ours: programs, the libraries they are linked with, and the
# modules that a domain needs to serve others.
make_driver_ramdisk() {
    local tree=/run/rig/driver file
    [[ -e /run/rig/guest.cpio ]] || cp /share/guest.cpio /run/rig/
    mkdir -p $tree
    for file in /usr/sbin/xenbackd /usr/bin/xenback /usr/sbin/xenback /usr/sbin/brctl; do
        [[ ! -e $file ]] || { echo "$file" && ldd "$file" | sed -n 's#.* => \(/[^ ]*\).*#\1#p'; }
    done | sort -u | while read -r file; do cp -L --parents "$file" $tree/; done
    modprobe -a --show-depends xen-gntdev xen-gntalloc xen-evtchn tun bridge dummy_hcd libcomposite usb_f_ss_lb |
        sed -n 's/^insmod \([^ ]*\).*/\1/p' |
        awk '!seen[$0]++' | while read -r file; do
        cp -L --parents "$file" $tree/
        echo "$file" >>$tree/driver-modules
    done
    # The settings as installed: in a driver domain every disk is ours.
    cp --parents /etc/xenback/xenbackd.toml $tree/
    (cd $tree && find . | cpio --quiet -o -H newc -R 0:0) >/run/rig/driver.part
    cat /run/rig/guest.cpio /run/rig/driver.part >/run/rig/driver.cpio
    rm -rf $tree /run/rig/driver.part
}

# start_driver: the driver domain dd, its disk mounted, its bridge up, our service running.
start_driver() {
    local guest_memory=512 guest_ramdisk=/run/rig/driver.cpio guest_extra="driver_domain=1" guest_nics=()
    unset 'guest_ids[dd]'
    guest_start dd pv "$(disk_line xvda /images/dd.img)"
    check "the driver domain has its modules, a bridge and its images" guest dd driver_up && check "our service runs there" guest dd serve
}
# start_client: the guest g1, whose disk and card are dd's.
start_client() {
    local guest_nics=("mac=00:16:3e:00:00:02,bridge=xenbr0,backend=dd")
    unset 'guest_ids[g1]'
    guest_start g1 pv "$(driver_disk xvda a.img)"
    check "the guest sees the disk" guest g1 'wait_for 60 test -b /dev/xvda' &&
        check "the guest's card gets its link" guest g1 net_up 10.0.0.2/24
}
# driver_disk DEVICE IMAGE
driver_disk() { echo "vdev=$1,format=raw,access=rw,backend=dd,target=/images/disk/$2"; }

# seen WORDS COMMAND: the command succeeds in the driver domain and prints the words. json COMMAND.
seen() { contains "$1" guest dd "$2"; }
json() { guest dd "$1" | jq -e .; }
# inside_refused WORDS COMMAND: it fails in the driver domain and says them.
inside_refused() {
    local output
    output=$(guest dd "$2") && { echo "it was not refused: $output" && return 1; }
    echo "$output"
    grep -Eqi -- "$1" <<<"$output"
}
# ends GUEST: destroyed by xl, and gone.
ends() {
    local id
    id=$(guest_id "$1")
    xl destroy "$id"
    wait_until 60 guest_gone "$id"
}
