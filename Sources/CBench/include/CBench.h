// What the benchmarks need of C: a ring consumer to compare with, a cycle counter, and counts of allocations.
#pragma once
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include <stdbool.h>
#include <stdint.h>

// A block ring's backend in C: the same steps in the same order as BackRing, RawBlockRequest and BlockRequest.
struct bench_ring {
    uint8_t *base;            // the shared page
    uint8_t *slots;           // private memory, 128 bytes for each slot of the ring
    uint32_t size;            // slots in the ring
    uint32_t stride;          // bytes of a request
    uint32_t shift;           // 0 for x86-32, 4 for all others
    uint32_t consumed, produced;
    uint64_t capacity;        // sectors
    uint64_t block_mask;
    uint32_t features;        // 1 flush, 2 barrier, 4 discard, 8 secure discard
    bool read_only;
    uint64_t sectors;         // of all valid requests: so that nothing is optimised away
    bool notify;
};

// One turn: takes all that waits, validates, answers, publishes, looks once more. Returns the number of requests, or -1 for a
// producer out of range.
int bench_ring_turn(struct bench_ring *ring);

// A network queue's backend in C: both rings of one page each, slots copied out, data copied between the frontend's pages and
// private memory, a writev(2) or readv(2) for each packet. It has no grants, no journal, no offload but the header's words.
struct bench_net {
    uint8_t *ring;            // the shared page
    uint8_t *pages;           // the frontend's
    const uint16_t *places;   // the page of each reference from first_reference on, 0xFFFF for none
    uint32_t first_reference;
    uint32_t reference_count;
    uint8_t *frame;           // private memory for a packet: 18 pages
    int descriptor;           // the interface
    uint32_t consumed, produced;
    bool notify;
};

// One turn of a transmit ring: everything that waits. Returns the packets that the interface took, or -1 for a wrong request.
int bench_net_transmit_turn(struct bench_net *queue);
// One turn of a receive ring: everything that the interface has. Returns the packets, or -1 if there were too few pages.
int bench_net_receive_turn(struct bench_net *queue);

// A cheap counter that runs at a constant rate: the time stamp counter, or arm's virtual counter.
static inline uint64_t bench_ticks(void) {
#if defined(__x86_64__)
    uint32_t low, high;
    __asm__ volatile("lfence\n\trdtsc" : "=a"(low), "=d"(high) : : "memory");
    return (uint64_t)high << 32 | low;
#else
    uint64_t value;
    __asm__ volatile("isb\n\tmrs %0, cntvct_el0" : "=r"(value) : : "memory");
    return value;
#endif
}

// The next block of a workload, of `count`: pseudo-random (xorshift64*), or one behind the other. `position` begins above 0.
static inline uint64_t bench_next_block(uint64_t *position, uint64_t count, bool random) {
    if (!random) return (*position)++ % count;
    *position ^= *position >> 12;
    *position ^= *position << 25;
    *position ^= *position >> 27;
    return (*position * 0x2545F4914F6CDD1Du >> 11) % count;
}

// Transfers of one file.
struct bench_io {
    int descriptor;
    uint32_t block;           // bytes of each
    uint32_t depth;           // in flight at once
    uint64_t byte_count;      // of the file
    bool random, writing;
};

// Runs them for `duration` nanoseconds through an io_uring of its own. Latencies in nanoseconds go to `samples`, the last
// `sample_count` of them. Returns how many there were, or a negated errno value.
int64_t bench_uring(const struct bench_io *io, uint64_t duration, uint64_t *samples, uint64_t sample_count);

// Calls since the program began, of all threads.
struct bench_counts {
    uint64_t allocations;     // malloc, calloc, realloc, aligned_alloc, posix_memalign
    uint64_t objects;         // swift_allocObject
    uint64_t retains, releases;
};
struct bench_counts bench_counts(void);

// Makes the Swift runtime tell of objects, retains and releases from now on, or no longer, by the switch it has for profilers.
// Only around code that touches no strings: with the switch on, 6.3's runtime dereferences small ones.
void bench_count_swift(bool on);
