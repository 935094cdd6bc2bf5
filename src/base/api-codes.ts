// The closed list of codes of an ApiError: the status a code has on every path, its meaning, and the side
// that must act. The table of docs/api.md is generated from it. Add a line here before using a new code;
// never rename a released one.

/** caller: another request; wait: the same one later; operator: access to the server or the hub. */
export type Acts = 'caller' | 'wait' | 'operator';

export interface ApiCodeEntry {
  readonly status: number;
  readonly act: Acts;
  readonly meaning: string;
  /** Further statuses, where its meaning says so; an error asks for one by `detail.status`. */
  readonly also?: readonly number[] | undefined;
}

function caller(status: number, meaning: string, also?: readonly number[]): ApiCodeEntry {
  return { status, act: 'caller', meaning, also };
}

function wait(status: number, meaning: string): ApiCodeEntry {
  return { status, act: 'wait', meaning };
}

function operator(status: number, meaning: string, also?: readonly number[]): ApiCodeEntry {
  return { status, act: 'operator', meaning, also };
}

export const API_CODES = {
  // ---- malformed requests and bodies
  invalid_request: caller(400, 'not HTTP/1.1, no Host or two, or not carried out in this form'),
  invalid_url: caller(400, 'the path is not valid percent-encoding'),
  invalid_body: caller(400, 'the body does not have the length its header says'),
  invalid_json: caller(400, 'the body is missing, not JSON in UTF-8, or has a key named `__proto__`'),
  invalid_form: caller(400, 'the body is no multipart form, or has more than it may'),
  json_too_deep: caller(400, 'the body has more than 100 levels'),
  json_too_many_values: caller(400, 'the body has more values than are read'),
  tls_required: caller(
    400,
    'plain HTTP, where the port speaks https or evidence needs a connection to bind to',
  ),
  sealed_key: caller(400, 'sealed bytes that no key here opens (sealed.md §5)'),
  sealed_malformed: caller(400, 'what was sealed is not of the form sealed.md gives'),
  // ---- fields
  missing_required_parameter: caller(400, 'a field is missing'),
  unknown_parameter: caller(400, 'a field has a name that means nothing here'),
  unsupported_parameter: caller(400, 'a field asks for something this server does not do'),
  invalid_type: caller(400, 'a field has another type'),
  invalid_value: caller(400, 'a field has a value that is not taken'),
  empty_string: caller(400, 'a text is empty'),
  empty_array: caller(400, 'a list is empty'),
  string_above_max_length: caller(400, 'a text is too long'),
  string_below_min_length: caller(400, 'a text is too short'),
  array_above_max_length: caller(400, 'a list is too long'),
  integer_below_min_value: caller(400, 'a whole number is too small'),
  integer_above_max_value: caller(400, 'a whole number is too large'),
  decimal_below_min_value: caller(400, 'a number is too small'),
  decimal_above_max_value: caller(400, 'a number is too large'),
  // ---- input a model cannot take
  context_length_exceeded: caller(400, 'the request has more tokens than the context of the model'),
  alone_unavailable: caller(
    400,
    '`alone` is asked for, and this model or request cannot run alone (receipts.md §5)',
  ),
  invalid_schema: caller(400, 'a JSON Schema cannot be enforced as it stands'),
  invalid_grammar: caller(400, 'what a schema became is no grammar the engine takes'),
  invalid_encrypted_content: caller(400, 'sealed reasoning of another key or model, or of before a restart'),
  thread_unsupported_request: caller(400, 'a thread of messages, which the server would have to keep'),
  invalid_messages: caller(400, 'the messages do not follow each other as a chat does'),
  invalid_prompt: caller(400, 'the prompt has no token'),
  invalid_input: caller(400, 'an input has no token'),
  invalid_image: caller(
    400,
    'an image is damaged, of a kind that is not decoded, or has more pixels than are read',
  ),
  image_not_fetched: caller(
    400,
    'the address of an image leads to no file on the public network, in time and within the bounds',
  ),
  invalid_token: caller(400, 'a token is not of the vocabulary of the model'),
  template_failed: caller(400, 'the chat template of the model does not take these messages'),
  invalid_audio: caller(400, 'the file is no sound of a kind that is read'),
  audio_too_long: caller(400, 'the sound is longer than a request may bring'),
  transcription_unavailable: operator(501, 'this server was built without the library that hears'),
  wrong_model_type: caller(400, 'the model is of a type for other routes'),
  invalid_keep_alive: caller(400, 'not a duration, 0 or -1'),
  // ---- models that cannot be registered as asked
  file_not_found: caller(400, 'there is no such file'),
  path_not_allowed: caller(400, 'the file is outside of the folders models may come from'),
  invalid_whisper_model: caller(
    400,
    'the file is no whisper model in the ggml format, or not one that can be served',
  ),
  invalid_gguf: caller(400, 'the file is no GGUF file, or not one that can be served'),
  adapter_mismatch: caller(400, 'the adapter is one of another base'),
  invalid_safetensors: caller(
    400,
    'a file of weights is not what the safetensors format says, or lacks a tensor of the model',
  ),
  invalid_model_config: caller(
    400,
    'a description in the folder of a model (config.json, the tokenizer) cannot be used',
  ),
  unsupported_model_format: caller(400, 'a format that is not served'),
  invalid_model_name: caller(400, 'not a name a hub has'),
  invalid_digest: caller(400, 'not a SHA-256'),
  tool_unavailable: operator(400, 'the program for this job is not installed on this workshop'),
  job_record_required: caller(
    400,
    'the server takes only models that the job of a workshop made, with its record (`[provenance]`)',
  ),
  job_record_refused: caller(
    400,
    'the record of a job, or its evidence, is not one this server trusts, or does not name these bytes',
  ),
  ambiguous_quantization: caller(400, 'several files answer to the name'),
  digest_mismatch: caller(400, 'the file is not the one the digest names; 502 where the hub sent it', [502]),
  invalid_nonce: caller(400, 'not 8 to 64 bytes in hex or base64url'),
  // ---- callers
  invalid_api_key: caller(401, 'no known key where one is needed'),
  admin_key_required: caller(403, 'the route takes an admin key; 401 where no key was sent', [401]),
  admin_disabled: operator(403, 'the admin routes are switched off'),
  model_not_allowed: operator(403, 'the key may not use that model'),
  origin_not_allowed: operator(403, 'the origin is not one that may call from a browser'),
  pull_disabled: operator(403, 'nothing is fetched from a hub'),
  publish_disabled: operator(403, 'nothing is uploaded to a hub: `workshop.publish` is off'),
  network_disabled: operator(403, 'the job needs the network, and this workshop gives it none'),
  kind_disabled: operator(403, 'jobs of that kind are switched off on this workshop'),
  files_disabled: operator(403, 'files and batches are off: `files.folder` is not set'),
  // ---- missing objects
  unknown_url: caller(404, 'there is no such route'),
  model_not_found: caller(404, 'there is no model of that name'),
  model_not_loaded: caller(404, 'the model is not loaded'),
  response_not_found: caller(404, 'there is no stored response of that id for this key'),
  item_not_found: caller(404, 'there is no stored item of that id for this key'),
  pull_state_not_found: caller(404, 'nothing of that name was pulled'),
  no_such_file: caller(404, 'there is no such stored file, or it is of another key'),
  no_such_batch: caller(404, 'there is no such batch, or it is of another key'),
  no_such_receipt: caller(404, 'there is no such receipt, it is too old, or it is of another key'),
  no_such_job: caller(404, 'there is no such job or output, or it is of another key'),
  hub_not_found: caller(404, 'the hub has no such repository or file'),
  method_not_allowed: caller(405, 'see `Allow`'),
  // ---- time, conflicts, sizes
  request_timeout: caller(408, 'the request did not arrive in time'),
  client_too_slow: caller(408, 'a stream was not read for a minute'),
  model_already_exists: caller(409, 'the name is taken by other bytes, or by the configuration'),
  attestation_stale: wait(
    409,
    "the model is not the one this connection's evidence showed; the connection is closed, retry on a new one (protocol.md [M23])",
  ),
  sealed_replayed: caller(409, 'these sealed bytes came before (sealed.md §5)'),
  sealed_clock: caller(409, 'sealed at another time than now, which `assay-sealed-time` says'),
  adapter_stale: caller(
    409,
    'the base of the adapter is gone, or has other bytes than the adapter was loaded for',
  ),
  too_many_adapters: caller(409, 'the model has as many adapters as it may'),
  model_has_adapters: caller(409, 'adapters of the model are loaded: unload them first'),
  hub_conflict: caller(409, 'the repository changed on the hub while it was published to'),
  pull_cancelled: caller(409, 'the pull was cancelled'),
  too_many_files: caller(409, 'the caller, or all together, keep as many files or bytes as they may'),
  file_in_use: caller(409, 'a batch that is not over reads the file'),
  batch_ended: caller(409, 'the batch is over and cannot be cancelled'),
  job_not_over: caller(409, 'the job is not over'),
  job_cancelled: caller(409, 'the job was cancelled'),
  request_too_large: caller(
    413,
    'the body is larger than `limits.max_body_bytes`, a file than `files.max_file_bytes`, or what a job fetches than half of `workshop.pull_cache_bytes`',
  ),
  url_too_long: caller(414, 'a part of the path is too long'),
  unsupported_media_type: caller(
    415,
    'the body is not `application/json` in UTF-8, or not the multipart form of an upload',
  ),
  unsupported_content_encoding: caller(415, 'the body is compressed'),
  expectation_failed: caller(417, 'an `Expect` that is not `100-continue`'),
  // ---- full queues and limits
  rate_limit_exceeded: wait(429, 'the caller is over a limit of its own'),
  server_overloaded: wait(
    429,
    'the server, or its memory for bodies, is full, or the share of the caller is',
  ),
  engine_overloaded: wait(429, 'the queue of the model is full, or the share of the caller is'),
  attestation_rate_limited: wait(429, 'too many attestations at once, or of this caller'),
  too_many_batches: wait(429, 'the caller has as many batches that are not over as it may'),
  too_many_jobs: wait(429, 'as many jobs wait as may, or of this caller'),
  too_many_pulls: wait(429, 'as many pulls as may run are running'),
  too_many_pipelined_requests: wait(429, 'too many requests wait on this connection'),
  headers_too_large: caller(431, 'the header is larger than 16 kB'),
  client_closed_request: caller(499, 'in logs and metrics only: the client is gone'),
  // ---- faults of the server
  internal_error: operator(500, 'a fault of the server'),
  engine_failed: operator(500, 'the engine could not handle the request'),
  job_failed: operator(500, 'the program of the job failed'),
  job_over_limit: operator(500, 'the job took more time, memory or room than it may'),
  record_failed: operator(500, 'the record of the job could not be made or signed'),
  model_load_failed: operator(
    500,
    'the model cannot be loaded; 503 where it needs more memory than there may be',
    [503],
  ),
  model_digest_mismatch: operator(500, 'the file of a model has changed since it was registered'),
  model_file_changed: operator(500, 'the file of a model changed while it was read'),
  blob_missing: operator(500, 'a file of the model store is gone'),
  manifest_invalid: operator(500, 'a manifest of the model store is damaged'),
  too_many_models: operator(500, 'there are as many as evidence lists; 409: one more', [409]),
  file_damaged: operator(500, 'a stored file or response is damaged, or was changed on its disk'),
  attestation_failed: operator(500, 'the TEE did not make a report'),
  pull_failed: operator(500, 'the pull failed for a reason of its own'),
  // ---- the hub
  hub_unauthorized: operator(502, 'the hub asks for a token, or has no such repository'),
  hub_forbidden: operator(502, 'the token may not read the repository, or not write to it'),
  hub_error: operator(502, 'the hub answers something else than a file'),
  address_refused: operator(502, 'the address is private, or not https'),
  digest_unknown: operator(502, 'the hub does not say what the file must be'),
  upstream_changed: wait(502, 'the file changed on the hub while it was fetched'),
  hub_unavailable: wait(503, 'the hub cannot be reached'),
  pull_interrupted: wait(503, 'the pull ended with the server; it can be resumed'),
  // ---- for now
  job_interrupted: wait(503, 'the workshop ended while the job ran; it can be asked for again'),
  confinement_missing: operator(503, 'this machine cannot confine the job as its kind requires'),
  engine_crashed: wait(503, 'the engine ended; the next request loads it again'),
  model_replaced: wait(503, 'the model was replaced while the request waited'),
  server_shutting_down: wait(503, 'the server is shutting down'),
  connection_ending: wait(503, 'in logs and metrics only: the connection ends with an earlier answer'),
  tee_not_enabled: operator(503, 'the server runs without a TEE'),
  timeout: wait(504, 'the answer took longer than `limits.request_timeout_ms`'),
  storage_full: operator(507, 'there is no room for the model, the file or the response'),
} as const satisfies Readonly<Record<string, ApiCodeEntry>>;

export type ApiCode = keyof typeof API_CODES;

export function isApiCode(code: string): code is ApiCode {
  return Object.hasOwn(API_CODES, code);
}

export function entryOf(code: ApiCode): ApiCodeEntry {
  return API_CODES[code];
}
