// Counts of allocations: this program's malloc is glibc's with a counter, and the Swift runtime's switch for profilers is on.
#include "CBench.h"
#include <errno.h>
#include <stddef.h>

static uint64_t allocations, objects, retains, releases;
static inline void count(uint64_t *counter) { __atomic_fetch_add(counter, 1, __ATOMIC_RELAXED); }

struct bench_counts bench_counts(void) {
    struct bench_counts counts = {
        .allocations = __atomic_load_n(&allocations, __ATOMIC_RELAXED),
        .objects = __atomic_load_n(&objects, __ATOMIC_RELAXED),
        .retains = __atomic_load_n(&retains, __ATOMIC_RELAXED),
        .releases = __atomic_load_n(&releases, __ATOMIC_RELAXED),
    };
    return counts;
}

#if !defined(__has_feature)
#define __has_feature(x) 0
#endif
#if !__has_feature(address_sanitizer) && !__has_feature(thread_sanitizer)
extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t), *__libc_memalign(size_t, size_t);
void *malloc(size_t size) { return count(&allocations), __libc_malloc(size); }
void *calloc(size_t number, size_t size) { return count(&allocations), __libc_calloc(number, size); }
void *realloc(void *old, size_t size) { return count(&allocations), __libc_realloc(old, size); }
void *aligned_alloc(size_t alignment, size_t size) { return count(&allocations), __libc_memalign(alignment, size); }
int posix_memalign(void **result, size_t alignment, size_t size) {
    count(&allocations);
    void *memory = __libc_memalign(alignment, size);
    if (!memory) return ENOMEM;
    *result = memory;
    return 0;
}
#endif

// The runtime's own pointers (swift/Runtime/HeapObject.h), followed only while the switch is on.
extern void *(*_swift_allocObject)(const void *, size_t, size_t);
extern void *(*_swift_retain)(void *), *(*_swift_retain_n)(void *, uint32_t);
extern void (*_swift_release)(void *), (*_swift_release_n)(void *, uint32_t);
extern uint8_t _swift_enableSwizzlingOfAllocationAndRefCountingFunctions_forInstrumentsOnly;

static void *(*alloc_object)(const void *, size_t, size_t);
static void *(*retain)(void *), *(*retain_n)(void *, uint32_t);
static void (*release)(void *), (*release_n)(void *, uint32_t);

static void *counted_alloc_object(const void *type, size_t size, size_t mask) { return count(&objects), alloc_object(type, size, mask); }
static void *counted_retain(void *object) { return count(&retains), retain(object); }
static void *counted_retain_n(void *object, uint32_t n) { return count(&retains), retain_n(object, n); }
static void counted_release(void *object) { count(&releases); release(object); }
static void counted_release_n(void *object, uint32_t n) { count(&releases); release_n(object, n); }

void bench_count_swift(bool on) {
    if (on == (alloc_object != NULL)) return;
    if (on) {
        alloc_object = _swift_allocObject;
        retain = _swift_retain;
        retain_n = _swift_retain_n;
        release = _swift_release;
        release_n = _swift_release_n;
    }
    _swift_allocObject = on ? counted_alloc_object : alloc_object;
    _swift_retain = on ? counted_retain : retain;
    _swift_retain_n = on ? counted_retain_n : retain_n;
    _swift_release = on ? counted_release : release;
    _swift_release_n = on ? counted_release_n : release_n;
    __atomic_store_n(&_swift_enableSwizzlingOfAllocationAndRefCountingFunctions_forInstrumentsOnly, on, __ATOMIC_RELEASE);
    if (!on) alloc_object = NULL;
}
