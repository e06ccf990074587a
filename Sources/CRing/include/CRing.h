// Accesses to memory that another domain can write: each word is read once, in an order the compiler keeps.
#pragma once
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#ifndef __XEN_INTERFACE_VERSION__
#define __XEN_INTERFACE_VERSION__ 0x00040e00
#endif
#include <linux/virtio_ring.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline uint32_t ring_load_acquire(const void *word) {
    return __atomic_load_n((const uint32_t *)word, __ATOMIC_ACQUIRE);
}
static inline uint32_t ring_load_relaxed(const void *word) {
    return __atomic_load_n((const uint32_t *)word, __ATOMIC_RELAXED);
}
static inline void ring_store_release(void *word, uint32_t value) {
    __atomic_store_n((uint32_t *)word, value, __ATOMIC_RELEASE);
}
static inline void ring_store_relaxed(void *word, uint32_t value) {
    __atomic_store_n((uint32_t *)word, value, __ATOMIC_RELAXED);
}
// Flags that both ends change in one word.
static inline void ring_set_bits(void *word, uint32_t bits) {
    __atomic_fetch_or((uint32_t *)word, bits, __ATOMIC_SEQ_CST);
}
static inline void ring_clear_bits(void *word, uint32_t bits) {
    __atomic_fetch_and((uint32_t *)word, ~bits, __ATOMIC_SEQ_CST);
}
static inline void ring_full_fence(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
// In a loop that waits for another processor: leaves the core to its sibling for a moment.
static inline void ring_relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield" : : : "memory");
#endif
}

// Copies out of or into shared memory. The barrier makes the private copy materialise, so that no later read of it
// can be turned into a second read of the shared bytes (XSA-155).
static inline void ring_copy(void *destination, const void *source, uint32_t count) {
    __builtin_memcpy(destination, source, count);
    __asm__ volatile("" : : "r"(destination) : "memory");
}
static inline void ring_copy_148(void *destination, const void *source) {
    __builtin_memcpy(destination, source, 148);
    __asm__ volatile("" : : "r"(destination) : "memory");
}
static inline void ring_copy_112(void *destination, const void *source) {
    __builtin_memcpy(destination, source, 112);
    __asm__ volatile("" : : "r"(destination) : "memory");
}
static inline void ring_copy_108(void *destination, const void *source) {
    __builtin_memcpy(destination, source, 108);
    __asm__ volatile("" : : "r"(destination) : "memory");
}
static inline void ring_copy_16(void *destination, const void *source) {
    __builtin_memcpy(destination, source, 16);
    __asm__ volatile("" : : "r"(destination) : "memory");
}
static inline void ring_copy_12(void *destination, const void *source) {
    __builtin_memcpy(destination, source, 12);
    __asm__ volatile("" : : "r"(destination) : "memory");
}
static inline void ring_copy_8(void *destination, const void *source) {
    __builtin_memcpy(destination, source, 8);
    __asm__ volatile("" : : "r"(destination) : "memory");
}
static inline void ring_copy_4(void *destination, const void *source) {
    __builtin_memcpy(destination, source, 4);
    __asm__ volatile("" : : "r"(destination) : "memory");
}
static inline void ring_copy_2(void *destination, const void *source) {
    __builtin_memcpy(destination, source, 2);
    __asm__ volatile("" : : "r"(destination) : "memory");
}
// A request or response of 2, 4, 8, 12 or 16 bytes out of registers. (Built in memory and copied it would be loaded wider than it was stored,
// which stalls the processor for longer than all the rest of a small request takes.)
static inline void ring_put_12(void *destination, uint64_t low, uint32_t high) {
    __builtin_memcpy(destination, &low, 8);
    __builtin_memcpy((char *)destination + 8, &high, 4);
}
static inline void ring_put_16(void *destination, uint64_t low, uint64_t high) {
    __builtin_memcpy(destination, &low, 8);
    __builtin_memcpy((char *)destination + 8, &high, 8);
}
static inline void ring_put_4(void *destination, uint32_t low) { __builtin_memcpy(destination, &low, 4); }
static inline void ring_put_2(void *destination, uint16_t low) { __builtin_memcpy(destination, &low, 2); }
static inline void ring_put_8(void *destination, uint64_t low) { __builtin_memcpy(destination, &low, 8); }

// Split virtqueues (linux/virtio_ring.h): indices and flags of 16 bits, which a thread of the kernel changes at the other end.
static inline uint16_t ring_load_acquire_16(const void *word) {
    return __atomic_load_n((const uint16_t *)word, __ATOMIC_ACQUIRE);
}
static inline uint16_t ring_load_relaxed_16(const void *word) {
    return __atomic_load_n((const uint16_t *)word, __ATOMIC_RELAXED);
}
static inline void ring_store_release_16(void *word, uint16_t value) {
    __atomic_store_n((uint16_t *)word, value, __ATOMIC_RELEASE);
}
static inline void ring_store_relaxed_16(void *word, uint16_t value) {
    __atomic_store_n((uint16_t *)word, value, __ATOMIC_RELAXED);
}
// For loops that look at such a word again and again.
static inline void ring_pause(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

// Puts zeroed memory of `size` bytes, a multiple of the page size, in place of the mapping of twice that size at `address`: two times,
// one behind the other. Returns 0 or an errno value.
int ring_mirror(void *address, size_t size);
