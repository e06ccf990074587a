// zlib and libzstd: clusters of qcow2 images, decompressed.
#pragma once
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
// As CLinux.h explains.
#include <features.h>
#undef __USE_XOPEN
#undef __USE_GNU
#include <sys/select.h>
#define __USE_XOPEN 1
#define __USE_GNU 1
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <zlib.h>
#include <zstd.h>

// Both decode exactly `output_bytes` and ignore what follows in the input (its end is rounded to sectors).
// 0, or a negated errno: EIO for a stream that is broken or gives too few bytes.

// A raw deflate stream.
static inline int codec_inflate(const void *input, size_t input_bytes, void *output, size_t output_bytes) {
    z_stream stream = {0};
    if (inflateInit2(&stream, -MAX_WBITS) != Z_OK) return -ENOMEM;
    stream.next_in = (Bytef *)(uintptr_t)input;
    stream.avail_in = (uInt)input_bytes;
    stream.next_out = output;
    stream.avail_out = (uInt)output_bytes;
    int result = inflate(&stream, Z_FINISH);
    int is_whole = (result == Z_STREAM_END || result == Z_BUF_ERROR || result == Z_OK) && stream.avail_out == 0;
    inflateEnd(&stream);
    return is_whole ? 0 : -EIO;
}

// One or more frames.
static inline int codec_zstd(const void *input, size_t input_bytes, void *output, size_t output_bytes) {
    ZSTD_DCtx *context = ZSTD_createDCtx();
    if (!context) return -ENOMEM;
    // A frame may ask for a window of any size; none needs one that is larger than the largest cluster.
    ZSTD_DCtx_setParameter(context, ZSTD_d_windowLogMax, 21);
    ZSTD_inBuffer in = {input, input_bytes, 0};
    ZSTD_outBuffer out = {output, output_bytes, 0};
    int status = 0;
    while (out.pos < out.size) {
        size_t in_before = in.pos, out_before = out.pos;
        size_t result = ZSTD_decompressStream(context, &out, &in);
        // Each round takes bytes or makes some, or there are no more.
        if (ZSTD_isError(result) || (in.pos == in_before && out.pos == out_before)) {
            status = -EIO;
            break;
        }
    }
    ZSTD_freeDCtx(context);
    return status;
}
