# shellcheck shell=sh
# The kernel's own USB test, usbtest and testusb, in the same words in dom0 and in guests.

# test_module: usbtest, bound to its device, expecting bytes that count; udev may have loaded it already.
test_module() {
    rmmod usbtest 2>/dev/null
    if [ -e /usb-test-modules ]; then
        insmod "$(grep usbtest /usb-test-modules)" pattern=1 || return
    else
        modprobe usbtest pattern=1 || return
    fi
    for tries in 1 2 3 4 5 6 7 8 9 10; do
        ls -d /sys/bus/usb/drivers/usbtest/*:* >/dev/null 2>&1 && return
        sleep 1
    done
    dmesg | tail -n 20
    return 1
}
# usb_file NAME: the device file that testusb opens.
usb_file() { node=$(usb_node "$1") && printf '/dev/bus/usb/%03d/%03d\n' "$(cat "$node/busnum")" "$(cat "$node/devnum")"; }

# run_cases FILE: "NUMBER SECONDS" or "NUMBER ERROR" for each case; "skipped" is what usbtest says of one that the device has no
# endpoints for (the gadget has no isochronous ones: dummy_hcd knows none) or that compares no data (27 and 28). One that hangs is the
# last.
run_cases() {
    for number in $(seq 0 29); do
        case $number in
        # Unlinking is a matter of chance: often, and small.
        11 | 12 | 24) arguments="-c 20 -s 2048 -g 8" ;;
        # Several packets in a transfer, the last one short.
        15 | 16 | 22 | 23) arguments="-c 20 -s 15000 -g 4" ;;
        14 | 21) arguments="-c 20 -s 256 -v 1" ;;
        5 | 6 | 7 | 8 | 27 | 28) arguments="-c 10 -s 4096 -g 8 -v 512" ;;
        *) arguments="-c 20 -s 1024 -v 512" ;;
        esac
        # shellcheck disable=SC2086 # the words of the arguments
        testusb -D "$1" -t $number $arguments >/tmp/case 2>/dev/null &
        tries=0
        while kill -0 $! 2>/dev/null && [ $tries -lt 600 ]; do
            tries=$((tries + 1))
            usleep 100000 2>/dev/null || sleep 0.1
        done
        # The kernel waits for the device, and nothing that follows could be tested.
        kill -0 $! 2>/dev/null && echo "$number hangs" && return 1
        said=$(cat /tmp/case)
        case $said in
        *" secs"*) echo "$number $(echo "$said" | sed 's/.*, *\([0-9.]*\) secs.*/\1/')" ;;
        *"-->"*) echo "$number $(echo "$said" | sed 's/.*--> \([0-9]*\).*/error-\1/')" ;;
        *) echo "$number skipped" ;;
        esac
    done
}
