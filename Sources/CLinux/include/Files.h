// Facts about files, locks on open files, and block devices' ioctls, whose numbers Swift cannot import.
#pragma once
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

struct linux_file_facts {
    uint64_t device, inode; // identity
    uint64_t special;       // the device a special file stands for
    uint64_t size, allocated;
    uint32_t mode, block_size;
    // Alignment of direct I/O: -1 unknown, 0 impossible.
    int32_t direct_memory, direct_offset;
    uint32_t file_system; // statfs(2) f_type
};

// Returns 0 or an errno value.
static inline int linux_file_facts(int fd, struct linux_file_facts *facts) {
    // glibc's struct statx ends before stx_dio_mem_align (Linux 6.1, uapi/linux/stat.h: offsets 0x98 and 0x9c).
    union {
        struct statx known;
        unsigned char bytes[512];
    } all;
    struct statfs where;
    memset(&all, 0, sizeof all);
    if (syscall(SYS_statx, fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS | 0x2000, &all) < 0) return errno;
    if (fstatfs(fd, &where) < 0) return errno;
    facts->device = makedev(all.known.stx_dev_major, all.known.stx_dev_minor);
    facts->inode = all.known.stx_ino;
    facts->special = makedev(all.known.stx_rdev_major, all.known.stx_rdev_minor);
    facts->size = all.known.stx_size;
    facts->allocated = all.known.stx_blocks * 512;
    facts->mode = all.known.stx_mode;
    facts->block_size = all.known.stx_blksize;
    facts->direct_memory = facts->direct_offset = -1;
    if (all.known.stx_mask & 0x2000) {
        memcpy(&facts->direct_memory, all.bytes + 0x98, 4);
        memcpy(&facts->direct_offset, all.bytes + 0x9c, 4);
    }
    facts->file_system = (uint32_t)where.f_type;
    return 0;
}

// Whether reading and writing the open file is copying in memory: an ordinary file on tmpfs or ramfs. The node of a device
// lies on devtmpfs, which looks like tmpfs, but is no ordinary file.
static inline int linux_is_in_memory(int fd) {
    struct stat status;
    struct statfs where;
    if (fstat(fd, &status) < 0 || !S_ISREG(status.st_mode) || fstatfs(fd, &where) < 0) return 0;
    return (uint32_t)where.f_type == 0x01021994u || (uint32_t)where.f_type == 0x858458f6u;
}

// A lock on `length` bytes, 0 for all, that belongs to the open file, not to the process. Returns 0 or an errno value;
// EAGAIN or EACCES if another open file has one that conflicts.
static inline int linux_lock_range(int fd, int exclusive, int64_t start, int64_t length) {
    struct flock lock;
    memset(&lock, 0, sizeof lock);
    lock.l_type = exclusive ? F_WRLCK : F_RDLCK;
    lock.l_whence = SEEK_SET;
    lock.l_start = start;
    lock.l_len = length;
    return fcntl(fd, F_OFD_SETLK, &lock) < 0 ? errno : 0;
}

// The same on the whole file.
static inline int linux_lock_open_file(int fd, int exclusive) { return linux_lock_range(fd, exclusive, 0, 0); }

// Whether another open file, or a process, has a lock of any kind on one of `length` bytes: 1 or 0, or a negated errno
// value.
static inline int linux_is_locked_by_others(int fd, int64_t start, int64_t length) {
    struct flock lock;
    memset(&lock, 0, sizeof lock);
    lock.l_type = F_WRLCK;
    lock.l_whence = SEEK_SET;
    lock.l_start = start;
    lock.l_len = length;
    if (fcntl(fd, F_OFD_GETLK, &lock) < 0) return -errno;
    return lock.l_type != F_UNLCK;
}

// Switches direct I/O of an open file on or off. Returns 0 or an errno value.
static inline int linux_use_direct_io(int fd, int on) {
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0) return errno;
    return fcntl(fd, F_SETFL, on ? flags | __O_DIRECT : flags & ~__O_DIRECT) < 0 ? errno : 0;
}

// Returns 0 or an errno value.
static inline int linux_punch_hole(int fd, int64_t offset, int64_t length) {
    return syscall(SYS_fallocate, fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length) < 0 ? errno : 0;
}

// Reserves space that reads as zeros, whatever was there, and extends the file if needed. Returns 0 or an errno value:
// EOPNOTSUPP where the file system can do neither.
static inline int linux_reserve_zeros(int fd, int64_t offset, int64_t length) {
    if (syscall(SYS_fallocate, fd, FALLOC_FL_ZERO_RANGE, offset, length) == 0) return 0;
    if (errno != EOPNOTSUPP) return errno;
    // tmpfs: a hole first, then its space.
    if (linux_punch_hole(fd, offset, length) != 0) return EOPNOTSUPP;
    return syscall(SYS_fallocate, fd, 0, offset, length) < 0 ? errno : 0;
}

static inline unsigned linux_major(uint64_t device) { return major(device); }
static inline unsigned linux_minor(uint64_t device) { return minor(device); }
static inline uint64_t linux_device(unsigned device_major, unsigned device_minor) {
    return makedev(device_major, device_minor);
}

struct linux_loop_facts {
    uint64_t device, inode; // of the file that it stands on
};

// What a loop device stands on. Returns 0 or an errno value: ENOTTY for other devices, ENXIO for unused ones.
static inline int linux_loop_facts(int fd, struct linux_loop_facts *facts) {
    struct loop_info64 info;
    if (ioctl(fd, LOOP_GET_STATUS64, &info) < 0) return errno;
    // The kernel's huge_encode_dev().
    unsigned device_major = (unsigned)((info.lo_device & 0xfff00) >> 8);
    unsigned device_minor = (unsigned)((info.lo_device & 0xff) | ((info.lo_device >> 12) & 0xfff00));
    facts->device = makedev(device_major, device_minor);
    facts->inode = info.lo_inode;
    return 0;
}

// Whether a block device takes no writes: 1 or 0, or a negated errno value.
static inline int linux_is_read_only_device(int fd) {
    int read_only = 0;
    return ioctl(fd, BLKROGET, &read_only) < 0 ? -errno : read_only != 0;
}

struct linux_block_facts {
    uint64_t size;
    uint32_t logical, physical;
    int discards, discards_securely; // what the device can do, if it is open for writing
};

// Returns 0 or an errno value.
static inline int linux_block_facts(int fd, struct linux_block_facts *facts) {
    int logical = 0;
    unsigned int physical = 0;
    if (ioctl(fd, BLKGETSIZE64, &facts->size) < 0 || ioctl(fd, BLKSSZGET, &logical) < 0 ||
        ioctl(fd, BLKPBSZGET, &physical) < 0)
        return errno;
    facts->logical = (uint32_t)logical;
    facts->physical = physical;
    // A device that cannot says so before it looks at the range; one that can finds no range at address 0.
    facts->discards = ioctl(fd, BLKDISCARD, NULL) < 0 && errno == EFAULT;
    facts->discards_securely = ioctl(fd, BLKSECDISCARD, NULL) < 0 && errno == EFAULT;
    return 0;
}

// Blocks until done. Returns 0 or a negated errno value.
static inline int linux_block_discard(int fd, uint64_t offset, uint64_t length, int secure) {
    uint64_t range[2] = {offset, length};
    return ioctl(fd, secure ? BLKSECDISCARD : BLKDISCARD, range) < 0 ? -errno : 0;
}
