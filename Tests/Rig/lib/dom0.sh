# shellcheck shell=bash
# The words in which a scenario's dom0 part is written. Nothing here waits for a fixed time: it polls, with a limit.

logs=/share/logs
# ours, kernel (xen-blkback on loop, xen-netback), qdisk or qusb (QEMU): who serves the disks of disk_line, the network cards and the USB
# controllers. Set by `run --backend`.
RIG_BACKEND=ours
# All limits are multiplied by this. Set by `run --patience`.
RIG_PATIENCE=1
# shellcheck source=/dev/null
[[ -e /share/settings ]] && source /share/settings
# libxl's own limit for a script.
((RIG_PATIENCE == 1)) || export LIBXL_HOTPLUG_TIMEOUT=$((40 * RIG_PATIENCE))

#
# Saying and checking
#

# Progress, to the host's terminal and the log.
say() { printf '[%6.1f] %s\n' "$(cut -d' ' -f1 /proc/uptime)" "$*" | tee -a $logs/progress; }
# Only to the log.
note() { printf '%s\n' "$*" >>$logs/notes; }

pass() {
    echo "pass $*" >>$logs/results
    say "  ok      $*"
}
fail() {
    echo "fail $*" >>$logs/results
    say "  FAILED  $*"
}
# check NAME COMMAND…: the command's status is the check; its output is shown if it fails.
check() {
    local name=$1 output
    shift
    if output=$("$@" 2>&1); then
        pass "$name"
    else
        fail "$name"
        printf '%s\n' "$output" | tail -n 25 | while IFS= read -r line; do say "          | $line"; done
        return 1
    fi
}
# check_not NAME COMMAND…: the command must fail.
check_not() {
    local name=$1
    shift
    check "$name" refuses "$@"
}
refuses() { ! "$@"; }
# check_equal NAME EXPECTED FOUND
check_equal() {
    if [[ $2 == "$3" ]]; then pass "$1"; else
        fail "$1"
        say "          | expected: $2"
        say "          | found:    $3"
        return 1
    fi
}
# Ends the scenario: nothing after this would mean anything.
rig_abort() {
    fail "$*"
    exit 1
}

# wait_until SECONDS COMMAND…: polls until the command succeeds.
wait_until() {
    local limit=$(($(now) + $1 * 1000 * RIG_PATIENCE))
    shift
    until "$@" >/dev/null 2>&1; do
        (($(now) < limit)) || return 1
        sleep 0.1
    done
}
# Milliseconds since some moment, for measuring.
now() { echo $((${EPOCHREALTIME/./} / 1000)); }

# scenario_setting NAME DEFAULT: from the scenario's header, a line "# NAME: value".
scenario_setting() {
    local value
    value=$(sed -n "s/^# $1: *//p" /share/scenario/dom0 | head -n 1)
    echo "${value:-$2}"
}

#
# Images and disk lines
#

# make_image PATH SIZE: an empty (sparse) image.
make_image() {
    rm -f "$1"
    truncate -s "$2" "$1"
}
# What the image really occupies, in KiB.
image_use() { echo $(($(stat -c %b "$1") / 2)); }
image_sum() { md5sum "$1" | cut -d' ' -f1; }

# disk_line DEVICE IMAGE [EXTRA]: the xl disk line for the backend under test; EXTRA such as "access=ro" or "devtype=cdrom".
# disk_type=tap: disks of kind vbd3, which xl knows since 4.19.
disk_line() {
    local extra=${3:-access=rw}
    case $RIG_BACKEND in
    ours) echo "vdev=$1,format=raw,$extra,${disk_type:+backendtype=$disk_type,}script=block-xenback,target=$2" ;;
    kernel) echo "vdev=$1,format=raw,$extra,backendtype=phy,target=$(loop_of "$2")" ;;
    qdisk) echo "vdev=$1,format=raw,$extra,backendtype=qdisk,target=$2" ;;
    esac
}
# The kernel's backend wants a block device: one loop device per image, direct I/O off as tmpfs has none.
loop_of() {
    local device
    [[ ! -b $1 ]] || { echo "$1" && return; }
    device=$(losetup -j "$1" | head -n 1 | cut -d: -f1)
    [[ -n $device ]] || device=$(losetup --show -f "$1")
    echo "$device"
}
load_kernel_blkback() { modprobe -a loop && modprobe --ignore-install xen-blkback; }
load_kernel_netback() { modprobe --ignore-install xen-netback; }
[[ $RIG_BACKEND == kernel ]] && load_kernel_blkback && load_kernel_netback

image_changes_mark() { stat -c %y "$1"; }
# image_changes IMAGE: succeeds once the guest's next write is in the image; fails after 60 s.
image_changes() {
    local mark
    mark=$(image_changes_mark "$1")
    wait_until 60 image_changed_since "$1" "$mark"
}
image_changed_since() { [[ $(image_changes_mark "$1") != "$2" ]]; }

# image_free IMAGE: nobody holds it open any more; polled, as a backend lets go after the guest is gone.
image_free() { wait_until 30 image_unused "$1"; }
image_unused() {
    if [[ $RIG_BACKEND == kernel ]]; then
        local device
        device=$(losetup -j "$1" | head -n 1 | cut -d: -f1)
        [[ -z $device ]] || losetup -d "$device"
        [[ -z $(losetup -j "$1") ]]
    else
        ! fuser -s "$1"
    fi
}

# announce_size GUEST DEVICE IMAGE: tells the backend that the image has grown.
announce_size() {
    case $RIG_BACKEND in
    ours) xenback block-resize "$(guest_id "$1")" "$2" ;;
    kernel) losetup -c "$(loop_of "$3")" ;;
    esac
}

# flush_count GUEST NUMBER: flushes that the backend has been asked for.
flush_count() {
    case $RIG_BACKEND in
    ours) xenback show "$(guest_id "$1")" "$2" --json | jq '[.. | objects | select((.name? // "") | test("flush"; "i")) | .value? | numbers] | add // 0' ;;
    kernel) cat "/sys/bus/xen-backend/devices/vbd-$(guest_id "$1")-$2/statistics/f_req" ;;
    esac
}

# contains WORDS COMMAND…: the command succeeds and prints the words.
contains() {
    local words=$1 output
    shift
    output=$("$@" 2>&1)
    local status=$?
    printf '%s\n' "$output"
    [[ $status == 0 && $output == *"$words"* ]]
}

# no_backends: no directory of a device is left below any backend.
no_backends() {
    local kind domain
    for kind in vbd vbd3 vif vusb qusb pci; do
        for domain in $(xenstore-list "/local/domain/0/backend/$kind" 2>/dev/null); do
            [[ -z $(xenstore-list "/local/domain/0/backend/$kind/$domain" 2>/dev/null) ]] || {
                echo "backend/$kind/$domain is still there"
                return 1
            }
        done
    done
}

#
# Networks
#

# make_bridge NAME ADDRESS…: a bridge with dom0's addresses on it, up at once.
make_bridge() {
    local name=$1 address
    shift
    ip link add name "$name" type bridge stp_state 0 forward_delay 0
    echo 0 >"/proc/sys/net/ipv6/conf/$name/accept_dad"
    for address in "$@"; do ip address add "$address" dev "$name"; done
    ip link set "$name" up
}

# make_host NAME BRIDGE ADDRESS…: a host of its own (a network namespace) behind the bridge, on a cable without any offload: its end
# computes and checks every checksum, and no segment is longer than its MTU, so what was left for hardware to do must be right.
make_host() {
    local name=$1 bridge=$2 address
    shift 2
    ip netns add "$name"
    ip link add "to-$name" type veth peer name eth0 netns "$name"
    ethtool -K "to-$name" tx off tso off gso off sg off gro off >/dev/null
    ip link set "to-$name" master "$bridge" up
    in_host "$name" ethtool -K eth0 rx off tx off tso off gso off sg off gro off >/dev/null
    in_host "$name" sh -c 'echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad'
    for address in "$@"; do ip -n "$name" address add "$address" dev eth0; done
    ip -n "$name" link set lo up
    ip -n "$name" link set eth0 up
}
# in_host NAME COMMAND…: NAME "" is dom0 itself.
in_host() {
    local name=$1
    shift
    if [[ -z $name ]]; then "$@"; else ip netns exec "$name" "$@"; fi
}

# nic_line LAST [EXTRA]: the xl line of a network card whose MAC ends with the byte LAST.
nic_line() { echo "mac=00:16:3e:00:00:$1,bridge=xenbr0${2:+,$2}"; }

# attach_nic GUEST LINE: `xl network-attach` wants the words of a line one by one, and takes no notice of what follows a comma.
attach_nic() {
    local words
    IFS=, read -ra words <<<"$2"
    xl network-attach "$(guest_id "$1")" "${words[@]}"
}
# vif GUEST [INDEX]: the interface in dom0.
vif() { echo "vif$(guest_id "$1").${2:-0}"; }
# counter INTERFACE NAME: one of the kernel's statistics, from the interface's own view: its rx is what the guest sent.
counter() { cat "/sys/class/net/$1/statistics/$2"; }
on_bridge() { [[ -e /sys/class/net/$1/brif/$2 ]]; }

# netback_queues NUMBER: how many queues the backend offers to network cards that are attached from now on.
netback_queues() {
    case $RIG_BACKEND in
    kernel) echo "$1" >/sys/module/xen_netback/parameters/max_queues ;;
    ours) set_ours net queues "$1" ;;
    esac
}
# set_ours SECTION KEY VALUE: a setting of xenbackd, read at once.
set_ours() {
    local file=/etc/xenback/xenbackd.toml
    sed -i "/^\[$1\]/,/^\[/{/^$2 *=/d}" $file
    if grep -q "^\[$1\]" $file; then sed -i "s/^\[$1\]/&\n$2 = $3/" $file; else printf '[%s]\n%s = %s\n' "$1" "$2" "$3" >>$file; fi
    kill -HUP "$(broker_pid)"
}

# nic_key GUEST INDEX KEY: what the backend published. nic_says GUEST INDEX STATE.
nic_key() { xenstore-read "/local/domain/0/backend/vif/$(guest_id "$1")/$2/$3"; }
nic_says() { [[ $(nic_key "$1" "$2" state) == "$3" ]]; }

# replies HOST ADDRESS [OPTION…]: ping from there; each of five requests must be answered. As in the guest's `pings`, one goes before that
# is not judged, and two behind.
replies() {
    local host=$1 address=$2 answers
    shift 2
    in_host "$host" ping -q -c 1 -W 10 "$address" >/dev/null
    answers=$(in_host "$host" ping -c 7 -i 0.1 -W 5 "$@" "$address") || true
    echo "$answers"
    [[ $(grep -v DUP <<<"$answers" | grep -c 'bytes from .*icmp_seq=[1-5] ') == 5 ]]
}

# make_data FILE MIB: bytes that are nowhere the same, from one random MiB: an emulated CPU makes few of them in a second.
make_data() {
    local number
    head -c 1M /dev/urandom >"$1.part"
    for ((number = 0; number < $2; number++)); do
        printf '%08d' "$number"
        cat "$1.part"
    done >"$1"
    rm "$1.part"
}
# guest_sends GUEST FILE ADDRESS [HOST [FIRST]]: over TCP to dom0 or to a host of make_host, after the command FIRST in the guest; both
# ends must compute the same sum.
guest_sends() {
    local receiver sum
    rm -f /run/rig/received
    # Not through in_host: what is killed must be socat itself.
    ${4:+ip netns exec "$4"} socat -u TCP6-LISTEN:5001,ipv6only=0,reuseaddr OPEN:/run/rig/received,creat,trunc >/dev/null &
    receiver=$!
    sum=$(guest "$1" "${5:+$5 >/dev/null && }send $2 $3") || { kill $receiver && echo "$sum" && return 1; }
    wait $receiver
    same_sum "$sum" "$(sha256sum </run/rig/received)"
}
# guest_receives GUEST FILE ADDRESS [HOST]: the other way; ADDRESS is the guest's. /run/rig/mean: bytes a packet, as it saw them.
guest_receives() {
    local sum
    guest_begin "$1" receive receive
    in_host "${4:-}" timeout 120 socat -u -b 65536 "OPEN:$2" "TCP:$3:5001,retry=100,interval=0.1" || return
    sum=$(guest_end "$1" receive 60) || { echo "$sum" && return 1; }
    echo "${sum##*mean }" >/run/rig/mean
    same_sum "$sum" "$(sha256sum <"$2")"
}
same_sum() {
    echo "sent and received: $1 $2"
    [[ ${1%% *} == "${2%% *}" && ${#1} -ge 64 ]]
}

# capture_begin NAME INTERFACE [HOST] FILTER: tcpdump, listening when this returns. capture_end NAME.
capture_begin() {
    ${3:+ip netns exec "$3"} tcpdump -Z root -i "$2" -w "/run/rig/$1.pcap" -U -n -s 0 -B 16384 "${4:-}" 2>"/run/rig/$1.tcpdump" &
    echo $! >"/run/rig/$1.pid"
    wait_until 20 grep -q listening "/run/rig/$1.tcpdump"
}
capture_end() {
    kill "$(<"/run/rig/$1.pid")"
    wait "$(<"/run/rig/$1.pid")"
    tcpdump -n -vv -r "/run/rig/$1.pcap" >"/run/rig/$1.text" 2>/dev/null
    note "$1: $(captured "$1")"
}
# captured NAME: "PACKETS LONGEST RIGHT WRONG" of TCP: how many, the longest payload, and what tcpdump says of their checksums.
captured() {
    awk '/Flags \[/ { packets++; if ($NF + 0 > longest) longest = $NF + 0 }
        /cksum 0x[0-9a-f]+ \(correct\)/ { right++ } /cksum 0x[0-9a-f]+ \(incorrect/ { wrong++ }
        END { print packets + 0, longest + 0, right + 0, wrong + 0 }' "/run/rig/$1.text"
}

#
# Guests
#

# Domain ids by guest name. Every process costs 0.1 s here, so nothing is asked twice.
declare -A guest_ids
guest_nics=()
guest_usb=()
guest_pci=()

# guest_config NAME TYPE DISK…: writes /run/rig/NAME.cfg. Set guest_memory (MiB), guest_vcpus, guest_nics, guest_usb, guest_pci, guest_extra
# (lines), guest_arguments (of the kernel), guest_ramdisk before, or idle_guests=yes: a kernel that only waits, for scenarios that are about xl and
# not about the guest.
guest_config() {
    local name=$1 type=$2 line
    shift 2
    {
        echo "name=\"$name\""
        echo "type=\"$type\""
        case ${idle_guests:-no}-$type in
        yes-*) echo 'kernel="/rig/idle"' ;;
        # QEMU's firmware loads what a boot loader would.
        no-hvm) echo 'kernel="/rig/vmlinuz"' ;;
        *) echo 'kernel="/rig/vmlinux"' ;;
        esac
        # A copy in memory: libxl maps the file, and over the share each page would be a request of its own.
        [[ -e /run/rig/guest.cpio ]] || cp /share/guest.cpio /run/rig/
        [[ ${idle_guests:-no} == yes ]] || echo "ramdisk=\"${guest_ramdisk:-/run/rig/guest.cpio}\""
        echo "memory=${guest_memory:-256}"
        echo "vcpus=${guest_vcpus:-1}"
        echo "extra=\"console=hvc0 quiet panic=1 mitigations=off random.trust_cpu=on${guest_arguments:+ $guest_arguments}\""
        echo 'on_poweroff="destroy"'
        echo 'on_reboot="destroy"'
        echo 'on_crash="destroy"'
        echo "${guest_extra:-}"
        echo 'disk=['
        for line in "$@"; do echo "  '$line',"; done
        echo ']'
        echo 'vif=['
        for line in "${guest_nics[@]}"; do echo "  '$line',"; done
        echo ']'
        echo 'usbctrl=['
        for line in "${guest_usb[@]}"; do echo "  '$line',"; done
        echo ']'
        # Not an empty list: that alone has libxl look for what passing cards on needs.
        ((${#guest_pci[@]} == 0)) || {
            echo 'pci=['
            for line in "${guest_pci[@]}"; do echo "  '$line',"; done
            echo ']'
        }
    } >"/run/rig/$name.cfg"
}

# guest_create NAME TYPE DISK…: xl's status and output.
guest_create() {
    guest_config "$@"
    xl create "/run/rig/$1.cfg" >"$logs/xl-create-$1.log" 2>&1 || return
    guest_ids[$1]=$(xl domid "$1")
}

# guest_start NAME pv|pvh DISK…: created and its agent answering, or the scenario ends.
guest_start() {
    local name=$1 began
    began=$(now)
    say "creating guest $name ($2)"
    if ! guest_create "$@"; then
        while IFS= read -r line; do say "          | $line"; done <"$logs/xl-create-$name.log"
        rig_abort "xl create $name"
    fi
    guest_wait "$name" 150 || rig_abort "guest $name does not answer"
    say "guest $name is up after $(($(now) - began)) ms"
}

# guest_id NAME: its domain id, from the time it was created; empty once it is gone.
# Asked again where it was created in a subshell, as `check` runs its command in one.
guest_id() {
    [[ -n ${guest_ids[$1]:-} ]] || guest_ids[$1]=$(xl domid "$1" 2>/dev/null) || return
    xenstore-exists "/local/domain/${guest_ids[$1]}/name" && echo "${guest_ids[$1]}"
}
guest_directory() { echo "/local/domain/${guest_ids[$1]:-none}"; }

# guest_wait NAME SECONDS: until its agent runs.
guest_wait() {
    local directory
    directory=$(guest_directory "$1")
    wait_until "$2" xenstore-exists "$directory/data/rig/ready"
}

# guest_begin NAME KEY COMMAND: starts a command in the guest. It sees guest.sh and the scenario's guest file.
guest_begin() {
    local directory
    directory=$(guest_directory "$1")
    xenstore-rm "$directory/data/rig/status/$2" 2>/dev/null
    note "guest $1 ($2): $3"
    xenstore-write "$directory/data/rig/run/$2" "$(printf '%s' "$3" | base64 -w 0)"
}

# guest_done NAME KEY: has the command ended?
guest_done() { xenstore-exists "$(guest_directory "$1")/data/rig/status/$2"; }

# guest_end NAME KEY [SECONDS]: waits for the command, prints its output, returns its status. 124: it did not end.
guest_end() {
    local directory status chunk limit=$((SECONDS + ${3:-300} * RIG_PATIENCE))
    directory=$(guest_directory "$1")
    until status=$(xenstore-read "$directory/data/rig/status/$2" 2>/dev/null); do
        ((SECONDS < limit)) || {
            echo "no answer from guest $1 within ${3:-300} s"
            return 124
        }
        [[ -n $(guest_id "$1") ]] || {
            echo "guest $1 is gone"
            return 125
        }
        timeout 2 xenstore-watch -n 2 "$directory/data/rig/status/$2" >/dev/null 2>&1
    done
    for chunk in $(xenstore-list "$directory/data/rig/out/$2" 2>/dev/null | sort -n); do
        xenstore-read "$directory/data/rig/out/$2/$chunk"
    done | base64 -d 2>/dev/null
    return "$status"
}

# guest NAME COMMAND…: runs a command in the guest; output and status are the guest's. guest_limit: seconds.
guest() {
    local name=$1
    shift
    guest_serial=$((${guest_serial:-0} + 1))
    # Subshells share the number; the time makes the key their own.
    local key=$guest_serial-${EPOCHREALTIME/./}
    guest_begin "$name" "$key" "$*"
    guest_end "$name" "$key" "${guest_limit:-300}"
}

# guest_stop NAME: shuts down in order. xl's own process, which `xl create` left behind, cleans up after the guest; a second xl beside it
# would remove XenStore's nodes under its feet (libxl reads a controller's type and crashes where it is gone), so that is destroyed only
# what is still there after a minute.
guest_stop() {
    local id
    id=$(guest_id "$1") || return 0
    guest_begin "$1" stop 'sync; poweroff -f'
    wait_until 60 guest_gone "$id" && return
    note "guest $1 did not go by itself: $(xl list "$id" 2>&1 | tail -n 1)"
    xl destroy "$id"
}
# guest_gone DOMID: neither Xen nor XenStore knows it.
guest_gone() { refuses xl list "$1" && refuses xenstore-exists "/local/domain/$1" && refuses xenstore-exists "/libxl/$1"; }

# backend_key NAME DEVICE KEY: what the backend published, for instance `backend_key g1 51712 state`.
backend_key() {
    local path
    path=$(xenstore-read "$(guest_directory "$1")/device/vbd/$2/backend") && xenstore-read "$path/$3"
}

# backend_says NAME DEVICE STATE
backend_says() { [[ $(backend_key "$1" "$2" state) == "$3" ]]; }

# replug NAME DEVICE IMAGE: detached and attached by xl; the guest sees the disk again.
replug() {
    xl block-detach "$(guest_id "$1")" "$2" && xl block-attach "$(guest_id "$1")" "$(disk_line "$2" "$3")" &&
        guest "$1" "wait_for 20 test -b /dev/$2"
}

#
# Our processes
#

worker_is_new() { local pid && pid=$(worker_pid "$1") && [[ -n $pid && $pid != "$2" ]]; }
broker_is_new() { local pid && pid=$(broker_pid) && [[ -n $pid && $pid != "$1" ]]; }

broker_unit() {
    local folder
    for folder in /usr/lib/systemd/system /lib/systemd/system /etc/systemd/system; do
        [[ ! -e $folder/xenbackd.service ]] || { echo $folder/xenbackd.service && return; }
    done
}
# The broker is xenbackd without --domain.
broker_pid() { pgrep -f '(^|/)xenbackd( |$)' | while read -r pid; do
    tr '\0' ' ' <"/proc/$pid/cmdline" | grep -q -- '--domain' || echo "$pid"
done | head -n 1; }
# worker_pid DOMID
worker_pid() { pgrep -f "(^|/)xenbackd .*--domain[ =]$1( |\$)" | head -n 1; }
# kill_worker DOMID: SIGKILL.
kill_worker() { kill -9 "$(worker_pid "$1")"; }
kill_broker() { kill -9 "$(broker_pid)"; }
# stop_ours: no process of ours is left, and none comes back before restart_ours. For the quick start.
stop_ours() {
    touch /run/rig/stop-broker
    pkill -9 -x xenbackd
    wait_until 10 refuses pgrep -x xenbackd
}
restart_ours() {
    rm -f /run/rig/stop-broker
    supervise_broker &
    wait_until 20 xenback list
}
# resident PID: KiB.
resident() { awk '/^VmRSS/ { print $2 }' "/proc/$1/status"; }
# check_sleep NAME DOMID [SECONDS]: nothing wakes the guest's worker, nor the broker, for so long. What happens once a while after the last
# use may happen first, within twelve such times.
check_sleep() {
    local name=$1 worker broker seconds=${3:-10} window woken broker_woken
    worker=$(worker_pid "$2") broker=$(broker_pid)
    [[ -n $worker && -n $broker ]] || { fail "$name: broker ${broker:-none}, worker ${worker:-none}" && return; }
    for ((window = 1; window <= 12; window++)); do
        woken=$(wakeups "$worker") broker_woken=$(wakeups "$broker")
        sleep "$seconds"
        woken=$(($(wakeups "$worker") - woken)) broker_woken=$(($(wakeups "$broker") - broker_woken))
        say "in $seconds s idle: worker $woken wake-ups, broker $broker_woken"
        ((woken + broker_woken > 0)) || break
    done
    check_equal "$name" "0 0" "$woken $broker_woken"
}
# wakeups PID: voluntary context switches of all its threads so far.
wakeups() { awk '/^voluntary_ctxt/ { n += $2 } END { print n }' /proc/"$1"/task/*/status; }

# shellcheck source=usb.sh
source /share/lib/usb.sh
# shellcheck source=pci.sh
source /share/lib/pci.sh
