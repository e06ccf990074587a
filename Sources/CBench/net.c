// The network queue in C that the Swift one is compared with.
#include "CBench.h"
#include <errno.h>
#include <string.h>
#include <sys/uio.h>

enum { page = 4096, mask = 255, more_data = 4, extra_info = 8 };

static inline uint32_t load_acquire(const void *word) { return __atomic_load_n((const uint32_t *)word, __ATOMIC_ACQUIRE); }
static inline uint32_t load_relaxed(const void *word) { return __atomic_load_n((const uint32_t *)word, __ATOMIC_RELAXED); }

struct transmit_slot { uint32_t reference; uint16_t offset, flags, id, size; };
struct receive_slot { uint16_t id, unused; uint32_t reference; };
struct receive_answer { uint16_t id, offset, flags; int16_t status; };
struct virtio { uint8_t flags, kind; uint16_t header, segment, start, offset, buffers; };

static void publish(struct bench_net *queue) {
    uint32_t old = load_relaxed(queue->ring + 8);
    __atomic_store_n((uint32_t *)(queue->ring + 8), queue->produced, __ATOMIC_RELEASE);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    queue->notify = queue->produced - load_relaxed(queue->ring + 12) < queue->produced - old;
}

static uint32_t last_look(struct bench_net *queue) {
    __atomic_store_n((uint32_t *)(queue->ring + 4), queue->consumed + 1, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return load_acquire(queue->ring);
}

static void take(struct bench_net *queue, void *slot, size_t size) {
    memcpy(slot, queue->ring + 64 + size * (queue->consumed++ & mask), size);
    __asm__ volatile("" : : "r"(slot) : "memory");
}

static uint8_t *granted(struct bench_net *queue, uint32_t reference) {
    uint32_t index = reference - queue->first_reference;
    if (index >= queue->reference_count || queue->places[index] == 0xFFFF) return NULL;
    return queue->pages + (size_t)page * queue->places[index];
}

// What the headers say of a checksum that is left to be summed.
static int describe(const uint8_t *frame, uint32_t count, struct virtio *header) {
    if (count < 54 || frame[12] != 0x08 || frame[13] != 0x00) return -1;
    uint32_t transport = 14 + 4 * (frame[14] & 15u);
    if (transport + 20 > count) return -1;
    header->flags = 1;
    header->start = (uint16_t)transport;
    header->offset = frame[23] == 6 ? 16 : 6;
    header->header = (uint16_t)(transport + (frame[23] == 6 ? 4u * (frame[transport + 12] >> 4) : 8u));
    return 0;
}

// Takes one packet's slots and copies its data. Returns its bytes, or -1.
static int gather(struct bench_net *queue, struct transmit_slot *slots, int *count, struct virtio *header) {
    uint32_t total = 0, whole = 0;
    uint8_t extra[12] = {0};
    *count = 0;
    for (int data = 0;; data++) {
        struct transmit_slot *slot = &slots[*count];
        if (*count >= 20) return -1;
        take(queue, slot, sizeof *slot);
        (*count)++;
        if (data == 0) {
            whole = slot->size;
            if (slot->flags & extra_info) {
                take(queue, extra, sizeof extra);
                slots[(*count)++] = (struct transmit_slot){0};
            }
        }
        uint8_t *source = granted(queue, slot->reference);
        uint32_t bytes = slot->size;
        if (data == 0 && slot->flags & more_data) bytes = page - slot->offset;
        if (!source || slot->offset + bytes > page || total + bytes > 17 * page) return -1;
        memcpy(queue->frame + total, source + slot->offset, bytes);
        total += bytes;
        if (!(slot->flags & more_data)) break;
    }
    memset(header, 0, sizeof *header);
    if (slots[0].flags & 1 && describe(queue->frame, total, header)) return -1;
    if (extra[0] == 1) {
        header->kind = extra[4] == 1 ? 1 : 4;
        memcpy(&header->segment, extra + 2, 2);
    }
    return total == whole ? (int)total : -1;
}

int bench_net_transmit_turn(struct bench_net *queue) {
    int packets = 0;
    uint32_t producer = load_acquire(queue->ring);
    while (producer != queue->consumed) {
        if (producer - queue->consumed > 256) return -1;
        while (queue->consumed != producer) {
            struct transmit_slot slots[22];
            struct virtio header;
            int count, bytes = gather(queue, slots, &count, &header);
            if (bytes < 0) return -1;
            struct iovec pieces[2] = {{&header, sizeof header}, {queue->frame, (size_t)bytes}};
            if (writev(queue->descriptor, pieces, 2) > 0) packets++;
            for (int index = 0; index < count; index++) {
                struct { uint16_t id; int16_t status; } answer = {slots[index].id, 0};
                memcpy(queue->ring + 64 + 12 * (queue->produced++ & mask), &answer, 4);
            }
        }
        publish(queue);
        producer = last_look(queue);
    }
    return packets;
}

int bench_net_receive_turn(struct bench_net *queue) {
    int packets = 0;
    uint32_t producer = load_acquire(queue->ring);
    if (producer - queue->consumed > 256) return -1;
    for (;; packets++) {
        struct virtio header;
        struct iovec pieces[2] = {{&header, sizeof header}, {queue->frame, 17 * page}};
        ssize_t got = readv(queue->descriptor, pieces, 2);
        if (got <= (ssize_t)sizeof header) break;
        uint32_t left = (uint32_t)(got - (ssize_t)sizeof header), done = 0;
        bool extra = header.kind != 0;
        for (bool first = true; left > 0; first = false) {
            struct receive_slot slot, unused;
            if (queue->consumed == producer) return -1;
            take(queue, &slot, sizeof slot);
            uint8_t *target = granted(queue, slot.reference);
            if (!target) return -1;
            uint32_t bytes = left < page ? left : page;
            memcpy(target, queue->frame + done, bytes);
            done += bytes;
            left -= bytes;
            struct receive_answer answer = {slot.id, 0, (uint16_t)(left ? 4 : 0), (int16_t)bytes};
            if (first) answer.flags |= (uint16_t)((header.flags & 1 ? 3 : 0) | (extra ? extra_info : 0));
            memcpy(queue->ring + 64 + 8 * (queue->produced++ & mask), &answer, 8);
            if (first && extra) {
                if (queue->consumed == producer) return -1;
                take(queue, &unused, sizeof unused);
                uint8_t words[8] = {1, 0, 0, 0, header.kind == 1 ? 1 : 2, 0, 0, 0};
                memcpy(words + 2, &header.segment, 2);
                memcpy(queue->ring + 64 + 8 * (queue->produced++ & mask), words, 8);
            }
        }
    }
    publish(queue);
    last_look(queue);
    return packets;
}
