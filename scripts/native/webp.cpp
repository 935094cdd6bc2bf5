// What the server asks of libwebp: the pixels of a file, or of the first frame of an animation in its place on
// the canvas, as red, green and blue. Alpha is left out, as it is of a PNG. libwebp sizes tables by numbers of
// the file, so its allocations (the linker hands them to the functions here) count against a limit: a file of
// kilobytes could take a gigabyte otherwise.

#include "src/webp/decode.h"
#include "src/webp/demux.h"

#include <malloc.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#define ASSAY_API __attribute__((visibility("default")))

extern "C" {
void * __real_malloc(size_t size);
void * __real_calloc(size_t count, size_t size);
void __real_free(void * memory);
}

namespace {
constexpr int32_t DAMAGED = -1;
constexpr int32_t OVER_LIMIT = -2;

/** Bytes that the decoding on this thread may still allocate; outside of one, none. */
thread_local size_t left = 0;
thread_local bool over = false;

/** Counts what was really allocated, so that `__wrap_free` gives the same back. */
void * counted(void * memory) {
    if (memory == nullptr) return nullptr;
    const size_t size = malloc_usable_size(memory);
    if (size <= left) {
        left -= size;
        return memory;
    }
    over = true;
    __real_free(memory);
    return nullptr;
}

bool fits(size_t size) {
    if (size > left) over = true;
    return size <= left;
}

/** One frame, its size and place in agreement with file and canvas, into its place among the rows of `rgb`. */
bool decode_frame(const WebPIterator & frame, int32_t width, int32_t height, uint8_t * rgb) {
    WebPDecoderConfig config;
    if (!frame.complete || !WebPInitDecoderConfig(&config)) return false;
    const WebPData & file = frame.fragment;
    if (WebPGetFeatures(file.bytes, file.size, &config.input) != VP8_STATUS_OK) return false;
    const WebPBitstreamFeatures & found = config.input;
    if (found.width != frame.width || found.height != frame.height || frame.x_offset < 0 || frame.y_offset < 0)
        return false;
    if (frame.x_offset > width - found.width || frame.y_offset > height - found.height) return false;
    const size_t stride = static_cast<size_t>(width) * 3;
    const size_t start = frame.y_offset * stride + static_cast<size_t>(frame.x_offset) * 3;
    config.output.colorspace = MODE_RGB;
    config.output.is_external_memory = 1;
    config.output.u.RGBA.rgba = rgb + start;
    config.output.u.RGBA.stride = static_cast<int>(stride);
    config.output.u.RGBA.size = height * stride - start;
    const bool decoded = WebPDecode(file.bytes, file.size, &config) == VP8_STATUS_OK;
    WebPFreeDecBuffer(&config.output);
    return decoded;
}

bool decode(const WebPData & file, int32_t width, int32_t height, uint8_t * rgb) {
    WebPDemuxer * demuxer = WebPDemux(&file);
    if (demuxer == nullptr) return false;
    const bool same = WebPDemuxGetI(demuxer, WEBP_FF_CANVAS_WIDTH) == static_cast<uint32_t>(width)
        && WebPDemuxGetI(demuxer, WEBP_FF_CANVAS_HEIGHT) == static_cast<uint32_t>(height);
    bool decoded = false;
    WebPIterator first;
    if (same && WebPDemuxGetFrame(demuxer, 1, &first)) {
        decoded = decode_frame(first, width, height, rgb);
        WebPDemuxReleaseIterator(&first);
    }
    WebPDemuxDelete(demuxer);
    return decoded;
}
} // namespace

extern "C" {
void * __wrap_malloc(size_t size) {
    return fits(size) ? counted(__real_malloc(size)) : nullptr;
}

void * __wrap_calloc(size_t count, size_t size) {
    size_t bytes = 0;
    const bool known = !__builtin_mul_overflow(count, size, &bytes);
    return known && fits(bytes) ? counted(__real_calloc(count, size)) : nullptr;
}

void __wrap_free(void * memory) {
    if (memory != nullptr) left += malloc_usable_size(memory);
    __real_free(memory);
}

/** As 0x010600 for 1.6.0. */
ASSAY_API int32_t assay_webp_version() {
    return WebPGetDecoderVersion();
}

/**
 * Fills `rgb`, of 3 × width × height bytes, from a file whose canvas has these dimensions; black where its first
 * frame has no pixels. `limit`: bytes that may be allocated for it at once. 0, −1: the file is damaged or has other
 * dimensions, −2: it takes more than the limit.
 */
ASSAY_API int32_t assay_webp_decode(
        const uint8_t * bytes, size_t size, int32_t width, int32_t height, uint8_t * rgb, uint64_t limit) {
    if (bytes == nullptr || rgb == nullptr || width < 1 || height < 1) return DAMAGED;
    std::memset(rgb, 0, static_cast<size_t>(width) * height * 3);
    left = limit;
    over = false;
    const bool decoded = decode({bytes, size}, width, height, rgb);
    left = 0;
    if (decoded) return 0;
    return over ? OVER_LIMIT : DAMAGED;
}
}
