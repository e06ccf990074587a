// The ring consumer in C that the Swift one is compared with.
#include "CBench.h"
#include <string.h>

static inline uint32_t load_acquire(const void *word) { return __atomic_load_n((const uint32_t *)word, __ATOMIC_ACQUIRE); }
static inline uint32_t load_relaxed(const void *word) { return __atomic_load_n((const uint32_t *)word, __ATOMIC_RELAXED); }
static inline uint64_t get64(const uint8_t *bytes) {
    uint64_t value;
    memcpy(&value, bytes, 8);
    return value;
}

enum { okay = 0, error = -1, unsupported = -2 };

static int validate(struct bench_ring *ring, const uint8_t *slot) {
    uint8_t operation = slot[0], count = slot[1];
    uint64_t sector = get64(slot + 12 + ring->shift), total = 0, end;
    switch (operation) {
    case 0:
    case 1:
        if (operation == 1 && ring->read_only) return error;
        if (count == 0) return error;
        break;
    case 2:
        if (!(ring->features & 2)) return unsupported;
        break;
    case 3:
        if (!(ring->features & 1)) return unsupported;
        break;
    case 5:
        if (!(ring->features & 4)) return unsupported;
        if (ring->read_only) return error;
        total = get64(slot + 20 + ring->shift);
        if (total == 0) return error;
        count = 0;
        break;
    default:
        return unsupported;
    }
    if (count > 11) return error;
    for (unsigned index = 0; index < count; index++) {
        const uint8_t *segment = slot + 20 + ring->shift + 8 * index;
        uint8_t first = segment[4], last = segment[5];
        if (first > last || last > 7) return error;
        total += (uint64_t)(last - first + 1);
    }
    if (total == 0) return okay;
    if (operation != 0 && ring->read_only) return error;
    if (__builtin_add_overflow(sector, total, &end) || end > ring->capacity) return error;
    if ((sector | total) & ring->block_mask) return error;
    ring->sectors += total;
    return okay;
}

int bench_ring_turn(struct bench_ring *ring) {
    int turns = 0;
    uint32_t producer = load_acquire(ring->base);
    for (;;) {
        uint32_t waiting = producer - ring->consumed;
        if (waiting > ring->size || producer - ring->produced > ring->size) return -1;
        if (waiting == 0) return turns;
        turns += (int)waiting;
        while (ring->consumed != producer) {
            uint32_t index = ring->consumed & (ring->size - 1);
            uint8_t *slot = ring->slots + 128 * index;
            if (ring->stride == 112) memcpy(slot, ring->base + 64 + 112 * index, 112);
            else memcpy(slot, ring->base + 64 + 108 * index, 108);
            __asm__ volatile("" : : "r"(slot) : "memory");
            ring->consumed++;

            struct { uint64_t id; uint8_t operation, zero; int16_t status; uint32_t padding; } response = {0};
            response.status = (int16_t)validate(ring, slot);
            response.id = get64(slot + 4 + ring->shift);
            response.operation = slot[0];
            uint32_t place = ring->produced & (ring->size - 1);
            if (ring->stride == 112) memcpy(ring->base + 64 + 112 * place, &response, 16);
            else memcpy(ring->base + 64 + 108 * place, &response, 12);
            ring->produced++;
        }
        uint32_t old = load_relaxed(ring->base + 8);
        __atomic_store_n((uint32_t *)(ring->base + 8), ring->produced, __ATOMIC_RELEASE);
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
        ring->notify = ring->produced - load_relaxed(ring->base + 12) < ring->produced - old;
        __atomic_store_n((uint32_t *)(ring->base + 4), ring->consumed + 1, __ATOMIC_RELAXED);
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
        producer = load_acquire(ring->base);
    }
}
