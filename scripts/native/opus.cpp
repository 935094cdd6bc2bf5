// Opus packets for libwhisper, to 16 kHz mono floats: libopus decodes to that rate itself and mixes two
// channels into one. The packets come from the server's own readers of Ogg and WebM; here is one decoder for
// each file, and never a frame beyond the caller's room.

#include <opus.h>

#include <cstdint>
#include <cstring>

#define ASSAY_API __attribute__((visibility("default")))

namespace {
constexpr int32_t RATE = 16000;
/** Frames of the longest packet, 120 ms (RFC 6716, 2.1.4). */
constexpr int32_t LONGEST = RATE * 120 / 1000;

uint64_t smaller(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}
} // namespace

extern "C" {
/**
 * Decodes packets of `sizes` bytes, one behind the other in `total` bytes, until `frames` are written.
 * `gain`: 1/256 dB (RFC 7845). The first `skip` frames are left out. Frames written; -1: a packet is broken.
 */
ASSAY_API int64_t assay_audio_opus(
        const uint8_t * packets, uint64_t total, const uint32_t * sizes, uint64_t count, int32_t gain, uint64_t skip,
        float * out, uint64_t frames) {
    int error = OPUS_OK;
    OpusDecoder * decoder = opus_decoder_create(RATE, 1, &error);
    if (decoder == nullptr) return -1;
    bool good = opus_decoder_ctl(decoder, OPUS_SET_GAIN(gain)) == OPUS_OK;
    uint64_t done = 0;
    float decoded[LONGEST];
    for (uint64_t i = 0, at = 0; good && i < count && done < frames; at += sizes[i++]) {
        // A packet without bytes would be one that was lost.
        good = sizes[i] > 0 && sizes[i] <= total - at;
        if (!good) break;
        const int got = opus_decode_float(decoder, packets + at, static_cast<int32_t>(sizes[i]), decoded, LONGEST, 0);
        good = got > 0;
        if (!good) break;
        const uint64_t left_out = smaller(skip, got);
        const uint64_t kept = smaller(got - left_out, frames - done);
        memcpy(out + done, decoded + left_out, kept * sizeof(float));
        skip -= left_out;
        done += kept;
    }
    opus_decoder_destroy(decoder);
    return good ? static_cast<int64_t>(done) : -1;
}

/** As libopus names itself; for the check that the library is the one this table of functions is for. */
ASSAY_API const char * assay_audio_opus_version() {
    return opus_get_version_string();
}
}
