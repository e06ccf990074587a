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
