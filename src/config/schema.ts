// Every setting of the server, declared once: type, default, meaning, and where it may come from. The Config type, the
// reader in config.ts, the environment overrides and the table in docs/configuration.md derive from this declaration.
// `from` says who may decide a key on an appliance: `measured` keys only come from the measured configuration (its SHA-256
// is on the measured command line), `operator` keys may also come from the unmeasured operator file, because they can
// change availability and nothing a verifier relies on.

export type Source = 'measured' | 'operator';

interface Common {
  readonly about: string;
  readonly from: Source;
  /** Only its SHA-256 enters the configuration digest and `config show`. */
  readonly secret?: true | undefined;
  /** Relative values are resolved against the folder of the configuration file. */
  readonly path?: true | undefined;
}

export type Field =
  | (Common & {
      readonly type: 'text';
      readonly default?: string | undefined;
      readonly pattern?: RegExp | undefined;
      readonly form?: string | undefined;
    })
  | (Common & {
      readonly type: 'choice';
      readonly choices: readonly string[];
      readonly default?: string | undefined;
    })
  | (Common & { readonly type: 'boolean'; readonly default?: boolean | undefined })
  | (Common & {
      readonly type: 'integer';
      readonly default?: number | undefined;
      readonly min: number;
      readonly max: number;
    })
  | (Common & {
      readonly type: 'number';
      readonly default?: number | undefined;
      readonly min: number;
      readonly max: number;
    })
  | (Common & {
      readonly type: 'texts';
      readonly default?: readonly string[] | undefined;
      readonly max: number;
      readonly pattern?: RegExp | undefined;
      readonly form?: string | undefined;
    });

export type Section = Readonly<Record<string, Field>>;

const ADDRESS = /^(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):\d{1,5}$/;
const SHA256 = /^[0-9a-f]{64}$/;
const DURATION = /^(-1|\d{1,9}(\.\d{1,3})?(ms|s|m|h)?)$/;
const KEY_DIGEST = /^sha256:[0-9a-f]{64}$/;
const MI_B = 1024 * 1024;
const MAX = Number.MAX_SAFE_INTEGER;

export const SECTIONS = {
  api: {
    enabled: {
      type: 'boolean',
      default: true,
      from: 'operator',
      about: 'serve the HTTP API; false starts nothing',
    },
    address: {
      type: 'text',
      default: '127.0.0.1:8443',
      pattern: ADDRESS,
      form: 'host:port',
      from: 'operator',
      about: 'host:port to listen on; port 0 takes a free one',
    },
    api_key: {
      type: 'text',
      secret: true,
      from: 'operator',
      about: 'one bearer key, or `sha256:` and the SHA-256 of one',
    },
    api_keys: {
      type: 'texts',
      max: 10_000,
      secret: true,
      from: 'operator',
      about: 'more bearer keys, each plain or as `sha256:<hex>`',
    },
    admin_key: {
      type: 'text',
      secret: true,
      from: 'operator',
      about: 'key of the admin routes (register, pull, delete, load, unload), plain or as `sha256:<hex>`',
    },
    admin_enabled: {
      type: 'boolean',
      from: 'measured',
      about:
        'whether the admin routes exist; unset: on when an admin key is configured or the address is loopback. Off in the image',
    },
    require_auth: {
      type: 'boolean',
      from: 'operator',
      about: 'refuse requests without a known key; unset: on exactly when a key is configured',
    },
    max_requests_per_minute: {
      type: 'integer',
      default: 0,
      min: 0,
      max: MAX,
      from: 'operator',
      about: 'requests a key may make in a minute; 0: no limit',
    },
    max_tokens_per_minute: {
      type: 'integer',
      default: 0,
      min: 0,
      max: MAX,
      from: 'operator',
      about: 'tokens a key may use in a minute; 0: no limit',
    },
    cors_enabled: {
      type: 'boolean',
      default: false,
      from: 'operator',
      about: 'answer browsers from `cors_origins`',
    },
    cors_origins: {
      type: 'texts',
      max: 100,
      from: 'operator',
      about: 'origins a browser may call from; no wildcard unless "*" is given',
    },
    metrics_enabled: {
      type: 'boolean',
      default: false,
      from: 'operator',
      about:
        'serve /metrics on the API address, for the admin key where keys are configured; without it, to loopback addresses alone',
    },
  },
  tls: {
    names: {
      type: 'texts',
      default: ['localhost', '127.0.0.1', '::1'],
      max: 100,
      from: 'operator',
      about: 'names and addresses in the self-signed certificate',
    },
    lifetime_hours: {
      type: 'integer',
      default: 24,
      min: 1,
      max: 24 * 30,
      from: 'measured',
      about: 'validity of a certificate; it is renewed with fresh evidence after half of it',
    },
  },
  tee: {
    mode: {
      type: 'choice',
      choices: ['auto', 'sev-snp', 'tdx', 'simulated', 'simulated-if-no-hardware', 'none'],
      default: 'auto',
      from: 'measured',
      about:
        'where evidence comes from; `auto` takes the hardware and never the simulation, `none` answers 503 tee_not_enabled',
    },
    tsm_folder: {
      type: 'text',
      default: '/sys/kernel/config/tsm/report',
      path: true,
      from: 'measured',
      about: 'configfs-tsm report folder',
    },
    attestd_socket: {
      type: 'text',
      path: true,
      from: 'measured',
      about: 'unix socket of the root part that owns configfs-tsm; unset: this process reads it itself',
    },
    privlevel: {
      type: 'integer',
      min: 0,
      max: 3,
      from: 'measured',
      about: 'SEV-SNP VMPL to ask for; unset: what the provider gives',
    },
    timeout_ms: {
      type: 'integer',
      default: 10_000,
      min: 100,
      max: 120_000,
      from: 'measured',
      about: 'one report may take this long',
    },
    batch_max: {
      type: 'integer',
      default: 256,
      min: 1,
      max: 4096,
      from: 'measured',
      about: 'nonces one report may answer',
    },
    max_queue: {
      type: 'integer',
      default: 1024,
      min: 1,
      max: 100_000,
      from: 'operator',
      about: 'attestation requests that may wait; more are answered 429 attestation_rate_limited',
    },
    max_attestations_per_minute: {
      type: 'integer',
      default: 600,
      min: 0,
      max: MAX,
      from: 'operator',
      about: 'attestations one address (IPv6: one /64) may ask for in a minute; 0: no limit',
    },
    endorsements_fetch: {
      type: 'boolean',
      default: true,
      from: 'operator',
      about:
        'with hardware: fetch endorsements to staple from AMD or Intel, in the background, and again before they expire',
    },
    kds_url: { type: 'text', from: 'operator', about: "AMD's key distribution service or a mirror of it" },
    pcs_url: {
      type: 'text',
      from: 'operator',
      about: "Intel's provisioning certification service or a PCCS",
    },
    endorsements_folder: {
      type: 'text',
      path: true,
      from: 'measured',
      about: 'folder with endorsements to staple (vek.der, chain.pem, crl.der); read again when it changes',
    },
    simulated_folder: {
      type: 'text',
      path: true,
      from: 'measured',
      about: 'where the simulated hierarchy keeps its keys; unset: `simulated` in the data folder',
    },
    product: {
      type: 'choice',
      choices: ['Milan', 'Genoa', 'Turin', 'TDX'],
      default: 'Genoa',
      from: 'measured',
      about: 'what the simulation plays: a SEV-SNP product, or TDX',
    },
  },
  store: {
    data_dir: {
      type: 'text',
      path: true,
      from: 'measured',
      about:
        'folder of the model store, audit log and simulated hierarchy; unset: $XDG_DATA_HOME/assay or ~/.local/share/assay',
    },
    model_roots: {
      type: 'texts',
      max: 100,
      path: true,
      from: 'measured',
      about: 'folders POST /v1/models may register files from',
    },
    residency: {
      type: 'choice',
      choices: ['auto', 'memory', 'disk', 'verity'],
      default: 'auto',
      from: 'measured',
      about:
        'where the engine maps weights from; `auto` is `memory`, or `disk` when it does not fit and no TEE is real',
    },
    staging_folder: {
      type: 'text',
      default: '/dev/shm',
      path: true,
      from: 'measured',
      about: 'tmpfs that staged weights live in, unnamed',
    },
    verity_folder: {
      type: 'text',
      path: true,
      from: 'measured',
      about: 'folder whose files are on dm-verity devices with measured root hashes',
    },
  },
  models: {
    max_loaded: {
      type: 'integer',
      default: 4,
      min: 1,
      max: 1000,
      from: 'operator',
      about: 'models loaded at once',
    },
    memory_budget_bytes: {
      type: 'integer',
      default: 0,
      min: 0,
      max: MAX,
      from: 'operator',
      about: 'memory loaded models may take, estimated before loading; 0: 80 % of what the machine has',
    },
    keep_alive: {
      type: 'text',
      default: '5m',
      pattern: DURATION,
      form: 'a duration such as "30s", "5m", "1h", "0" or "-1"',
      from: 'operator',
      about: 'how long an idle model stays loaded; "-1": for ever',
    },
    max_keep_alive: {
      type: 'text',
      default: '1h',
      pattern: DURATION,
      form: 'a duration such as "30s", "5m", "1h", "0" or "-1"',
      from: 'operator',
      about:
        'where keys are configured: the longest a request without an admin key may have an idle model stay; "-1": for ever',
    },
    preload: { type: 'texts', max: 100, from: 'operator', about: 'model ids loaded at start' },
    max_waiting: {
      type: 'integer',
      default: 256,
      min: 1,
      max: 100_000,
      from: 'operator',
      about:
        'requests that may wait for one model to load, half of them for one caller; more are answered 429 engine_overloaded',
    },
    load_timeout_ms: {
      type: 'integer',
      default: 600_000,
      min: 1000,
      max: 86_400_000,
      from: 'operator',
      about: 'staging and loading one model may take this long',
    },
    slots: {
      type: 'integer',
      default: 8,
      min: 1,
      max: 256,
      from: 'measured',
      about: 'sequences a model decodes together',
    },
    threads: {
      type: 'integer',
      default: 0,
      min: 0,
      max: 1024,
      from: 'operator',
      about: 'CPU threads of one engine; 0: chosen by the engine',
    },
    context_length: {
      type: 'integer',
      default: 8192,
      min: 16,
      max: 16_777_216,
      from: 'measured',
      about: 'longest context given to a model that allows more',
    },
    pull_enabled: {
      type: 'boolean',
      default: true,
      from: 'measured',
      about: 'whether models may be fetched from a hub; off in the image',
    },
    hub: {
      type: 'text',
      from: 'measured',
      about:
        'address of the hub, as HF_ENDPOINT; unset: https://huggingface.co. https only unless `hub_private`',
    },
    hub_token: { type: 'text', secret: true, from: 'operator', about: 'token for the hub, as HF_TOKEN' },
    hub_private: {
      type: 'boolean',
      default: false,
      from: 'measured',
      about: 'allow a hub on a private address or on plain http',
    },
  },
  network: {
    http_proxy: {
      type: 'text',
      from: 'operator',
      about: 'proxy for what is fetched (models, endorsements) over http, as HTTP_PROXY',
    },
    https_proxy: {
      type: 'text',
      from: 'operator',
      about: 'proxy for what is fetched over https, as HTTPS_PROXY',
    },
    no_proxy: { type: 'text', from: 'operator', about: 'hosts reached without a proxy, as NO_PROXY' },
  },
  limits: {
    max_body_bytes: {
      type: 'integer',
      default: 16 * MI_B,
      min: 1024,
      max: 1024 * MI_B,
      from: 'measured',
      about: 'largest request body',
    },
    max_body_bytes_in_flight: {
      type: 'integer',
      default: 256 * MI_B,
      min: 1024,
      max: MAX,
      from: 'operator',
      about:
        'bytes held at once of request bodies, or of what their values become where that is more, and of answers that are gathered before they are sent; half of it for one caller; one body of `max_body_bytes` always fits. More are answered 429',
    },
    max_connections: {
      type: 'integer',
      default: 20_000,
      min: 1,
      max: 1_000_000,
      from: 'operator',
      about: 'open connections; fewer when the process may not have as many open files, which the log says',
    },
    max_connections_per_peer: {
      type: 'integer',
      min: 0,
      max: 1_000_000,
      from: 'operator',
      about:
        'open connections of one address (IPv6: of one /64); unset: half of all; 0: no limit, for servers behind a load balancer',
    },
    max_concurrent_requests: {
      type: 'integer',
      default: 512,
      min: 1,
      max: 1_000_000,
      from: 'operator',
      about: 'requests being answered at once, attestations apart; half of them for one caller',
    },
    max_concurrent_attestations: {
      type: 'integer',
      default: 1024,
      min: 1,
      max: 1_000_000,
      from: 'operator',
      about: 'attestations being answered at once; more are answered 429 attestation_rate_limited',
    },
    max_concurrent_attestations_per_peer: {
      type: 'integer',
      default: 64,
      min: 0,
      max: 1_000_000,
      from: 'operator',
      about:
        'attestations of one address (IPv6: of one /64) being answered at once, at most half of `max_concurrent_attestations` and of `tee.max_queue`; 0: no limit',
    },
    max_concurrent_per_key: {
      type: 'integer',
      default: 0,
      min: 0,
      max: 1_000_000,
      from: 'operator',
      about: 'requests of one key being answered at once; 0: no limit but the shares of the other bounds',
    },
    max_queue_per_model: {
      type: 'integer',
      default: 256,
      min: 0,
      max: 100_000,
      from: 'operator',
      about:
        'requests waiting for a slot of one model, half of them for one caller; more are answered 429 engine_overloaded',
    },
    header_timeout_ms: {
      type: 'integer',
      default: 10_000,
      min: 100,
      max: 600_000,
      from: 'operator',
      about: 'a request header must be whole after this long',
    },
    body_timeout_ms: {
      type: 'integer',
      default: 30_000,
      min: 100,
      max: 600_000,
      from: 'operator',
      about: 'a request body must be whole after this long',
    },
    request_timeout_ms: {
      type: 'integer',
      default: 600_000,
      min: 100,
      max: 86_400_000,
      from: 'operator',
      about: 'one answer may take this long',
    },
    drain_timeout_ms: {
      type: 'integer',
      default: 30_000,
      min: 0,
      max: 3_600_000,
      from: 'operator',
      about: 'after SIGTERM, answers under way may take this long',
    },
    stream_padding: {
      type: 'boolean',
      default: true,
      from: 'measured',
      about: 'pad streamed events to a fixed size, so that their length does not tell the text',
    },
    stream_batch_ms: {
      type: 'integer',
      default: 0,
      min: 0,
      max: 10_000,
      from: 'measured',
      about:
        'streamed text leaves at intervals of so many milliseconds, so that events do not tell tokens apart; 0: as it is written',
    },
  },
  log: {
    level: {
      type: 'choice',
      choices: ['error', 'warn', 'info', 'debug'],
      default: 'info',
      from: 'measured',
      about: 'lowest level written; no level writes content',
    },
  },
  audit: {
    enabled: { type: 'boolean', default: false, from: 'measured', about: 'write the hash-chained audit log' },
    folder: {
      type: 'text',
      path: true,
      from: 'measured',
      about: 'folder of audit.jsonl and its signed head; unset: `audit` in the data folder',
    },
    max_segment_bytes: {
      type: 'integer',
      default: 64 * MI_B,
      min: 4096,
      max: MAX,
      from: 'measured',
      about:
        'audit.jsonl is set aside under a number when it has so many bytes, and the chain goes on in a new one',
    },
    max_segments: {
      type: 'integer',
      default: 0,
      min: 0,
      max: 1_000_000,
      from: 'measured',
      about:
        'segments of the audit log that are kept; for a new one the oldest is removed, and the log says so. 0: all are kept',
    },
  },
} as const satisfies Readonly<Record<string, Section>>;

/** Tables with names of the operator's choosing: `[api.models.<id>]` and `[api.keys.<name>]`. */
export const ENTRIES = {
  'api.models': {
    path: { type: 'text', path: true, from: 'measured', about: 'GGUF file' },
    type: {
      type: 'choice',
      choices: ['chat', 'completion', 'embedding', 'rerank'],
      from: 'measured',
      about: 'what the model is for; unset: read from the file',
    },
    sha256: {
      type: 'text',
      pattern: SHA256,
      form: '64 lower-case hex digits',
      from: 'measured',
      about: 'SHA-256 the file must have; another refuses to load',
    },
    context_length: {
      type: 'integer',
      min: 16,
      max: 16_777_216,
      from: 'measured',
      about: 'tokens one sequence may hold',
    },
    default_temperature: {
      type: 'number',
      min: 0,
      max: 2,
      from: 'measured',
      about: 'temperature when a request gives none',
    },
    default_top_p: {
      type: 'number',
      min: 0,
      max: 1,
      from: 'measured',
      about: 'top_p when a request gives none',
    },
    default_max_tokens: {
      type: 'integer',
      min: 1,
      max: 16_777_216,
      from: 'measured',
      about: 'max_tokens when a request gives none',
    },
    dimensions: {
      type: 'integer',
      min: 1,
      max: 65_536,
      from: 'measured',
      about: 'embedding width when a request asks for none',
    },
    chat_template: {
      type: 'text',
      path: true,
      from: 'measured',
      about: 'file with a Jinja template that replaces the one in the GGUF; it enters the model manifest',
    },
  },
  'api.keys': {
    sha256: {
      type: 'text',
      pattern: SHA256,
      form: '64 lower-case hex digits',
      from: 'operator',
      about: 'SHA-256 of the bearer key',
    },
    admin: { type: 'boolean', default: false, from: 'measured', about: 'may use the admin routes' },
    models: { type: 'texts', max: 1000, from: 'operator', about: 'model ids the key may use; unset: all' },
    max_requests_per_minute: {
      type: 'integer',
      min: 0,
      max: MAX,
      from: 'operator',
      about: 'instead of `api.max_requests_per_minute`',
    },
    max_tokens_per_minute: {
      type: 'integer',
      min: 0,
      max: MAX,
      from: 'operator',
      about: 'instead of `api.max_tokens_per_minute`',
    },
    max_concurrent: {
      type: 'integer',
      min: 0,
      max: 1_000_000,
      from: 'operator',
      about: 'instead of `limits.max_concurrent_per_key`',
    },
  },
} as const satisfies Readonly<Record<string, Section>>;

/** Fields an entry of that table must have. */
export const REQUIRED: Readonly<Record<keyof typeof ENTRIES, readonly string[]>> = {
  'api.models': ['path'],
  'api.keys': ['sha256'],
};

export { KEY_DIGEST };

type Camel<S extends string> = S extends `${infer A}_${infer B}` ? `${A}${Capitalize<Camel<B>>}` : S;

type ValueOf<F extends Field> = F extends { readonly type: 'choice'; readonly choices: readonly (infer C)[] }
  ? C
  : F extends { readonly type: 'text' }
    ? string
    : F extends { readonly type: 'boolean' }
      ? boolean
      : F extends { readonly type: 'texts' }
        ? readonly string[]
        : number;

/** Keys with a default are always present; lists are empty when not given; the rest may be undefined. */
export type Values<S extends Section> = {
  readonly [K in keyof S & string as Camel<K>]: S[K] extends
    { readonly default: unknown } | { readonly type: 'texts' }
    ? ValueOf<S[K]>
    : ValueOf<S[K]> | undefined;
};

export type Config = { readonly [S in keyof typeof SECTIONS]: Values<(typeof SECTIONS)[S]> } & {
  /** `[api.models.<id>]`, in the order of the file. */
  readonly modelEntries: ReadonlyMap<
    string,
    Values<(typeof ENTRIES)['api.models']> & { readonly path: string }
  >;
  /** `[api.keys.<name>]`. */
  readonly keyEntries: ReadonlyMap<
    string,
    Values<(typeof ENTRIES)['api.keys']> & { readonly sha256: string }
  >;
};
