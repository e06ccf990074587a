// vhost-net (linux/vhost.h): ioctl numbers and structures that Swift cannot import. Each call returns 0 or an errno value.
#pragma once
#include <errno.h>
#include <linux/vhost.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>
#include <stdint.h>
#include <sys/ioctl.h>

#define VHOST_FEATURE_VERSION_1 (1ULL << VIRTIO_F_VERSION_1)
#define VHOST_FEATURE_MERGEABLE (1ULL << VIRTIO_NET_F_MRG_RXBUF)
#define VHOST_FEATURE_EVENT_INDEX (1ULL << VIRTIO_RING_F_EVENT_IDX)

static inline int vhost_get_features(int fd, uint64_t *features) {
    __u64 value = 0;
    if (ioctl(fd, VHOST_GET_FEATURES, &value) < 0) return errno;
    *features = value;
    return 0;
}

static inline int vhost_set_features(int fd, uint64_t features) {
    __u64 value = features;
    return ioctl(fd, VHOST_SET_FEATURES, &value) < 0 ? errno : 0;
}

// Makes the kernel's thread, which works on this process's memory.
static inline int vhost_set_owner(int fd) { return ioctl(fd, VHOST_SET_OWNER) < 0 ? errno : 0; }

// The memory that descriptors may name: two regions.
static inline int vhost_set_memory(int fd, const struct vhost_memory_region regions[2]) {
    // struct vhost_memory ends in an array without a size.
    uint64_t table[(sizeof(struct vhost_memory) + 2 * sizeof(struct vhost_memory_region)) / sizeof(uint64_t)];
    struct vhost_memory *memory = (struct vhost_memory *)table;
    memory->nregions = 2;
    memory->padding = 0;
    memory->regions[0] = regions[0];
    memory->regions[1] = regions[1];
    return ioctl(fd, VHOST_SET_MEM_TABLE, memory) < 0 ? errno : 0;
}

static inline int vhost_set_ring_size(int fd, unsigned ring, unsigned size) {
    struct vhost_vring_state state = {ring, size};
    return ioctl(fd, VHOST_SET_VRING_NUM, &state) < 0 ? errno : 0;
}

static inline int vhost_set_ring_base(int fd, unsigned ring, unsigned index) {
    struct vhost_vring_state state = {ring, index};
    return ioctl(fd, VHOST_SET_VRING_BASE, &state) < 0 ? errno : 0;
}

static inline int vhost_set_ring_addresses(int fd, unsigned ring, uint64_t descriptors, uint64_t available, uint64_t used) {
    struct vhost_vring_addr address = {
        .index = ring, .desc_user_addr = descriptors, .used_user_addr = used, .avail_user_addr = available};
    return ioctl(fd, VHOST_SET_VRING_ADDR, &address) < 0 ? errno : 0;
}

// Which event is meant.
enum vhost_event { VHOST_EVENT_KICK, VHOST_EVENT_CALL, VHOST_EVENT_ERROR };

static inline int vhost_set_ring_event(int fd, unsigned ring, enum vhost_event event, int eventfd) {
    struct vhost_vring_file file = {ring, eventfd};
    int status = -1;
    switch (event) {
    case VHOST_EVENT_KICK: status = ioctl(fd, VHOST_SET_VRING_KICK, &file); break;
    case VHOST_EVENT_CALL: status = ioctl(fd, VHOST_SET_VRING_CALL, &file); break;
    case VHOST_EVENT_ERROR: status = ioctl(fd, VHOST_SET_VRING_ERR, &file); break;
    }
    return status < 0 ? errno : 0;
}

// The TAP's queue that a ring's packets go to or come from; -1: none, and the kernel's thread has let go of the last one.
static inline int vhost_set_backend(int fd, unsigned ring, int tap) {
    struct vhost_vring_file file = {ring, tap};
    return ioctl(fd, VHOST_NET_SET_BACKEND, &file) < 0 ? errno : 0;
}
