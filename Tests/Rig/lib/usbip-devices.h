// The devices that usbip-device can be: their descriptors, what they send and expect, and how they answer requests.
//
// USB 2.0, chapter 9; USB Audio 1.0, chapter 4; Linux, drivers/usb/gadget/function/f_sourcesink.c and drivers/usb/misc/usbtest.c.
#include "tone.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define U16(value) (value) & 255, (value) >> 8
#define CONFIGURATION(length, interfaces) 9, 2, U16(length), interfaces, 1, 0, 0x80, 50
#define INTERFACE(number, alternate, endpoints, class, subclass) 9, 4, number, alternate, endpoints, class, subclass, 0, 0
#define ENDPOINT(address, type, size, interval) 7, 5, address, type, U16(size), interval

enum { isochronous = 1, bulk = 2, interrupt = 3, asynchronous = 4 };
enum { full_speed = 2, high_speed = 3 };

// The endpoints are in alternate setting 1, for usbtest takes the first setting that has any. The isochronous source is of high
// bandwidth: two packets of 1024 bytes in an interval.
static const uint8_t zero_configuration[] = {
    CONFIGURATION(69, 1),
    INTERFACE(0, 0, 0, 0xff, 0),
    INTERFACE(0, 1, 6, 0xff, 0),
    ENDPOINT(0x81, bulk, 512, 0),
    ENDPOINT(0x01, bulk, 512, 0),
    ENDPOINT(0x82, isochronous, 1024 | 1 << 11, 4),
    ENDPOINT(0x02, isochronous, 1024, 4),
    ENDPOINT(0x83, interrupt, 64, 4),
    ENDPOINT(0x03, interrupt, 64, 4),
};

static const uint8_t mic_configuration[] = {
    CONFIGURATION(100, 2),
    INTERFACE(0, 0, 0, 1, 1),                       // control
    9, 0x24, 1, U16(0x100), U16(30), 1, 1,          // header: streams are on interface 1
    12, 0x24, 2, 1, U16(0x201), 0, 2, U16(3), 0, 0, // terminal 1: a microphone, left and right
    9, 0x24, 3, 2, U16(0x101), 0, 1, 0,             // terminal 2: what terminal 1 hears goes to the host
    INTERFACE(1, 0, 0, 1, 2),
    INTERFACE(1, 1, 1, 1, 2),
    7, 0x24, 1, 2, 1, U16(1),                             // a stream of terminal 2, PCM
    11, 0x24, 2, 1, 2, 2, 16, 1, U16(tone_rate & 0xffff), tone_rate >> 16,
    9, 5, 0x81, isochronous | asynchronous, U16(200), 1, 0, 0,
    7, 0x25, 1, 0, 0, U16(0),
};

static const struct device {
    const char *name, *title;
    uint16_t vendor, product;
    int speed;
    const uint8_t *configuration;
    size_t length;
} devices[] = {
    {"zero", "Source and sink", 0x0525, 0xa4a0, high_speed, zero_configuration, sizeof zero_configuration},
    {"mic", "Microphone", 0x1d6b, 0x0101, full_speed, mic_configuration, sizeof mic_configuration},
};
static const struct device *device;

// Below, one of either direction for each number.
struct endpoint {
    uint8_t address, type;
    uint16_t size;
    uint64_t interval, next; // nanoseconds; when it can move the next packet
    bool halted;
    unsigned long packets, missed, frames;
};
static struct endpoint endpoints[16][2];
static uint8_t configuration, alternate[2];
static int16_t tone[tone_period];

static void prepare(void) {
    for (int index = 0; index < tone_period; index++) tone[index] = tone_sample(index);
    for (size_t at = 0; at < device->length; at += device->configuration[at]) {
        const uint8_t *found = device->configuration + at;
        if (found[1] != 5) continue;
        struct endpoint *endpoint = &endpoints[found[2] & 15][found[2] >> 7];
        endpoint->address = found[2];
        endpoint->type = found[3] & 3;
        endpoint->size = (uint16_t)((found[4] | found[5] << 8) & 0x7ff);
        const uint64_t unit = device->speed == high_speed ? 125000 : 1000000;
        endpoint->interval = endpoint->type == bulk ? unit : unit << (found[6] - 1);
    }
}

// An interface is set up anew: streams end, and nothing is halted.
static void reset_endpoints(void) {
    for (int index = 0; index < 32; index++) {
        struct endpoint *endpoint = &endpoints[index / 2][index % 2];
        if (endpoint->type == isochronous && endpoint->packets > 0)
            printf("stream %02x %lu %lu\n", endpoint->address, endpoint->packets, endpoint->missed);
        endpoint->packets = endpoint->missed = endpoint->frames = endpoint->next = 0;
        endpoint->halted = false;
    }
}

// What the endpoint sends in one packet of at most so many bytes.
static uint32_t source(struct endpoint *endpoint, uint8_t *bytes, uint32_t room) {
    if (device->speed == high_speed) {
        for (uint32_t index = 0; index < room; index++) bytes[index] = (uint8_t)(index % endpoint->size % 63);
        return room;
    }
    static const uint32_t lengths[] = {47, 49, 48};
    uint32_t frames = lengths[endpoint->packets % 3];
    if (frames > room / 4) frames = room / 4;
    for (uint32_t frame = 0; frame < frames; frame++) {
        const int16_t sample = tone[endpoint->frames++ % tone_period];
        memcpy(bytes + 4 * frame, (int16_t[]){sample, sample}, 4);
    }
    return frames * 4;
}

// Whether that is what usbtest sends: counted bytes, but nothing except zeros to an isochronous endpoint.
static bool sink(const struct endpoint *endpoint, const uint8_t *bytes, uint32_t length) {
    for (uint32_t index = 0; index < length; index++) {
        uint8_t expected = endpoint->type == isochronous ? 0 : (uint8_t)(index % endpoint->size % 63);
        if (bytes[index] == expected) continue;
        printf("wrong byte %u of %u at endpoint %02x: %u, not %u\n", index, length, endpoint->address, bytes[index], expected);
        return false;
    }
    return true;
}

//
// Requests to the device itself
//

static int string_descriptor(int number, uint8_t *bytes) {
    const char *text = number == 1 ? "xenback" : number == 2 ? device->title : device->name;
    if (number == 0) return memcpy(bytes, (uint8_t[]){4, 3, U16(0x409)}, 4), 4;
    if (number > 3) return -EPIPE;
    bytes[0] = (uint8_t)(2 + 2 * strlen(text));
    bytes[1] = 3;
    for (size_t index = 0; text[index] != 0; index++) bytes[2 + 2 * index] = (uint8_t)text[index], bytes[3 + 2 * index] = 0;
    return bytes[0];
}

// The length, or the negative error that says that the device stalls.
static int descriptor(int type, int number, uint8_t *bytes) {
    const uint8_t self[] = {18, 1, U16(0x200), 0, 0, 0, 64, U16(device->vendor), U16(device->product), U16(0x100), 1, 2, 3, 1};
    const uint8_t qualifier[] = {10, 6, U16(0x200), 0, 0, 0, 64, 1, 0};
    switch (type) {
    case 1: return memcpy(bytes, self, sizeof self), sizeof self;
    case 3: return string_descriptor(number, bytes);
    case 6:
        if (device->speed != high_speed) return -EPIPE;
        return memcpy(bytes, qualifier, sizeof qualifier), sizeof qualifier;
    case 2:
    case 7: // of the other speed
        if (number > 0 || (type == 7 && device->speed != high_speed)) return -EPIPE;
        memcpy(bytes, device->configuration, device->length);
        bytes[1] = (uint8_t)type;
        return (int)device->length;
    default: return -EPIPE;
    }
}

// What goes back is left in bytes, 64 KiB; its length, or the negative error.
static int control(const uint8_t *setup, const uint8_t *sent, uint8_t *bytes) {
    static uint8_t kept[65536];
    const unsigned value = setup[2] | setup[3] << 8, index = setup[4] | setup[5] << 8, length = setup[6] | setup[7] << 8;
    struct endpoint *endpoint = &endpoints[index & 15][index >> 7 & 1];
    memset(bytes, 0, 2);
    switch (setup[0] << 8 | setup[1]) {
    case 0x8000: // status of device, interface, endpoint
    case 0x8100: return 2;
    case 0x8200: return bytes[0] = endpoint->halted, 2;
    case 0x0201: // halt cleared, halt set
    case 0x0203: return value == 0 ? (endpoint->halted = setup[1] == 3 && (index & 15) != 0), 0 : -EPIPE;
    case 0x8006: return descriptor((int)(value >> 8), (int)(value & 255), bytes);
    case 0x8008: return bytes[0] = configuration, 1;
    case 0x0009:
        reset_endpoints();
        memset(alternate, 0, sizeof alternate);
        return configuration = (uint8_t)value, 0;
    case 0x810a: return index < 2 ? (bytes[0] = alternate[index]), 1 : -EPIPE;
    case 0x010b:
        if (index > 1 || value > 1) return -EPIPE;
        reset_endpoints();
        return alternate[index] = (uint8_t)value, 0;
    // Intel's requests of a test device: write a buffer, read it back.
    case 0x405b: return memcpy(kept, sent, length), 0;
    case 0xc05c: return memcpy(bytes, kept, length), (int)length;
    default: return -EPIPE;
    }
}
