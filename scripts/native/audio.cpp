// Sound files for libwhisper: WAV, MP3 and FLAC, told apart by their content, to 16 kHz mono floats (miniaudio of
// llama.cpp, as whisper.cpp's own programs do). Reads memory only: no file, no device, no thread. Never decodes
// more than the caller has room for.

#define MA_NO_DEVICE_IO
#define MA_NO_RESOURCE_MANAGER
#define MA_NO_NODE_GRAPH
#define MA_NO_ENGINE
#define MA_NO_GENERATION
#define MA_NO_THREADING
#define MA_NO_ENCODING
#define MA_API static
#define MINIAUDIO_IMPLEMENTATION
#include "miniaudio/miniaudio.h"

#include <cstdint>

namespace {
constexpr ma_uint32 RATE = 16000;
constexpr ma_uint64 STEP = 16 * RATE;

/** Decodes one file; which of the three formats it is was decided before. */
int64_t decode(const void * bytes, size_t size, float * out, uint64_t capacity) {
    ma_decoder_config config = ma_decoder_config_init(ma_format_f32, 1, RATE);
    ma_decoder decoder;
    if (ma_decoder_init_memory(bytes, size, &config, &decoder) != MA_SUCCESS) return -1;
    uint64_t done = 0;
    ma_result result = MA_SUCCESS;
    while (result == MA_SUCCESS && done < capacity) {
        ma_uint64 read = 0;
        const ma_uint64 room = capacity - done < STEP ? capacity - done : STEP;
        result = ma_decoder_read_pcm_frames(&decoder, out + done, room, &read);
        done += read;
        if (read == 0) break;
    }
    int64_t answer = static_cast<int64_t>(done);
    if (done == capacity) {
        float more;
        ma_uint64 read = 0;
        if (ma_decoder_read_pcm_frames(&decoder, &more, 1, &read) == MA_SUCCESS && read > 0) answer = -2;
    }
    ma_decoder_uninit(&decoder);
    return answer;
}
} // namespace

extern "C" {
/** Frames written; -1: no WAV, MP3 or FLAC that can be read; -2: longer than `capacity` frames. */
__attribute__((visibility("default"))) int64_t assay_audio_decode(
        const void * bytes, size_t size, float * out, uint64_t capacity) {
    return decode(bytes, size, out, capacity);
}

/** Of miniaudio; for the check that the library is the one this table of functions is for. */
__attribute__((visibility("default"))) const char * assay_audio_version() {
    return MA_VERSION_STRING;
}
}
