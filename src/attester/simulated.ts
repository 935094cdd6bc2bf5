// A report source without hardware: real SNP reports or TDX quotes, signed by a fake hierarchy of this data
// folder. It is no proof about the machine, and says so: tee_type "simulated", a warning at start, /health,
// and roots no verifier trusts unasked. The measurement is SHA-384 over the server's own code files, so that
// changing the code changes it, as on hardware.

import { createHash, hkdfSync, randomBytes } from 'node:crypto';
import { link, mkdir, open, readdir, readFile, rm } from 'node:fs/promises';
import { join, relative, sep } from 'node:path';
import { createSimulatedAmd, createSimulatedIntel } from '@assay/attestation/simulated';
import { storageError } from '../base/durable-files.ts';
import { ConfigError } from '../base/errors.ts';
import { expiryOf } from './endorsements.ts';
import type { Report, ReportSource } from './assemble.ts';
import { tdxFields } from './hardware.ts';

export { createSimulatedGpus } from './gpu/simulated.ts';

export type SimulatedProduct = 'Milan' | 'Genoa' | 'Turin' | 'TDX';

export interface SimulatedOptions {
  /** Keys are kept here: generating RSA-4096 takes seconds, and policies pin the root. */
  readonly folder: string;
  /** A SEV-SNP product, or TDX. */
  readonly product: SimulatedProduct;
  /** 48 bytes: MEASUREMENT or MRTD. */
  readonly measurement: Uint8Array;
  readonly now: () => Date;
  /** Called before keys are made, which takes seconds. */
  readonly onMaking?: (() => void) | undefined;
  /** AMD's keys have 4096 bits; tests that make their own hierarchy use fewer. */
  readonly rsaBits?: 2048 | 4096 | undefined;
}

export interface SimulatedSource extends ReportSource {
  /** DER of the root a verifier has to be told of. */
  readonly root: Uint8Array;
  /** The entry of `measurements` in a policy that accepts this source. */
  reference(name: string): Promise<Readonly<Record<string, string>>>;
  /** 32 bytes that only this hierarchy derives for this measurement, as the firmware of SEV-SNP does. */
  derivedKey(): Promise<Uint8Array>;
}

/** One hierarchy as issued at one time. */
interface Issued {
  readonly root: Uint8Array;
  readonly expireAt: number;
  report(reportData: Uint8Array): Promise<Report>;
}

/** Certificates are issued again this long before they expire. */
const REFRESH_MS = 10 * 86_400_000;

export async function createSimulatedSource(options: SimulatedOptions): Promise<SimulatedSource> {
  const issue = options.product === 'TDX' ? await intel(options) : await amd(options, options.product);
  let issued = await issue(options.now());

  async function make(reportData: Uint8Array): Promise<Report> {
    if (options.now().getTime() > issued.expireAt - REFRESH_MS) issued = await issue(options.now());
    return issued.report(reportData);
  }

  return {
    teeType: 'simulated',
    available: true,
    root: issued.root,
    async report(reportData, signal) {
      signal.throwIfAborted();
      return make(reportData);
    },
    async reference(name) {
      const { measurement, rtmr } = await make(new Uint8Array(64));
      if (rtmr === undefined) return { measurement: hex(measurement), name };
      return { mrTd: hex(measurement), rtmr0: hex(rtmr[0]), rtmr1: hex(rtmr[1]), rtmr2: hex(rtmr[2]), name };
    },
    async derivedKey() {
      const secret = JSON.stringify(await loadKeys(options));
      return new Uint8Array(
        hkdfSync('sha256', secret, options.measurement, 'assay simulated derived key', 32),
      );
    },
    endorsementsExpireAt: () => issued.expireAt,
    endorsementsError: () => null,
    close: () => Promise.resolve(),
  };
}

function hex(bytes: Uint8Array | undefined): string {
  return Buffer.from(bytes ?? []).toString('hex');
}

type Issue = (now: Date) => Promise<Issued>;

async function amd(options: SimulatedOptions, product: 'Milan' | 'Genoa' | 'Turin'): Promise<Issue> {
  const keys = await keptKeys(options, async () => {
    const made = await createSimulatedAmd({
      product,
      now: options.now(),
      rsaBits: options.rsaBits,
    });
    return made.exportKeys();
  });
  return async (now) => {
    const hierarchy = await createSimulatedAmd({ product, now, keys });
    const endorsements = {
      vek: hierarchy.vek,
      chain: [hierarchy.intermediate, hierarchy.ark],
      crl: hierarchy.crl,
    };
    return {
      root: hierarchy.ark,
      expireAt: expiryOf(endorsements),
      async report(reportData) {
        const report = await hierarchy.signReport({ reportData, measurement: options.measurement });
        return { report, measurement: options.measurement, endorsements };
      },
    };
  };
}

async function intel(options: SimulatedOptions): Promise<Issue> {
  const keys = await keptKeys(options, async () =>
    (await createSimulatedIntel({ now: options.now() })).exportKeys(),
  );
  return async (now) => {
    const hierarchy = await createSimulatedIntel({ now, keys });
    const endorsements = await hierarchy.collateral();
    return {
      root: hierarchy.root,
      expireAt: expiryOf(endorsements),
      async report(reportData) {
        const quote = await hierarchy.signQuote({ reportData, mrTd: options.measurement });
        return { ...tdxFields(quote), endorsements };
      },
    };
  };
}

function keyFile(options: SimulatedOptions): string {
  return join(options.folder, options.product === 'TDX' ? 'intel.json' : `amd-${options.product}.json`);
}

/** The keys of the folder, made when there are none. When several processes make them at once, one wins. */
async function keptKeys<Keys extends { readonly version: 1 }>(
  options: SimulatedOptions,
  make: () => Promise<Keys>,
): Promise<Keys> {
  const kept = await loadKeys<Keys>(options);
  if (kept !== undefined) return kept;
  options.onMaking?.();
  const keys = await make();
  await mkdir(options.folder, { recursive: true, mode: 0o700 });
  const temporary = `${keyFile(options)}.${randomBytes(6).toString('hex')}`;
  const file = await open(temporary, 'wx', 0o600);
  try {
    await file.writeFile(`${JSON.stringify(keys)}\n`);
    await file.sync();
    await link(temporary, keyFile(options));
    return keys;
  } catch (error) {
    const others =
      (error as NodeJS.ErrnoException).code === 'EEXIST' ? await loadKeys<Keys>(options) : undefined;
    if (others === undefined) throw storageError(error, keyFile(options));
    return others;
  } finally {
    await file.close();
    await rm(temporary, { force: true });
  }
}

async function loadKeys<Keys extends { readonly version: 1 }>(
  options: SimulatedOptions,
): Promise<Keys | undefined> {
  let text: string;
  try {
    text = await readFile(keyFile(options), 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
  try {
    const keys = JSON.parse(text) as Keys;
    if (keys.version === 1) return keys;
  } catch {
    // Falls through: the file is not one of ours.
  }
  throw new ConfigError(
    `${keyFile(options)} is not a saved simulated hierarchy; remove it to make a new one`,
  );
}

/**
 * SHA-384 over a sorted list of `<sha384> <path>` lines of all code files (.js, .ts without declarations)
 * below the folders. Each folder is named, so that where it is installed does not matter.
 */
export async function measureCode(folders: Readonly<Record<string, string>>): Promise<Uint8Array> {
  const lines: string[] = [];
  for (const [name, folder] of Object.entries(folders)) {
    const entries = await readdir(folder, { recursive: true, withFileTypes: true });
    for (const entry of entries) {
      if (!entry.isFile() || !/(?<!\.d)\.(js|ts)$/.test(entry.name)) continue;
      const path = join(entry.parentPath, entry.name);
      const inside = relative(folder, path).split(sep).join('/');
      if (inside.startsWith('node_modules/')) continue;
      const digest = createHash('sha384')
        .update(await readFile(path))
        .digest('hex');
      lines.push(`${digest} ${name}/${inside}\n`);
    }
  }
  lines.sort();
  const hash = createHash('sha384').update('assay/code/v1\n');
  for (const line of lines) hash.update(line);
  return new Uint8Array(hash.digest());
}
