// Fresh endorsements to staple, in this order: files of an operator's refresher, items fetched from the
// vendor, items of the host. They are a convenience for verifiers, which check them: an attestation never
// waits for them or fails without them. They are renewed long before they expire, and one source replaces
// another whose endorsements have expired; /metrics shows their remaining life and the last error. Items
// without a readable end of validity are refused, except from the host, where they raise the alarm. Folder:
// `vek.der`, `chain.pem` (ASK or ASVK, then ARK), `crl.der` for SEV-SNP; `tdx.json` (protocol.md §4) for TDX.

import { X509Certificate } from 'node:crypto';
import { join } from 'node:path';
import { equalBytes, fromBase64, type SnpEndorsements, type TdxEndorsements } from '@assay/attestation';
import type { Clock } from '../base/clock.ts';
import { codeOf, readSmallBytes } from '../base/durable-files.ts';
import { map, openObject, optional, refuse, text, type Infer } from '../base/shape.ts';
import { parseStored } from '../base/stored-json.ts';

export interface Stapling {
  /** The endorsements to staple to this report now. */
  current(
    report: Uint8Array,
    fromHost?: SnpEndorsements,
  ): { readonly endorsements?: SnpEndorsements | TdxEndorsements | undefined };
  /** Unix milliseconds at which the first stapled item expires; null when none is stapled. */
  expireAt(): number | null;
  /** Why the last refresh failed, or that the stapled endorsements have expired. */
  error(): string | null;
  /** Settles when reading and fetching under way are done; for tests. */
  settled(): Promise<void>;
  close(): Promise<void>;
}

export interface StaplingOptions {
  readonly teeType: 'sev-snp' | 'tdx';
  readonly folder?: string | undefined;
  /** Asks the vendor; may reject with any error. */
  readonly fetch?: ((report: Uint8Array) => Promise<SnpEndorsements | TdxEndorsements>) | undefined;
  readonly closeFetch?: (() => Promise<void>) | undefined;
  readonly clock: Clock;
  readonly onError?: ((error: string) => void) | undefined;
}

/** A folder may have changed; a failed fetch may work now. */
const RETRY_MS = 10 * 60_000;
/**
 * Vendors issue CRLs and TCB info for weeks; a quarter of a day is early enough, or half of what
 * is left when that is less.
 */
const REFETCH_MS = 6 * 3_600_000;
/** The shortest time between two fetches, whatever the clock or the vendor says. */
const SOONEST_MS = 60_000;
const MAX_FILE_BYTES = 1024 * 1024;

interface Held {
  readonly endorsements: SnpEndorsements | TdxEndorsements;
  /** NaN: no end of validity is readable, which only occurs in endorsements of the host. */
  readonly expireAt: number;
  /** The report they were fetched for. */
  readonly report?: Uint8Array | undefined;
}

export async function createStapling(options: StaplingOptions): Promise<Stapling> {
  const stapling = new StapledEndorsements(options);
  await stapling.start();
  return stapling;
}

class StapledEndorsements implements Stapling {
  readonly #options: StaplingOptions;
  #fromFolder: Held | undefined;
  #fetched: Held | undefined;
  #fromHost: Held | undefined;
  #folderFailure: string | null = null;
  #fetchFailure: string | null = null;
  #lastReport: Uint8Array | undefined;
  #fetching: Promise<void> | undefined;
  /** When the last fetch ended, and when the next one is due. */
  #fetchedAt = Number.NEGATIVE_INFINITY;
  #nextFetchAt = Number.NEGATIVE_INFINITY;
  #cancel: (() => void) | undefined;
  #closed = false;

  constructor(options: StaplingOptions) {
    this.#options = options;
  }

  async start(): Promise<void> {
    await this.#readFolder();
    this.#schedule();
  }

  current(
    report: Uint8Array,
    given?: SnpEndorsements,
  ): { readonly endorsements?: SnpEndorsements | TdxEndorsements | undefined } {
    this.#lastReport = report;
    // New firmware signs with another VEK; endorsements of the old one do not cover this report.
    const before = this.#fetched?.report;
    if (before !== undefined && this.#options.teeType === 'sev-snp' && !sameVek(before, report)) {
      this.#fetched = undefined;
      this.#nextFetchAt = Number.NEGATIVE_INFINITY;
    }
    this.#fetchFor(report);
    this.#fromHost = given === undefined ? undefined : { endorsements: given, expireAt: expiryOrNaN(given) };
    const stapled = this.#best();
    return stapled === undefined ? {} : { endorsements: stapled.endorsements };
  }

  expireAt(): number | null {
    const expireAt = this.#best()?.expireAt;
    return expireAt === undefined || Number.isNaN(expireAt) ? null : expireAt;
  }

  error(): string | null {
    const failure = this.#folderFailure ?? this.#fetchFailure;
    const stapled = this.#best();
    if (failure !== null || stapled === undefined || this.#isGood(stapled)) return failure;
    return Number.isNaN(stapled.expireAt)
      ? 'the stapled endorsements have no readable end'
      : 'the stapled endorsements have expired';
  }

  async settled(): Promise<void> {
    await this.#fetching;
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#cancel?.();
    await this.#options.closeFetch?.();
    await this.#fetching;
  }

  #failed(what: string, error: unknown): string {
    const failure = `${what} (${reasonOf(error)})`;
    this.#options.onError?.(failure);
    return failure;
  }

  async #readFolder(): Promise<void> {
    const { folder, teeType } = this.#options;
    if (folder === undefined) return;
    try {
      this.#fromFolder = teeType === 'sev-snp' ? await readSnp(folder) : await readTdx(folder);
      this.#folderFailure = null;
    } catch (error) {
      // Good endorsements stay stapled until they expire.
      this.#folderFailure = this.#failed('endorsements of the folder cannot be read', error);
    }
  }

  #isGood(held: Held | undefined, withinMs = 0): boolean {
    return held !== undefined && held.expireAt > this.#options.clock.now() + withinMs;
  }

  /** The first that has not expired; if all have, the first: only a verifier can judge expired ones. */
  #best(): Held | undefined {
    const all = [this.#fromFolder, this.#fetched, this.#fromHost];
    return all.find((held) => this.#isGood(held)) ?? all.find((held) => held !== undefined);
  }

  /**
   * Fetches, unless the folder's endorsements last long enough or the next fetch is not due; a
   * clock set back makes it due.
   */
  #fetchFor(report: Uint8Array): void {
    const time = this.#options.clock.now();
    if (this.#options.fetch === undefined || this.#fetching !== undefined || this.#closed) return;
    if (this.#isGood(this.#fromFolder, REFETCH_MS)) return;
    if (time >= this.#fetchedAt && time < this.#nextFetchAt) return;
    this.#fetching = this.#fetch(report);
  }

  async #fetch(report: Uint8Array): Promise<void> {
    const { clock, fetch } = this.#options;
    let waitMs = RETRY_MS;
    try {
      const fetched = { ...held(await fetch!(report)), report };
      this.#fetched = fetched;
      this.#fetchFailure = null;
      waitMs = Math.max(SOONEST_MS, Math.min(REFETCH_MS, (fetched.expireAt - clock.now()) / 2));
    } catch (error) {
      this.#fetchFailure = this.#failed('endorsements cannot be fetched', error);
    }
    this.#fetchedAt = clock.now();
    this.#nextFetchAt = this.#fetchedAt + waitMs;
    this.#fetching = undefined;
    this.#schedule();
  }

  async #refresh(): Promise<void> {
    await this.#readFolder();
    if (this.#lastReport !== undefined) this.#fetchFor(this.#lastReport);
    this.#schedule();
  }

  /** Checks the clock often, not once: it may be set meanwhile. */
  #schedule(): void {
    const { clock, fetch } = this.#options;
    this.#cancel?.();
    if (this.#closed) return;
    const untilFetch = Math.max(SOONEST_MS, this.#nextFetchAt - clock.now());
    const waitMs = fetch === undefined ? RETRY_MS : Math.min(RETRY_MS, untilFetch);
    this.#cancel = clock.after(waitMs, () => void this.#refresh());
  }
}

function reasonOf(error: unknown): string {
  if (error instanceof FolderError) return error.message;
  return codeOf(error) ?? (error instanceof Error ? error.name : 'error');
}

/** A host may give any bytes; they must not cost a report. */
function expiryOrNaN(endorsements: SnpEndorsements): number {
  try {
    return expiryOf(endorsements);
  } catch {
    return Number.NaN;
  }
}

/** Unix milliseconds; the earliest end of validity of its items. */
export function expiryOf(endorsements: SnpEndorsements | TdxEndorsements): number {
  if ('vek' in endorsements) {
    const certificates = [endorsements.vek, ...endorsements.chain].map((der) =>
      Date.parse(new X509Certificate(der).validTo),
    );
    return Math.min(
      ...certificates,
      ...(endorsements.crl === undefined ? [] : [crlNextUpdate(endorsements.crl)]),
    );
  }
  const dates = [endorsements.tcbInfo, endorsements.qeIdentity].map((body) =>
    Date.parse(/"nextUpdate"\s*:\s*"([^"]{1,40})"/.exec(body)?.[1] ?? ''),
  );
  return Math.min(...dates, crlNextUpdate(endorsements.pckCrl), crlNextUpdate(endorsements.rootCaCrl));
}

/** REPORTED_TCB, CHIP_ID and KEY_INFO (AMD 56860 rev. 1.58 §7.3) name the key that signed. */
function sameVek(a: Uint8Array, b: Uint8Array): boolean {
  const fields = [[0x48, 0x4c], [0x180, 0x188], [0x1a0, 0x1e0]] as const; // prettier-ignore
  return fields.every(([from, to]) => equalBytes(a.subarray(from, to), b.subarray(from, to)));
}

async function readSnp(folder: string): Promise<Held> {
  const vek = new Uint8Array(await readItem(folder, 'vek.der'));
  const pem = (await readItem(folder, 'chain.pem')).toString('latin1');
  const chain = [...pem.matchAll(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g)].map(
    ([block]) => new Uint8Array(new X509Certificate(block).raw),
  );
  if (chain.length !== 2) throw new FolderError('chain.pem must hold two certificates');
  return held({ vek, chain, crl: new Uint8Array(await readItem(folder, 'crl.der')) });
}

const content = text({ min: 1, max: MAX_FILE_BYTES });
const base64 = map(content, (value, path) => {
  try {
    return fromBase64(value);
  } catch {
    throw refuse('invalid_value', path, `${path} is not base64`);
  }
});

/** The endorsements of a document (docs/protocol.md §4). */
const tdxItems = openObject({
  pck_crl: base64,
  root_ca_crl: base64,
  tcb_info: content,
  tcb_info_issuer_chain: content,
  qe_identity: content,
  qe_identity_issuer_chain: content,
  pck_chain: optional(content),
  pck_crl_issuer_chain: optional(content),
});

async function readTdx(folder: string): Promise<Held> {
  const items = tdxItemsOf((await readItem(folder, 'tdx.json')).toString('utf8'));
  return held({
    pckCrl: items.pck_crl,
    rootCaCrl: items.root_ca_crl,
    tcbInfo: items.tcb_info,
    tcbInfoIssuerChain: items.tcb_info_issuer_chain,
    qeIdentity: items.qe_identity,
    qeIdentityIssuerChain: items.qe_identity_issuer_chain,
    pckChain: items.pck_chain,
    pckCrlIssuerChain: items.pck_crl_issuer_chain,
  });
}

function tdxItemsOf(json: string): Infer<typeof tdxItems> {
  try {
    return parseStored(tdxItems, json);
  } catch (error) {
    throw new FolderError(`tdx.json: ${error instanceof Error ? error.message : 'unreadable'}`);
  }
}

function held(endorsements: SnpEndorsements | TdxEndorsements): Held {
  const expireAt = expiryOf(endorsements);
  if (Number.isNaN(expireAt)) throw new RangeError('an endorsement has no readable end of validity');
  return { endorsements, expireAt };
}

/** A file of the folder; its message is for the operator. */
class FolderError extends Error {
  override readonly name = 'FolderError';
}

async function readItem(folder: string, name: string): Promise<Buffer> {
  const found = await readSmallBytes(join(folder, name), { maxBytes: MAX_FILE_BYTES, followLinks: true });
  if (found === undefined) throw new FolderError(`${name}: ENOENT`);
  if ('problem' in found) throw new FolderError(`${name} ${found.problem}`);
  return found.bytes;
}

/**
 * nextUpdate of a CRL (RFC 5280 §5.1), Unix milliseconds or NaN. For the alarm only, so without a
 * full parser: the first two Time values of TBSCertList are thisUpdate and nextUpdate. The
 * verifier has the strict parser.
 */
export function crlNextUpdate(der: Uint8Array): number {
  const found: number[] = [];
  for (let i = 0; i + 2 < Math.min(der.length, 1024) && found.length < 2; i++) {
    const text = Buffer.from(der.subarray(i + 2, i + 2 + (der[i + 1] ?? 0))).toString('latin1');
    if (der[i] === 0x17 && der[i + 1] === 13 && /^\d{12}Z$/.test(text)) {
      found.push(timeOf(`${Number(text.slice(0, 2)) < 50 ? '20' : '19'}${text}`));
    } else if (der[i] === 0x18 && der[i + 1] === 15 && /^\d{14}Z$/.test(text)) found.push(timeOf(text));
  }
  return found[1] ?? Number.NaN;
}

function timeOf(text: string): number {
  return Date.parse(text.replace(/^(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z$/, '$1-$2-$3T$4:$5:$6Z'));
}
