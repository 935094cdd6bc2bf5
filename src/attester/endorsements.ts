// Endorsements to staple, kept fresh: what an operator's refresher put into a folder, else what the host handed over with the
// report. They are a convenience for verifiers, who check them; so nothing here is trusted, and an attestation never fails
// for want of them. Folder: `vek.der`, `chain.pem` (ASK or ASVK, then ARK) and `crl.der` for SEV-SNP; `tdx.json` for TDX.
// The folder is looked at again on every interval; how long what is stapled lasts is told to /metrics.

import { X509Certificate } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fromBase64, type SnpEndorsements, type TdxEndorsements } from '@assay/attestation';
import type { Clock } from '../clock.ts';

export interface Endorsements {
  /** What to staple to a report made now; `fromHost` is used when there is nothing better. */
  current(fromHost?: SnpEndorsements): { readonly endorsements?: SnpEndorsements | TdxEndorsements };
  /** Unix milliseconds; null when nothing is stapled. */
  expireAt(): number | null;
  error(): string | null;
  refresh(): Promise<void>;
  close(): Promise<void>;
}

export interface EndorsementsOptions {
  readonly teeType: 'sev-snp' | 'tdx';
  /** Absent: only what the host gives. */
  readonly folder: string | undefined;
  readonly clock: Clock;
  readonly onChange?: (state: { readonly expireAt: number | null; readonly error: string | null }) => void;
}

const INTERVAL_MS = 10 * 60_000;
const MAX_FILE_BYTES = 1024 * 1024;

interface Loaded {
  readonly endorsements: SnpEndorsements | TdxEndorsements;
  readonly expireAt: number;
}

export async function createEndorsements(options: EndorsementsOptions): Promise<Endorsements> {
  let loaded: Loaded | undefined;
  let hostExpireAt: number | null = null;
  let failure: string | null = null;
  let cancel: (() => void) | undefined;
  let closed = false;

  async function refresh(): Promise<void> {
    if (options.folder === undefined) return;
    try {
      loaded = options.teeType === 'sev-snp' ? await readSnp(options.folder) : await readTdx(options.folder);
      failure = loaded.expireAt <= options.clock.now() ? 'the stapled endorsements have expired' : null;
    } catch (error) {
      // What was good stays stapled; a verifier sees for itself when it has expired.
      failure = `endorsements could not be read (${(error as NodeJS.ErrnoException).code ?? (error as Error).name})`;
    }
    options.onChange?.({ expireAt: loaded?.expireAt ?? null, error: failure });
  }

  const schedule = (): void => {
    if (closed || options.folder === undefined) return;
    cancel = options.clock.after(INTERVAL_MS, () => void refresh().then(schedule));
  };

  await refresh();
  schedule();
  return {
    current(fromHost) {
      if (loaded !== undefined) return { endorsements: loaded.endorsements };
      if (fromHost === undefined) return {};
      hostExpireAt = Math.min(...[fromHost.vek, ...fromHost.chain].map(notAfter));
      return { endorsements: fromHost };
    },
    expireAt: () => loaded?.expireAt ?? hostExpireAt,
    error: () => failure,
    refresh,
    close() {
      closed = true;
      cancel?.();
      return Promise.resolve();
    },
  };
}

async function readSnp(folder: string): Promise<Loaded> {
  const vek = await readSmall(join(folder, 'vek.der'));
  const pem = (await readSmall(join(folder, 'chain.pem'))).toString('latin1');
  const chain = [...pem.matchAll(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g)].map(
    ([block]) => new Uint8Array(new X509Certificate(block).raw),
  );
  if (chain.length !== 2) throw new RangeError('chain.pem must hold two certificates');
  const crl = new Uint8Array(await readSmall(join(folder, 'crl.der')));
  const expireAt = Math.min(...[new Uint8Array(vek), ...chain].map(notAfter), crlNextUpdate(crl));
  return { endorsements: { vek: new Uint8Array(vek), chain, crl }, expireAt };
}

/** `tdx.json`: the endorsements object of a document, as protocol.md §4 writes it. */
async function readTdx(folder: string): Promise<Loaded> {
  const json = JSON.parse((await readSmall(join(folder, 'tdx.json'))).toString('utf8')) as Record<string, unknown>;
  const text = (key: string): string => {
    const value = json[key];
    if (typeof value !== 'string') throw new TypeError(`tdx.json has no text ${key}`);
    return value;
  };
  const endorsements: TdxEndorsements = {
    pckCrl: fromBase64(text('pck_crl')),
    rootCaCrl: fromBase64(text('root_ca_crl')),
    tcbInfo: text('tcb_info'),
    tcbInfoIssuerChain: text('tcb_info_issuer_chain'),
    qeIdentity: text('qe_identity'),
    qeIdentityIssuerChain: text('qe_identity_issuer_chain'),
    ...(json['pck_chain'] === undefined ? {} : { pckChain: text('pck_chain') }),
    ...(json['pck_crl_issuer_chain'] === undefined ? {} : { pckCrlIssuerChain: text('pck_crl_issuer_chain') }),
  };
  const dates = [endorsements.tcbInfo, endorsements.qeIdentity].map((body) =>
    Date.parse(/"nextUpdate"\s*:\s*"([^"]{1,40})"/.exec(body)?.[1] ?? ''),
  );
  const expireAt = Math.min(...dates, crlNextUpdate(endorsements.pckCrl), crlNextUpdate(endorsements.rootCaCrl));
  if (Number.isNaN(expireAt)) throw new RangeError('tdx.json has no readable nextUpdate');
  return { endorsements, expireAt };
}

async function readSmall(path: string): Promise<Buffer> {
  const bytes = await readFile(path);
  if (bytes.length > MAX_FILE_BYTES) throw new RangeError('an endorsement file is over a megabyte');
  return bytes;
}

function notAfter(der: Uint8Array): number {
  return Date.parse(new X509Certificate(der).validTo);
}

/**
 * nextUpdate of a CRL (RFC 5280 §5.1): the second Time of TBSCertList. For the alarm only; the verifier has the strict parser.
 * A CRL's times are its first UTCTime or GeneralizedTime values, thisUpdate then nextUpdate.
 */
export function crlNextUpdate(der: Uint8Array): number {
  const found: number[] = [];
  for (let i = 0; i + 2 < Math.min(der.length, 1024) && found.length < 2; i++) {
    const text = Buffer.from(der.subarray(i + 2, i + 2 + (der[i + 1] ?? 0))).toString('latin1');
    if (der[i] === 0x17 && der[i + 1] === 13 && /^\d{12}Z$/.test(text))
      found.push(timeOf(`${Number(text.slice(0, 2)) < 50 ? '20' : '19'}${text}`));
    if (der[i] === 0x18 && der[i + 1] === 15 && /^\d{14}Z$/.test(text)) found.push(timeOf(text));
  }
  return found[1] ?? Number.NaN;
}

function timeOf(text: string): number {
  const [, y, mo, d, h, mi, s] = /^(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z$/.exec(text)!;
  return Date.UTC(Number(y), Number(mo) - 1, Number(d), Number(h), Number(mi), Number(s));
}
