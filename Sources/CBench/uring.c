// The peer of `xenback-bench block`: reads or writes of one file by a plain io_uring loop, with nothing around it.
#include "CBench.h"
#include <errno.h>
#include <liburing.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static uint64_t nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void start(struct io_uring *ring, const struct bench_io *io, char *memory, uint64_t *began, uint32_t slot,
                  uint64_t *position) {
    struct io_uring_sqe *entry = io_uring_get_sqe(ring);
    uint64_t offset = bench_next_block(position, io->byte_count / io->block, io->random) * io->block;
    if (io->writing)
        io_uring_prep_write(entry, io->descriptor, memory + (size_t)slot * io->block, io->block, offset);
    else
        io_uring_prep_read(entry, io->descriptor, memory + (size_t)slot * io->block, io->block, offset);
    io_uring_sqe_set_data64(entry, slot);
    began[slot] = nanoseconds();
}

int64_t bench_uring(const struct bench_io *io, uint64_t duration, uint64_t *samples, uint64_t sample_count) {
    struct io_uring ring;
    int status = io_uring_queue_init(io->depth, &ring, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);
    if (status < 0) return status;
    char *memory = aligned_alloc(4096, (size_t)io->depth * io->block);
    uint64_t *began = calloc(io->depth, sizeof *began);
    uint64_t position = 1, end = nanoseconds() + duration;
    int64_t done = 0;
    uint32_t busy = io->depth;
    if (!memory || !began) status = -ENOMEM, busy = 0;
    else memset(memory, 0x5a, (size_t)io->depth * io->block);
    for (uint32_t slot = 0; slot < busy; slot++) start(&ring, io, memory, began, slot, &position);
    while (busy > 0) {
        if ((status = io_uring_submit_and_wait(&ring, 1)) < 0 && status != -EINTR) break;
        struct io_uring_cqe *entry;
        uint64_t now = nanoseconds();
        while (io_uring_peek_cqe(&ring, &entry) == 0) {
            uint32_t slot = (uint32_t)io_uring_cqe_get_data64(entry);
            if (entry->res != (int)io->block) end = 0, status = entry->res < 0 ? entry->res : -EIO;
            io_uring_cqe_seen(&ring, entry);
            samples[(uint64_t)done++ % sample_count] = now - began[slot];
            if (now < end) start(&ring, io, memory, began, slot, &position);
            else busy--;
        }
    }
    io_uring_queue_exit(&ring);
    free(memory);
    free(began);
    return status < 0 ? status : done;
}
