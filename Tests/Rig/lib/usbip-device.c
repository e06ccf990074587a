// A USB device that is a program: the kernel's vhci-hcd plugs it into a port of its own and speaks USB/IP with it over a pair of
// sockets (Linux, Documentation/usb/usbip_protocol.rst).
//
//   usbip-device zero|mic PORT       runs until it is killed, which pulls the device out
//
// zero  for the module usbtest: a high-speed source and sink with bulk, interrupt and isochronous endpoints. As with Linux's own
//       gadget, bytes count modulo 63 in each packet; a sink that gets other ones halts.
// mic   a full-speed USB Audio 1.0 microphone that hears the tone of tone.h, 48 kHz, stereo, in packets of 47, 49 and 48 samples.
//
// A transfer lasts as long as on a bus: an isochronous or interrupt endpoint moves one packet in each of its intervals, a bulk
// transfer takes a microframe. The tone goes on with each packet and not with the clock, so a gap in a recording is a packet that
// was lost on its way. Intervals in which nobody asked for a packet are counted: when a stream ends, a line says
// "stream ENDPOINT PACKETS MISSED". Whatever arrives wrong is a line "wrong …".
#define _GNU_SOURCE
#include "usbip-devices.h"

#include <endian.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { submit = 1, unlink_submitted = 2, submitted = 3, unlinked = 4, short_is_wrong = 1 };

// 48 bytes; words are big-endian on their way.
union message {
    uint32_t words[10];
    struct {
        uint32_t command, sequence, device, in, endpoint, flags, length, first_frame, packets, interval;
        uint8_t setup[8];
    };
    struct {
        uint32_t head[5], status, actual, start_frame, packet_count, errors;
    };
};
struct packet {
    uint32_t offset, length, actual, status;
};
struct transfer {
    struct transfer *next;
    uint64_t due;
    union message message;
    struct packet *packets;
    uint8_t *bytes;
};
// In the order in which they came.
static struct transfer *waiting;
static int line;

static struct endpoint *endpoint_of(const union message *asked) { return &endpoints[asked->endpoint & 15][asked->in != 0]; }

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

static void end(const char *why) {
    printf("%s\n", why);
    exit(0);
}
static void receive(void *bytes, size_t length) {
    if (length > 0 && recv(line, bytes, length, MSG_WAITALL) != (ssize_t)length) end("the kernel has let go");
}
static void put(const void *bytes, size_t length) {
    if (length > 0 && send(line, bytes, length, MSG_NOSIGNAL) != (ssize_t)length) end("the kernel has let go");
}
static void swap(uint32_t *words, size_t count) {
    for (size_t index = 0; index < count; index++) words[index] = be32toh(words[index]);
}

static void discard(struct transfer *transfer) {
    free(transfer->packets);
    free(transfer->bytes);
    free(transfer);
}

static void answer(struct transfer *transfer, int status, uint32_t actual, uint32_t errors) {
    const union message *asked = &transfer->message;
    union message message = {.command = submitted, .sequence = asked->sequence};
    message.status = (uint32_t)status;
    message.actual = actual;
    message.errors = errors;
    message.packet_count = transfer->packets != NULL ? asked->packets : 0;
    swap(message.words, 10);
    put(&message, sizeof message);
    if (asked->in) put(transfer->bytes, actual);
    if (transfer->packets != NULL) {
        swap((uint32_t *)transfer->packets, 4 * asked->packets);
        put(transfer->packets, sizeof(struct packet) * asked->packets);
    }
    discard(transfer);
}

static void finish_control(struct transfer *transfer) {
    static uint8_t bytes[65536];
    const union message *asked = &transfer->message;
    int length = control(asked->setup, transfer->bytes, bytes);
    if (length < 0) return answer(transfer, length, 0, 0);
    if (!asked->in) return answer(transfer, 0, asked->length, 0);
    uint32_t actual = (uint32_t)length < asked->length ? (uint32_t)length : asked->length;
    memcpy(transfer->bytes, bytes, actual);
    answer(transfer, actual < asked->length && asked->flags & short_is_wrong ? -EREMOTEIO : 0, actual, 0);
}

// What a packet leaves unused of its room is not sent.
static void finish_isochronous(struct endpoint *endpoint, struct transfer *transfer) {
    uint32_t actual = 0, errors = 0;
    for (uint32_t index = 0; index < transfer->message.packets; index++) {
        struct packet *packet = &transfer->packets[index];
        packet->actual = packet->length;
        packet->status = 0;
        if (transfer->message.in) {
            packet->actual = source(endpoint, transfer->bytes + actual, packet->length);
        } else if (!sink(endpoint, transfer->bytes + packet->offset, packet->length)) {
            packet->status = (uint32_t)-EPROTO;
            errors++;
        }
        actual += packet->actual;
        endpoint->packets++;
    }
    answer(transfer, 0, actual, errors);
}

static void finish(struct transfer *transfer) {
    const union message *asked = &transfer->message;
    struct endpoint *endpoint = endpoint_of(asked);
    if (endpoint->type == isochronous) return finish_isochronous(endpoint, transfer);
    if (endpoint->halted) return answer(transfer, -EPIPE, 0, 0);
    if (asked->in) return answer(transfer, 0, source(endpoint, transfer->bytes, asked->length), 0);
    endpoint->halted = !sink(endpoint, transfer->bytes, asked->length);
    answer(transfer, endpoint->halted ? -EPIPE : 0, asked->length, 0);
}

// A transfer follows the one before it at its endpoint without a pause; if that is over already, intervals were missed.
static void schedule(struct transfer *transfer) {
    struct endpoint *endpoint = endpoint_of(&transfer->message);
    const uint64_t time = now();
    if (endpoint->next > 0 && endpoint->next < time) endpoint->missed += (time - endpoint->next) / endpoint->interval;
    if (endpoint->next < time) endpoint->next = time;
    endpoint->next += endpoint->interval * (transfer->packets != NULL ? transfer->message.packets : 1);
    transfer->due = endpoint->next;
    struct transfer **last = &waiting;
    while (*last != NULL) last = &(*last)->next;
    *last = transfer;
}

static void take_back(const union message *asked) {
    // Where a submitted one has its flags, this has the other's sequence number.
    union message message = {.command = unlinked, .sequence = asked->sequence};
    for (struct transfer **place = &waiting; *place != NULL; place = &(*place)->next) {
        struct transfer *transfer = *place;
        if (transfer->message.sequence != asked->flags) continue;
        *place = transfer->next;
        discard(transfer);
        message.status = (uint32_t)-ECONNRESET;
        break;
    }
    swap(message.words, 10);
    put(&message, sizeof message);
}

static void receive_message(void) {
    union message message;
    receive(&message, sizeof message);
    swap(message.words, 10);
    if (message.command == unlink_submitted) return take_back(&message);
    if (message.command != submit) end("a message that makes no sense");
    struct transfer *transfer = calloc(1, sizeof *transfer);
    transfer->message = message;
    transfer->bytes = calloc(1, message.length + 1);
    if (!message.in) receive(transfer->bytes, message.length);
    if (endpoint_of(&message)->type == isochronous) {
        transfer->packets = calloc(message.packets + 1, sizeof(struct packet));
        receive(transfer->packets, sizeof(struct packet) * message.packets);
        swap((uint32_t *)transfer->packets, 4 * message.packets);
    }
    if (message.endpoint == 0) return finish_control(transfer);
    schedule(transfer);
}

static void finish_due(uint64_t time) {
    for (struct transfer **place = &waiting; *place != NULL;) {
        struct transfer *transfer = *place;
        if (transfer->due > time) {
            place = &transfer->next;
            continue;
        }
        *place = transfer->next;
        finish(transfer);
    }
}

static void serve(void) {
    struct pollfd poll = {.fd = line, .events = POLLIN};
    for (;;) {
        uint64_t time = now(), first = UINT64_MAX;
        finish_due(time);
        for (struct transfer *transfer = waiting; transfer != NULL; transfer = transfer->next)
            if (transfer->due < first) first = transfer->due;
        const uint64_t left = first > time ? first - time : 0;
        struct timespec wait = {.tv_sec = (time_t)(left / 1000000000), .tv_nsec = (long)(left % 1000000000)};
        if (ppoll(&poll, 1, waiting != NULL ? &wait : NULL, NULL) > 0) receive_message();
    }
}

// The kernel's end of the pair, to the port. The speed is a number of Linux's enum usb_device_speed.
static bool attach(const char *port, int socket) {
    FILE *file = fopen("/sys/devices/platform/vhci_hcd.0/attach", "w");
    return file != NULL && fprintf(file, "%s %d %d %d", port, socket, 1 << 16 | 1, device->speed) > 0 && fclose(file) == 0;
}

int main(int count, char **words) {
    for (size_t index = 0; count == 3 && index < sizeof devices / sizeof *devices; index++)
        if (strcmp(words[1], devices[index].name) == 0) device = &devices[index];
    if (device == NULL) {
        fprintf(stderr, "usage: usbip-device zero|mic PORT\n");
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    prepare();
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0 || !attach(words[2], pair[1])) {
        perror("usbip-device");
        return 1;
    }
    close(pair[1]);
    line = pair[0];
    serve();
}
