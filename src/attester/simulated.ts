// A report source without hardware: real SNP reports, signed by a fake AMD hierarchy of this data folder. It proves nothing
// about the machine, and says so: tee_type "simulated", a warning at start, /health, and roots no verifier trusts unasked.
// The measurement is SHA-384 over the server's own code files, so that changing the code changes it, as on hardware.

import { createHash, randomBytes } from 'node:crypto';
import { link, mkdir, open, readdir, readFile, rm } from 'node:fs/promises';
import { join, relative, sep } from 'node:path';
import { createSimulatedAmd, type SimulatedAmd, type SimulatedAmdKeys } from '@assay/attestation/simulated';
import { ConfigError } from '../errors.ts';
import type { ReportSource } from './evidence.ts';

export interface SimulatedOptions {
  /** Keys are kept here: generating RSA-4096 takes seconds, and policies pin the root. */
  readonly folder: string;
  readonly product: 'Milan' | 'Genoa' | 'Turin';
  /** 48 bytes. */
  readonly measurement: Uint8Array;
  readonly now: () => Date;
  /** AMD's are 4096 bits; fewer for tests that make a hierarchy of their own. */
  readonly rsaBits?: 2048 | 4096;
}

export interface SimulatedSource extends ReportSource {
  /** DER of the root a policy has to name. */
  readonly root: Uint8Array;
  readonly measurement: Uint8Array;
  readonly amd: SimulatedAmd;
}

/** Reissued this long before the simulated CRL ends. */
const REFRESH_MS = 30 * 86_400_000;
const CRL_LIFETIME_MS = 365 * 86_400_000;

export async function createSimulatedSource(options: SimulatedOptions): Promise<SimulatedSource> {
  let issued = options.now();
  const keys = (await loadKeys(options)) ?? (await makeKeys(options, issued));
  let amd = await createSimulatedAmd({ product: options.product, now: issued, keys });

  async function refresh(): Promise<void> {
    if (options.now().getTime() < issued.getTime() + CRL_LIFETIME_MS - REFRESH_MS) return;
    issued = options.now();
    amd = await createSimulatedAmd({ product: options.product, now: issued, keys: await amd.exportKeys() });
  }

  return {
    teeType: 'simulated',
    available: true,
    root: amd.ark,
    measurement: options.measurement,
    get amd() {
      return amd;
    },
    async report(reportData, signal) {
      signal.throwIfAborted();
      await refresh();
      const report = await amd.signReport({ reportData, measurement: options.measurement });
      return { report, measurement: options.measurement, endorsements: { vek: amd.vek, chain: [amd.intermediate, amd.ark], crl: amd.crl } };
    },
    endorsementsExpireAt: () => issued.getTime() + CRL_LIFETIME_MS,
    endorsementsError: () => null,
    close: () => Promise.resolve(),
  };
}

const keyFile = (options: SimulatedOptions): string => join(options.folder, `amd-${options.product}.json`);

async function loadKeys(options: SimulatedOptions): Promise<SimulatedAmdKeys | undefined> {
  let text: string;
  try {
    text = await readFile(keyFile(options), 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
  try {
    const keys = JSON.parse(text) as SimulatedAmdKeys;
    if (keys.version === 1 && keys.product === options.product) return keys;
  } catch {
    // Falls through: whatever it is, it is not ours.
  }
  throw new ConfigError(`${keyFile(options)} is not a saved simulated hierarchy; remove it to make a new one`);
}

/** Of several processes that make keys at once one wins, and all go on with its keys. */
async function makeKeys(options: SimulatedOptions, now: Date): Promise<SimulatedAmdKeys> {
  const amd = await createSimulatedAmd({
    product: options.product,
    now,
    ...(options.rsaBits === undefined ? {} : { rsaBits: options.rsaBits }),
  });
  const keys = await amd.exportKeys();
  await mkdir(options.folder, { recursive: true, mode: 0o700 });
  const temporary = `${keyFile(options)}.${randomBytes(6).toString('hex')}`;
  const file = await open(temporary, 'wx', 0o600);
  try {
    await file.writeFile(`${JSON.stringify(keys)}\n`);
    await file.sync();
    await link(temporary, keyFile(options));
    return keys;
  } catch (error) {
    const others = (error as NodeJS.ErrnoException).code === 'EEXIST' ? await loadKeys(options) : undefined;
    if (others === undefined) throw error;
    return others;
  } finally {
    await file.close();
    await rm(temporary, { force: true });
  }
}

/**
 * SHA-384 over a sorted list of `<sha384> <path>` lines of all code files (.js, .ts without declarations) below the folders.
 * Each folder is named, so that where it is installed does not matter.
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
