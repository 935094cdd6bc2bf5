// What the server asks of libwhisper, in plain numbers and pointers: parameters are set here, where the compiler
// knows their layout, and no exception crosses into the caller. Results are read through whisper's own getters.
// whisper.cpp writes nothing: its messages could quote what was said.

#include <whisper.h>

#include <cstdint>
#include <exception>

#define ASSAY_API __attribute__((visibility("default")))

namespace {
constexpr int32_t TRANSLATE = 1;
constexpr int32_t WORDS = 2;
constexpr int32_t FAILED = -100;

struct Call {
    const volatile char * stop;
    void (*on_segment)();
};

void quiet(ggml_log_level, const char *, void *) {}

bool stopped(void * data) {
    return *static_cast<const Call *>(data)->stop != 0;
}
} // namespace

extern "C" {
/** A model from its file's bytes, on the CPU; null where whisper.cpp refuses them. */
ASSAY_API whisper_context * assay_audio_open(void * bytes, size_t size) {
    whisper_log_set(quiet, nullptr);
    whisper_context_params params = whisper_context_default_params();
    params.use_gpu = false;
    try {
        return whisper_init_from_buffer_with_params(bytes, size, params);
    } catch (const std::exception &) {
        return nullptr;
    }
}

/**
 * Turns 16 kHz mono samples into segments. `flags`: 1 translate, 2 time words. `language`: null to detect it.
 * `stop`: a byte that ends the work when it is set. `on_segment`: called after each; may be null. 0, or an error.
 */
ASSAY_API int32_t assay_audio_transcribe(
        whisper_context * context, const float * samples, int32_t count, int32_t threads, int32_t flags,
        float temperature, float fallback, const char * language, const char * prompt,
        const volatile char * stop, void (*on_segment)()) {
    Call call = {stop, on_segment};
    whisper_full_params params = whisper_full_default_params(WHISPER_SAMPLING_GREEDY);
    params.n_threads = threads;
    params.translate = (flags & TRANSLATE) != 0;
    params.token_timestamps = (flags & WORDS) != 0;
    // Nothing of the file before may show in this one.
    params.no_context = true;
    params.print_progress = false;
    params.print_realtime = false;
    params.print_timestamps = false;
    params.print_special = false;
    params.temperature = temperature;
    params.temperature_inc = fallback;
    params.language = language == nullptr ? "auto" : language;
    params.initial_prompt = prompt;
    params.abort_callback = stopped;
    params.abort_callback_user_data = &call;
    params.encoder_begin_callback = [](whisper_context *, whisper_state *, void * data) { return !stopped(data); };
    params.encoder_begin_callback_user_data = &call;
    params.new_segment_callback = [](whisper_context *, whisper_state *, int, void * data) {
        const Call * own = static_cast<const Call *>(data);
        if (own->on_segment != nullptr && !stopped(data)) own->on_segment();
    };
    params.new_segment_callback_user_data = &call;
    try {
        const int32_t result = whisper_full(context, params, samples, count);
        return stopped(&call) ? FAILED - 1 : result;
    } catch (const std::exception &) {
        return FAILED;
    }
}
}
