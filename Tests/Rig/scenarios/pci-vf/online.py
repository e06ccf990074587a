"""Gives a virtual function of an NVMe controller queues and interrupts, and brings it online (NVMe 1.4, 5.22), as `nvme virt-mgmt` does.

online.py DEVICE CONTROLLER: before the function is made; Xen reads how many interrupts it has when it appears, and never again.
online.py DEVICE CONTROLLER FOLDER: afterwards; FOLDER is the function's in sysfs.
"""
import fcntl
import os
import struct
import sys

ADMIN_COMMAND = 0xC0484E41  # _IOWR('N', 0x41, struct nvme_passthru_cmd), 72 bytes
VIRTUALIZATION_MANAGEMENT = 0x1C
OFFLINE, ASSIGN, ONLINE = 7, 8, 9
QUEUES, INTERRUPTS = 0, 1


def manage(device, controller, action, resource=0, number=0):
    word = controller << 16 | resource << 8 | action
    command = struct.pack("=BBHIIIQQIIIIIIIIII", VIRTUALIZATION_MANAGEMENT, 0, 0, 0, 0, 0, 0, 0, 0, 0, word, number, 0, 0, 0, 0, 0, 0)
    status = fcntl.ioctl(device, ADMIN_COMMAND, bytearray(command))
    if status:
        sys.exit(f"controller {controller}, action {action}: NVMe status {status:#x}")


file = os.open(sys.argv[1], os.O_RDWR)
function = int(sys.argv[2])
if len(sys.argv) == 3:
    manage(file, function, OFFLINE)
    manage(file, function, ASSIGN, QUEUES, 3)
    manage(file, function, ASSIGN, INTERRUPTS, 2)
else:
    with open(sys.argv[3] + "/reset", "w") as reset:
        reset.write("1")
    manage(file, function, ONLINE)
