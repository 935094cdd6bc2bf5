// Reference manifests and OCSP answers for NVIDIA devices, from NVIDIA's services (or others of the same
// form): manifests by their ids at `/v1/rim/ID`, in JSON with the SHA-256 of the document; OCSP by POST (RFC
// 6960 Appendix A.1). What is fetched is checked as far as it can be on its own before it is kept, and judged
// whole wherever it is used. Answers are asked for anew before they run out; a manifest is kept for a day.

import { setTimeout as delay } from 'node:timers/promises';
import { sha256 } from '@noble/hashes/sha2.js';
import { Agent } from 'undici';
import { fromBase64, fromUtf8, toHex } from '../../encoding/bytes.ts';
import { parseJson, shapeReaders } from '../../encoding/json.ts';
import { familyOf } from '../../gpu/family.ts';
import { readGpuFields } from '../../gpu/fields.ts';
import { judgeManifest } from '../../gpu/manifest.ts';
import { parseGpuReport } from '../../gpu/report.ts';
import { rootProblem, type TrustedRoots } from '../../gpu/roots.ts';
import type { DeviceEvidence, GpuEvidence, ManifestEvidence } from '../../gpu/subject.ts';
import { AttestationError, refused, unsupported } from '../../transcript/errors.ts';
import { type Certificate, parseCertificate } from '../../x509/certificate.ts';
import { encodeOcspRequest, namesOcsp, ocspStatus, parseOcsp } from '../../x509/ocsp.ts';
import { createKeyCache } from '../../x509/signature.ts';
import { createHttpClient, type HttpClient } from './http.ts';

const NVIDIA_RIM_URL = 'https://rim.attestation.nvidia.com';
const NVIDIA_OCSP_URL = 'https://ocsp.ndis.nvidia.com';

const MAX_RIM_ANSWER = 512 * 1024;
const MAX_OCSP_ANSWER = 32 * 1024;
const MANIFEST_MS = 86_400_000;
/** Answers are asked for anew when less than this is left, or half of their time. */
const EARLY_MS = 3_600_000;
const OCSP_MAX_AGE = 7 * 86_400;

/** Settings of {@link createNvidiaEndorsements}. */
export interface NvidiaEndorsementOptions {
  /** Default NVIDIA's. */
  readonly rimUrl?: string | undefined;
  readonly ocspUrl?: string | undefined;
  /** In place of the pinned roots. */
  readonly roots?: TrustedRoots | undefined;
  /** Milliseconds since 1970; default the system clock. */
  readonly now?: (() => number) | undefined;
  /** Default 15 s for one try and 60 s for all. */
  readonly requestTimeoutMs?: number | undefined;
  readonly totalTimeoutMs?: number | undefined;
  readonly maxTries?: number | undefined;
}

/** The documents that vouch for devices' measurements and certificates. */
export interface NvidiaEndorsements {
  /** @throws AttestationError `endorsements_unavailable`, `endorsements_invalid`, `gpu_format` … */
  for(devices: readonly DeviceEvidence[]): Promise<Pick<GpuEvidence, 'manifests' | 'ocsp'>>;
  /** Milliseconds since 1970 at which the first answer kept runs out; null when none is kept. */
  expireAt(): number | null;
  close(): Promise<void>;
}

/**
 * Fetches what devices need, and keeps it.
 * @example
 * const endorsements = createNvidiaEndorsements();
 * const { manifests, ocsp } = await endorsements.for(devices);
 */
export function createNvidiaEndorsements(options: NvidiaEndorsementOptions = {}): NvidiaEndorsements {
  return new Services(options);
}

interface Kept<T> {
  readonly value: T;
  /** Asked for anew from then on. */
  readonly renewAt: number;
  readonly expireAt: number;
}

interface KeptManifest {
  readonly evidence: ManifestEvidence;
  readonly chain: readonly Certificate[];
}

const shape = shapeReaders('endorsements_invalid');

class Services implements NvidiaEndorsements {
  readonly #options: NvidiaEndorsementOptions;
  readonly #agent = new Agent();
  readonly #stop = new AbortController();
  readonly #client: HttpClient;
  readonly #keys = createKeyCache();
  readonly #manifests = new Map<string, Kept<KeptManifest>>();
  readonly #answers = new Map<string, Kept<Uint8Array>>();

  constructor(options: NvidiaEndorsementOptions) {
    this.#options = options;
    this.#client = createHttpClient({
      dispatcher: this.#agent,
      now: this.#now,
      random: Math.random,
      sleep: async (ms, signal) => {
        await delay(ms, undefined, { signal });
      },
      requestTimeoutMs: options.requestTimeoutMs ?? 15_000,
      totalTimeoutMs: options.totalTimeoutMs ?? 60_000,
      maxTries: options.maxTries ?? 5,
      userAgent: 'assay',
      signal: this.#stop.signal,
    });
  }

  readonly #now = (): number => (this.#options.now ?? Date.now)();

  async for(devices: readonly DeviceEvidence[]): Promise<Pick<GpuEvidence, 'manifests' | 'ocsp'>> {
    const read = devices.map(readDevice);
    const ids = [...new Set(read.flatMap(({ manifests }) => manifests))];
    const manifests: KeptManifest[] = [];
    for (const id of ids) manifests.push(await this.#manifest(id));
    const chains = [...read.map(({ chain }) => chain), ...manifests.map(({ chain }) => chain)];
    const asked = new Map<string, readonly [readonly Certificate[], number]>();
    for (const chain of chains) {
      for (const [i, certificate] of chain.slice(0, -1).entries())
        if (namesOcsp(certificate)) asked.set(toHex(sha256(certificate.raw)), [chain, i]);
    }
    const ocsp: Uint8Array[] = [];
    for (const [key, [chain, i]] of asked) ocsp.push(await this.#answer(key, chain, i));
    for (const key of this.#answers.keys()) if (!asked.has(key)) this.#answers.delete(key);
    for (const id of this.#manifests.keys()) if (!ids.includes(id)) this.#manifests.delete(id);
    return { manifests: manifests.map(({ evidence }) => evidence), ocsp };
  }

  expireAt(): number | null {
    const ends = [...this.#answers.values()].map(({ expireAt }) => expireAt);
    return ends.length === 0 ? null : Math.min(...ends);
  }

  async close(): Promise<void> {
    this.#stop.abort();
    await this.#agent.destroy();
  }

  #manifest(id: string): Promise<KeptManifest> {
    return this.#kept(this.#manifests, id, async () => {
      const url = `${this.#options.rimUrl ?? NVIDIA_RIM_URL}/v1/rim/${encodeURIComponent(id)}`;
      const what = `manifest ${id}`;
      const { body } = await this.#client.get({
        url,
        maxBytes: MAX_RIM_ANSWER,
        what,
        accept: 'application/json',
      });
      const xml = manifestOf(fromUtf8(body, what), id);
      const judged = await judgeManifest(xml, { keys: this.#keys });
      const root = judged.chain.at(-1);
      const problem =
        [...judged.problems.values()][0] ??
        (root === undefined ? 'it has no chain' : rootProblem(root.raw, 'manifest', this.#options.roots));
      if (problem !== undefined) throw invalid(`${what}: ${problem}`);
      const until = this.#now() + MANIFEST_MS;
      return { value: { evidence: { id, xml }, chain: judged.chain }, renewAt: until, expireAt: until };
    });
  }

  #answer(key: string, chain: readonly Certificate[], i: number): Promise<Uint8Array> {
    return this.#kept(this.#answers, key, async () => {
      const [certificate, issuer] = chain.slice(i);
      if (certificate === undefined || issuer === undefined) throw invalid('a certificate has no issuer');
      const what = `OCSP answer about ${certificate.subject.commonName ?? 'a certificate'}`;
      const { body } = await this.#client.get({
        url: this.#options.ocspUrl ?? NVIDIA_OCSP_URL,
        maxBytes: MAX_OCSP_ANSWER,
        what,
        accept: 'application/ocsp-response',
        post: { body: encodeOcspRequest(certificate, issuer), contentType: 'application/ocsp-request' },
      });
      const now = this.#now();
      const found = await ocspStatus(chain, i, [parseOcsp(body, what)], {
        now: new Date(now),
        maxAge: OCSP_MAX_AGE,
        keys: this.#keys,
      });
      // An answer that says revoked is stapled, too: verifiers are told the truth.
      const problem = found.problem ?? found.stale;
      if (problem !== undefined) throw invalid(`${what}: ${problem}`);
      const until = found.until ?? now;
      return { value: body, renewAt: Math.max(until - EARLY_MS, (now + until) / 2), expireAt: until };
    });
  }

  /** The item kept; when it is to be renewed and cannot be, the old one while it is valid. */
  async #kept<T>(store: Map<string, Kept<T>>, key: string, fetchNew: () => Promise<Kept<T>>): Promise<T> {
    const known = store.get(key);
    const now = this.#now();
    if (known !== undefined && now < known.renewAt) return known.value;
    try {
      const fresh = await fetchNew();
      store.set(key, fresh);
      return fresh.value;
    } catch (error) {
      if (known !== undefined && now < known.expireAt && error instanceof AttestationError)
        return known.value;
      throw error;
    }
  }
}

interface ReadDevice {
  readonly chain: readonly Certificate[];
  /** Ids of the manifests it needs. */
  readonly manifests: readonly string[];
}

function readDevice({ arch, report, certificates }: DeviceEvidence, i: number): ReadDevice {
  const chain = certificates.map((der, j) => parseCertificate(der, `device ${i} certificate ${j}`));
  const family = familyOf(chain);
  if (family === undefined)
    throw unsupported('gpu_arch', `certificates of device ${i} (${arch}) name no known family`);
  const fields = readGpuFields(parseGpuReport(report, `report ${i}`), family, `report ${i}`);
  return { chain, manifests: fields.manifests.map(({ id }) => id) };
}

/** `{id, rim, sha256, rim_format, …}` → the XML. */
function manifestOf(text: string, id: string): Uint8Array {
  const answer = shape.record(parseJson(text, 'answer of the manifest service', MAX_RIM_ANSWER), 'answer');
  const format = answer['rim_format'];
  if (format !== undefined && format !== 'TCG')
    throw unsupported('endorsements_invalid', `manifest ${id} is of the format ${JSON.stringify(format)}`, {
      expected: 'TCG',
    });
  if (answer['id'] !== id) throw invalid(`manifest ${id}: the service answers with another one`);
  const xml = fromBase64(shape.string(answer['rim'], 'rim', MAX_RIM_ANSWER), 'rim');
  if (answer['sha256'] !== toHex(sha256(xml)))
    throw invalid(`manifest ${id}: it has another SHA-256 than the service says`);
  return xml;
}

function invalid(message: string): AttestationError {
  return refused('endorsements_invalid', message);
}
