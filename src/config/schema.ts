// Every setting of the server, declared once: type, default, meaning, and where it may come from. The Config
// type, the reader in config/read, the environment overrides and the table in docs/configuration.md derive
// from this declaration. `measured` keys decide what a verifier relies on and only come from the measured
// configuration (its SHA-256 is on the measured command line); `operator` keys may also come from the
// unmeasured file, because they can cost availability alone.

import { engineSection } from './engine-section.ts';
import { filesSection } from './files-section.ts';
import { modelsSection } from './models-section.ts';
import { provenanceSection } from './provenance-section.ts';
import { receiptsSection } from './receipts-section.ts';
import { responsesSection } from './responses-section.ts';
import { boolean, oneOf, whole, measured, operator, path, string, strings } from './fields.ts';
import type { SchemaField, Section } from './fields.ts';
import { MODEL_ENTRY } from './model-entry.ts';
import { ADDRESS, BEARER, HOST, MODEL_ID, ORIGIN, PROXY_URL, SHA256_HEX, WEB_URL } from './forms.ts';

export type { SchemaField, Section, Source } from './fields.ts';

const MI_B = 1024 * 1024;
const MAX = Number.MAX_SAFE_INTEGER;

export const SECTIONS = {
  api: {
    enabled: operator(boolean('serve the HTTP API; false starts nothing', true)),
    address: operator(
      string('host:port to listen on; port 0 takes a free one', { default: '127.0.0.1:8443', form: ADDRESS }),
    ),
    api_key: operator(
      string('one bearer key, or `sha256:` and the SHA-256 of one', { form: BEARER, secret: true }),
    ),
    api_keys: operator(
      strings(10_000, 'more bearer keys, each plain or as `sha256:<hex>`', { form: BEARER, secret: true }),
    ),
    admin_key: operator(
      string('key of the admin routes (register, pull, delete, load, unload), plain or as `sha256:<hex>`', {
        form: BEARER,
        secret: true,
      }),
    ),
    admin_enabled: measured(
      boolean(
        'whether the admin routes exist; unset: on when an admin key is configured or the address is loopback. Off in the image',
      ),
    ),
    require_auth: operator(
      boolean('refuse requests without a known key; unset: on exactly when a key is configured'),
    ),
    max_requests_per_minute: operator(whole(0, MAX, 'requests a key may make in a minute; 0: no limit', 0)),
    max_tokens_per_minute: operator(whole(0, MAX, 'tokens a key may use in a minute; 0: no limit', 0)),
    cors_enabled: operator(boolean('answer browsers from `cors_origins`', false)),
    cors_origins: operator(
      strings(100, 'origins a browser may call from; no wildcard unless "*" is given', { form: ORIGIN }),
    ),
    console: measured(
      boolean(
        'serve the console at `/`: a page that judges the evidence of this server and talks to it',
        true,
      ),
    ),
    metrics_enabled: operator(
      boolean(
        'serve /metrics on the API address, for the admin key where keys are configured; without it, to loopback addresses alone',
        false,
      ),
    ),
  },
  tls: {
    names: operator(
      strings(100, 'names and addresses in the self-signed certificate', {
        default: ['localhost', '127.0.0.1', '::1'],
        form: HOST,
      }),
    ),
    lifetime_hours: measured(
      whole(1, 720, 'validity of a certificate; it is renewed with fresh evidence after half of it', 24),
    ),
  },
  sealed: {
    key_lifetime_minutes: measured(
      whole(
        5,
        1440,
        'the key of sealed bodies is made anew after this long; the one before it still opens, so what was recorded is unreadable after twice as long',
        60,
      ),
    ),
    post_quantum: measured(
      boolean(
        'also takes requests sealed to an X-Wing key (ML-KEM-768 with X25519); needs a Node.js whose WebCrypto has ML-KEM (24.7), else the server does not start',
        false,
      ),
    ),
    max_opening: operator(
      whole(
        1,
        1_000_000,
        'sealed requests at once whose head is not opened yet; more are answered 429',
        1024,
      ),
    ),
    max_opening_per_peer: operator(
      whole(
        0,
        1_000_000,
        'those of one address (IPv6: of one /64), which a proxy that ends TLS is as a whole; 0: no limit',
        256,
      ),
    ),
  },
  tee: {
    mode: measured(
      oneOf(
        ['auto', 'sev-snp', 'tdx', 'simulated', 'simulated-if-no-hardware', 'none'],
        'where evidence comes from; `auto` takes the hardware and never the simulation, `none` answers 503 tee_not_enabled',
        { default: 'auto' },
      ),
    ),
    tsm_folder: measured(path('configfs-tsm report folder', { default: '/sys/kernel/config/tsm/report' })),
    attestd_socket: measured(
      path('unix socket of the root part that owns configfs-tsm; unset: this process reads it itself'),
    ),
    privlevel: measured(whole(0, 3, 'SEV-SNP VMPL to ask for; unset: what the provider gives')),
    timeout_ms: measured(whole(100, 120_000, 'one report may take this long', 10_000)),
    batch_max: measured(whole(1, 4096, 'nonces one report may answer', 256)),
    max_queue: operator(
      whole(
        1,
        100_000,
        'attestation requests that may wait; more are answered 429 attestation_rate_limited',
        1024,
      ),
    ),
    max_attestations_per_minute: operator(
      whole(0, MAX, 'attestations one address (IPv6: one /64) may ask for in a minute; 0: no limit', 600),
    ),
    endorsements_fetch: operator(
      boolean(
        'with hardware: fetch endorsements to staple from AMD or Intel, in the background, and again before they expire',
        true,
      ),
    ),
    kds_url: operator(string("AMD's key distribution service or a mirror of it", { form: WEB_URL })),
    pcs_url: operator(string("Intel's provisioning certification service or a PCCS", { form: WEB_URL })),
    endorsements_folder: measured(
      path('folder with endorsements to staple (vek.der, chain.pem, crl.der); read again when it changes'),
    ),
    simulated_folder: measured(
      path('where the simulated hierarchy keeps its keys; unset: `simulated` in the data folder'),
    ),
    product: measured(
      oneOf(['Milan', 'Genoa', 'Turin', 'TDX'], 'what the simulation plays: a SEV-SNP product, or TDX', {
        default: 'Genoa',
      }),
    ),
  },
  store: {
    data_dir: measured(
      path(
        'folder of the model store, audit log and simulated hierarchy; unset: $XDG_DATA_HOME/assay or ~/.local/share/assay',
      ),
    ),
    model_roots: measured(strings(100, 'folders POST /v1/models may register files from', { path: true })),
    residency: measured(
      oneOf(
        ['auto', 'memory', 'disk', 'verity'],
        'where the engine maps weights from; `auto` is `memory`, or `disk` when it does not fit and no TEE is real',
        { default: 'auto' },
      ),
    ),
    staging_folder: measured(path('tmpfs that staged weights live in, unnamed', { default: '/dev/shm' })),
    verity_folder: measured(path('folder whose files are on dm-verity devices with measured root hashes')),
  },
  models: modelsSection,
  provenance: provenanceSection,
  network: {
    http_proxy: operator(
      string('proxy for what is fetched (models, endorsements) over http, as HTTP_PROXY', {
        form: PROXY_URL,
      }),
    ),
    https_proxy: operator(
      string('proxy for what is fetched over https, as HTTPS_PROXY', { form: PROXY_URL }),
    ),
    no_proxy: operator(string('hosts reached without a proxy, as NO_PROXY')),
  },
  engine: engineSection,
  images: {
    fetch: measured(
      boolean(
        'whether an image of a request may be an https address, which this server fetches: the network then sees that, and when',
        false,
      ),
    ),
  },
  files: filesSection,
  limits: {
    max_body_bytes: measured(whole(1024, 1024 * MI_B, 'largest request body', 16 * MI_B)),
    max_body_bytes_in_flight: operator(
      whole(
        1024,
        MAX,
        'bytes held at once of request bodies, or of what their values become where that is more, and of answers that are gathered before they are sent; half of it for one caller; one body of `max_body_bytes` always fits. More are answered 429',
        256 * MI_B,
      ),
    ),
    max_connections: operator(
      whole(
        1,
        1_000_000,
        'open connections; fewer when the process may not have as many open files, which the log says',
        20_000,
      ),
    ),
    max_connections_per_peer: operator(
      whole(
        0,
        1_000_000,
        'open connections of one address (IPv6: of one /64); unset: half of all; 0: no limit, for servers behind a load balancer',
      ),
    ),
    max_concurrent_requests: operator(
      whole(
        1,
        1_000_000,
        'requests being answered at once, attestations apart; half of them for one caller',
        512,
      ),
    ),
    max_concurrent_attestations: operator(
      whole(
        1,
        1_000_000,
        'attestations being answered at once; more are answered 429 attestation_rate_limited',
        1024,
      ),
    ),
    max_concurrent_attestations_per_peer: operator(
      whole(
        0,
        1_000_000,
        'attestations of one address (IPv6: of one /64) being answered at once, at most half of `max_concurrent_attestations` and of `tee.max_queue`; 0: no limit',
        64,
      ),
    ),
    max_concurrent_per_key: operator(
      whole(
        0,
        1_000_000,
        'requests of one key being answered at once; 0: no limit but the shares of the other bounds',
        0,
      ),
    ),
    max_queue_per_model: operator(
      whole(
        0,
        100_000,
        'requests waiting for a slot of one model, half of them for one caller; more are answered 429 engine_overloaded. 0: none waits',
        256,
      ),
    ),
    header_timeout_ms: operator(
      whole(100, 600_000, 'a request header must be whole after this long', 10_000),
    ),
    body_timeout_ms: operator(whole(100, 600_000, 'a request body must be whole after this long', 30_000)),
    request_timeout_ms: operator(whole(100, 86_400_000, 'one answer may take this long', 600_000)),
    drain_timeout_ms: operator(
      whole(0, 3_600_000, 'after SIGTERM, answers under way may take this long', 30_000),
    ),
    stream_padding: measured(
      boolean('pad streamed events to a fixed size, so that their length does not tell the text', true),
    ),
    stream_batch_ms: measured(
      whole(
        0,
        10_000,
        'streamed text leaves at intervals of so many milliseconds, so that events do not tell tokens apart; 0: as it is written',
        0,
      ),
    ),
  },
  log: {
    level: measured(
      oneOf(['error', 'warn', 'info', 'debug'], 'lowest level written; no level writes content', {
        default: 'info',
      }),
    ),
  },
  receipts: receiptsSection,
  responses: responsesSection,
  audit: {
    enabled: measured(boolean('write the hash-chained audit log', false)),
    folder: measured(path('folder of audit.jsonl and its signed head; unset: `audit` in the data folder')),
    max_segment_bytes: measured(
      whole(
        4096,
        MAX,
        'audit.jsonl is set aside under a number when it has so many bytes, and the chain goes on in a new one',
        64 * MI_B,
      ),
    ),
    max_segments: measured(
      whole(
        0,
        1_000_000,
        'segments of the audit log that are kept; for a new one the oldest is removed, and the log says so. 0: all are kept',
        0,
      ),
    ),
  },
} as const satisfies Readonly<Record<string, Section>>;

/** Tables with names of the operator's choosing: `[api.models.<id>]` and `[api.keys.<name>]`. */
export const ENTRIES = {
  'api.models': MODEL_ENTRY,
  'api.keys': {
    sha256: operator(string('SHA-256 of the bearer key', { form: SHA256_HEX })),
    admin: measured(boolean('may use the admin routes', false)),
    models: operator(
      strings(1000, 'model ids the key may use, one at least; unset: all', { form: MODEL_ID, min: 1 }),
    ),
    max_requests_per_minute: operator(whole(0, MAX, 'instead of `api.max_requests_per_minute`')),
    max_tokens_per_minute: operator(whole(0, MAX, 'instead of `api.max_tokens_per_minute`')),
    max_concurrent: operator(whole(0, 1_000_000, 'instead of `limits.max_concurrent_per_key`')),
  },
} as const satisfies Readonly<Record<string, Section>>;

/** Fields an entry of that table must have. */
export const REQUIRED: Readonly<Record<keyof typeof ENTRIES, readonly string[]>> = {
  'api.models': ['path'],
  'api.keys': ['sha256'],
};

type Camel<S extends string> = S extends `${infer A}_${infer B}` ? `${A}${Capitalize<Camel<B>>}` : S;

type ValueOf<F extends SchemaField> = F extends {
  readonly kind: 'choice';
  readonly choices: readonly (infer C)[];
}
  ? C
  : F extends { readonly kind: 'text' }
    ? string
    : F extends { readonly kind: 'boolean' }
      ? boolean
      : F extends { readonly kind: 'texts' }
        ? readonly string[]
        : number;

/** Keys with a default are always present; lists are empty when not given; the rest may be undefined. */
export type Values<S extends Section> = {
  readonly [K in keyof S & string as Camel<K>]: S[K] extends
    { readonly default: unknown } | { readonly kind: 'texts' }
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
  /**
   * Where each value that is not a default was written, by key as
   * `valueKey` spells it: `FILE:LINE`, a variable, an option. No part of the digest; it is for
   * messages, and to tell a configured value from a default.
   */
  readonly origins: ReadonlyMap<string, string>;
};
