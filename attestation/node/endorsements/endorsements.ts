// Endorsements for evidence that comes without them: from a store, from the vendors' services, or from an
// offline bundle. Every item is verified before it is kept and again whenever it is read: transport, disk and
// bundle are all untrusted. Items that go stale are fetched anew after a day, and the old one is used while
// it is still valid and the service is not there; a higher one never gives way to a lower. One fetch at a
// time per item, however many ask.

import { setTimeout as delay } from 'node:timers/promises';
import { Agent, type Dispatcher, EnvHttpProxyAgent } from 'undici';
import type { EndorsementRequest, EndorsementSource } from '../../appraise/appraise.ts';
import type { SnpEndorsements, TdxEndorsements } from '../../protocol/document.ts';
import { AttestationError } from '../../transcript/errors.ts';
import { createHttpClient, unavailable, type GetAnswer, type HttpClient } from './http.ts';
import { folderStore, memoryStore, type EndorsementStore, type StoredItem } from './store.ts';
import type { ProxySettings } from './environment.ts';
import { AMD_KDS_URL, obtainAmd } from './kds.ts';
import { INTEL_PCS_URL, INTEL_ROOT_CRL_URL, obtainIntel } from './pcs.ts';
import type { EndorsementItem, Obtain } from './item.ts';

/** Settings of {@link createEndorsements}: where endorsements come from and where they stay. */
export interface EndorsementOptions {
  /** Folder that keeps what was fetched; absent: memory only. */
  readonly cacheFolder?: string | undefined;
  /** Instead of `cacheFolder`. */
  readonly store?: EndorsementStore | undefined;
  /** No network: only what the store has. */
  readonly offline?: boolean | undefined;
  /** Default AMD's. */
  readonly kdsUrl?: string | undefined;
  /** PCS or a PCCS; default Intel's PCS. */
  readonly pcsUrl?: string | undefined;
  /** Default Intel's for its PCS, `<pcsUrl>/sgx/certification/v4/rootcacrl` for any other. */
  readonly rootCrlUrl?: string | undefined;
  /** Default `standard`. */
  readonly tcbUpdate?: 'standard' | 'early' | undefined;
  /** In place of the pinned roots, DER. */
  readonly roots?:
    | { readonly amd?: readonly Uint8Array[] | undefined; readonly intel?: readonly Uint8Array[] | undefined }
    | undefined;
  /** Proxies to go through, as in the environment variables of these names. Absent: direct. */
  readonly proxy?: ProxySettings | undefined;
  /** Instead of connections of its own; closed by the caller. */
  readonly dispatcher?: Dispatcher | undefined;
  /** Milliseconds since 1970; default the system clock. */
  readonly now?: (() => number) | undefined;
  readonly random?: (() => number) | undefined;
  readonly sleep?: ((ms: number, signal: AbortSignal) => Promise<void>) | undefined;
  /** Default 15 s. */
  readonly requestTimeoutMs?: number | undefined;
  /** Default 60 s, with all tries and waits. */
  readonly totalTimeoutMs?: number | undefined;
  /** Default 5. */
  readonly maxTries?: number | undefined;
}

export { proxyFromEnvironment } from './environment.ts';

/** Where a client gets endorsements: AMD KDS (AMD 57230), Intel PCS v4, or what the store has of them. */
export interface Endorsements {
  /** For `VerifyOptions.endorsements`. */
  readonly source: EndorsementSource;
  snp(report: Uint8Array): Promise<SnpEndorsements>;
  tdx(quote: Uint8Array): Promise<TdxEndorsements>;
  readonly store: EndorsementStore;
  /** Stops what is under way and closes connections. */
  close(): Promise<void>;
}

/**
 * Fetches endorsements from AMD and Intel and keeps them. What it returns has been verified
 * against the pinned roots.
 * @example
 * const endorsements = createEndorsements({ cacheFolder: 'endorsements' });
 * const fetch = attestedFetch({ policy, endorsements: endorsements.source });
 */
export function createEndorsements(options: EndorsementOptions = {}): Endorsements {
  const store =
    options.store ?? (options.cacheFolder === undefined ? memoryStore() : folderStore(options.cacheFolder));
  const now = options.now ?? Date.now;
  const stop = new AbortController();
  const owned =
    options.dispatcher === undefined && options.offline !== true ? ownDispatcher(options.proxy) : undefined;
  const dispatcher = options.dispatcher ?? owned;
  const http =
    options.offline === true || dispatcher === undefined
      ? undefined
      : createHttpClient({
          dispatcher,
          now,
          random: options.random ?? Math.random,
          sleep: options.sleep ?? (async (ms, signal) => delay(ms, undefined, { signal })),
          requestTimeoutMs: options.requestTimeoutMs ?? 15_000,
          totalTimeoutMs: options.totalTimeoutMs ?? 60_000,
          maxTries: options.maxTries ?? 5,
          userAgent: 'assay-verify',
          signal: stop.signal,
        });
  const obtain = obtainer(store, http, now);
  const pcsUrl = options.pcsUrl ?? INTEL_PCS_URL;
  const pcs = {
    baseUrl: pcsUrl,
    rootCrlUrl:
      options.rootCrlUrl ??
      (options.pcsUrl === undefined
        ? INTEL_ROOT_CRL_URL
        : `${pcsUrl.replace(/\/+$/, '')}/sgx/certification/v4/rootcacrl`),
    update: options.tcbUpdate ?? 'standard',
    roots: options.roots?.intel,
  } as const;
  const kds = { baseUrl: options.kdsUrl ?? AMD_KDS_URL, roots: options.roots?.amd };
  const snp: Endorsements['snp'] = async (report) => obtainAmd(report, kds, obtain);
  const tdx: Endorsements['tdx'] = async (quote) => obtainIntel(quote, pcs, obtain);
  return {
    source: async ({ format, report }: EndorsementRequest) => (format === 'snp' ? snp(report) : tdx(report)),
    snp,
    tdx,
    store,
    close: async () => {
      stop.abort();
      await owned?.destroy();
    },
  };
}

/**
 * From the store when it is valid and young enough, else from the service, else from the store
 * while it is still valid.
 */
function obtainer(store: EndorsementStore, http: HttpClient | undefined, now: () => number): Obtain {
  const underWay = new Map<string, Promise<StoredItem['parts']>>();
  const obtainNow = async (item: EndorsementItem): Promise<StoredItem['parts']> => {
    const held = await validItem(store, item, now);
    if (held !== undefined) {
      // The time comes from the store, untrusted: one in the future counts as stale, or it would
      // keep an old item for good.
      const age = now() - held.item.fetchedAt;
      if (age >= 0 && age < item.refreshMs) return held.item.parts;
    }
    if (http === undefined) {
      if (held !== undefined) return held.item.parts;
      throw unavailable(`${item.what} is not in the store, and there is no network to ask`);
    }
    try {
      const parts = await fetchItem(http, item);
      const { order } = await item.check(parts, new Date(now()));
      if (held !== undefined && order < held.order) return held.item.parts;
      await store.put({ key: item.key, fetchedAt: now(), parts });
      return parts;
    } catch (error) {
      if (held !== undefined && error instanceof AttestationError) return held.item.parts;
      throw error;
    }
  };
  return (item) => {
    const known = underWay.get(item.key);
    if (known !== undefined) return known;
    const job = obtainNow(item).finally(() => underWay.delete(item.key));
    underWay.set(item.key, job);
    return job;
  };
}

async function validItem(
  store: EndorsementStore,
  item: EndorsementItem,
  now: () => number,
): Promise<{ readonly item: StoredItem; readonly order: number } | undefined> {
  const held = await store.get(item.key);
  if (held === undefined) return undefined;
  try {
    return { item: held, ...(await item.check(held.parts, new Date(now()))) };
  } catch (error) {
    if (!(error instanceof AttestationError)) throw error;
    // Stale, damaged or planted: as if it were not there. It stays until something valid takes its place,
    // because a clock that is wrong today must not empty the store of a machine without a network.
    return undefined;
  }
}

async function fetchItem(http: HttpClient, item: EndorsementItem): Promise<StoredItem['parts']> {
  const answers: Record<string, GetAnswer> = {};
  for (const [name, request] of Object.entries(item.requests)) answers[name] = await http.get(request);
  return item.read(answers);
}

function ownDispatcher(proxy: ProxySettings | undefined): Agent | EnvHttpProxyAgent {
  const limits = {
    connections: 4,
    pipelining: 1,
    maxResponseSize: 4 << 20,
    connect: { timeout: 10_000 },
  } as const;
  if (proxy === undefined) return new Agent(limits);
  // Empty strings keep undici from looking into the process's own environment.
  return new EnvHttpProxyAgent({
    ...limits,
    httpProxy: proxy.httpProxy ?? '',
    httpsProxy: proxy.httpsProxy ?? '',
    noProxy: proxy.noProxy ?? '',
  });
}
