// Collects reports from the kernel's configfs-tsm (Linux 6.7+, Documentation/ABI/testing/configfs-tsm; behaviour as observed
// on 6.12). One directory per request: two writers in one would silently get each other's report. A write is stored when its
// file is closed and errors at close are not delivered, so `generation` is compared before any output is used, and the
// report must carry the very report_data that was asked for.
// Refuses: another provider than the one configured, a generation that is not ours, outputs over 32 KiB. ENOTTY and ENXIO
// are final: the driver wiped its key after an error, or is not there.

import { constants } from 'node:fs';
import { mkdir, open, rmdir } from 'node:fs/promises';
import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';

/** The file operations configfs needs; each is one system call (open, call, close). Errors carry `code` as Node's do. */
export interface TsmFs {
  mkdir(path: string): Promise<void>;
  rmdir(path: string): Promise<void>;
  /** Whole file, at most `maxBytes`; more is an error. */
  read(path: string, maxBytes: number): Promise<Uint8Array>;
  /** One write(2), then close(2). */
  write(path: string, bytes: Uint8Array): Promise<void>;
}

export type TsmProvider = 'sev_guest' | 'tdx_guest';

export interface TsmOptions {
  readonly fs: TsmFs;
  /** `/sys/kernel/config/tsm/report`. */
  readonly folder: string;
  readonly provider: TsmProvider;
  /** SEV-SNP VMPL; absent: the provider's floor. */
  readonly privlevel?: number | undefined;
  /** Requests waiting behind the one being made. */
  readonly maxQueue: number;
  readonly randomHex?: ((bytes: number) => string) | undefined;
  /** Between attempts after EBUSY or EINTR. */
  readonly delay?: ((ms: number, signal: AbortSignal) => Promise<void>) | undefined;
}

export interface TsmReport {
  /** The raw SNP report or TDX quote. */
  readonly outblob: Uint8Array;
  /** Host-supplied certificates (SEV-SNP); empty when there are none. Not to be trusted unverified. */
  readonly auxblob: Uint8Array;
}

export interface Tsm {
  /** Throws TsmError. Calls are serialised: the device takes one at a time. */
  report(reportData: Uint8Array, signal: AbortSignal): Promise<TsmReport>;
  readonly available: boolean;
}

// prettier-ignore
export type TsmErrorCode =
  'no_provider' | 'wrong_provider' | 'key_wiped' | 'busy' | 'interference' | 'queue_full' | 'malformed' | 'io';

export class TsmError extends Error {
  override readonly name = 'TsmError';
  readonly code: TsmErrorCode;
  /** True when no retry in this boot can succeed. */
  readonly fatal: boolean;

  constructor(code: TsmErrorCode, message: string, fatal = false, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.code = code;
    this.fatal = fatal;
  }
}

const MAX_BLOB_BYTES = 32 * 1024;
const MAX_TEXT_BYTES = 4096;
const ATTEMPTS = 4;
const DELAY_MS = 50;
const TRANSIENT = new Set(['EBUSY', 'EINTR', 'EAGAIN', 'ETIMEDOUT', 'EEXIST']);

export function createTsm(options: TsmOptions): Tsm {
  const { fs } = options;
  const randomHex = options.randomHex ?? ((bytes: number) => randomBytes(bytes).toString('hex'));
  const delay = options.delay ?? ((ms: number, signal: AbortSignal) => sleep(ms, undefined, { signal }));
  let last: Promise<unknown> = Promise.resolve();
  let waiting = 0;
  let fatal: TsmError | undefined;

  async function report(reportData: Uint8Array, signal: AbortSignal): Promise<TsmReport> {
    if (reportData.length !== 64)
      throw new RangeError(`report_data is ${reportData.length} bytes, expected 64`);
    if (waiting > options.maxQueue)
      throw new TsmError('queue_full', `${waiting} requests already wait for the TSM`);
    waiting += 1;
    const turn = last.then(() => attempts(reportData, signal));
    last = turn.catch(() => undefined);
    try {
      return await turn;
    } finally {
      waiting -= 1;
    }
  }

  async function attempts(reportData: Uint8Array, signal: AbortSignal): Promise<TsmReport> {
    for (let attempt = 1; ; attempt++) {
      signal.throwIfAborted();
      if (fatal !== undefined) throw fatal;
      try {
        return await once(reportData);
      } catch (error) {
        const typed = toTsmError(error);
        if (typed.fatal) fatal = typed;
        if (typed.fatal || attempt === ATTEMPTS || (typed.code !== 'busy' && typed.code !== 'interference'))
          throw typed;
        await delay(DELAY_MS * attempt, signal);
      }
    }
  }

  async function once(reportData: Uint8Array): Promise<TsmReport> {
    const folder = `${options.folder}/assay-${randomHex(8)}`;
    await fs.mkdir(folder);
    try {
      return await collect(folder, reportData);
    } finally {
      // A folder that stays leaks kernel memory, but no report: the next request has its own folder.
      await fs.rmdir(folder).catch(() => undefined);
    }
  }

  async function collect(folder: string, reportData: Uint8Array): Promise<TsmReport> {
    const provider = textOf(await fs.read(`${folder}/provider`, MAX_TEXT_BYTES));
    if (provider !== options.provider) {
      const found = JSON.stringify(provider.slice(0, 32));
      throw new TsmError('wrong_provider', `tsm provider is ${found}, expected ${options.provider}`, true);
    }
    let generation = await readGeneration(folder);
    if (options.privlevel !== undefined) {
      await fs.write(`${folder}/privlevel`, Buffer.from(`${options.privlevel}\n`));
      generation += 1;
    }
    await fs.write(`${folder}/inblob`, reportData);
    generation += 1;
    await expectGeneration(folder, generation);
    const outblob = await fs.read(`${folder}/outblob`, MAX_BLOB_BYTES);
    const auxblob =
      options.provider === 'sev_guest' ? await readOptional(`${folder}/auxblob`) : new Uint8Array(0);
    await expectGeneration(folder, generation);
    if (Buffer.compare(reportDataOf(outblob, options.provider), reportData) !== 0)
      throw new TsmError('interference', 'the report carries other report_data than was asked for');
    return { outblob, auxblob };
  }

  async function readGeneration(folder: string): Promise<number> {
    const text = textOf(await fs.read(`${folder}/generation`, MAX_TEXT_BYTES));
    if (!/^\d{1,10}$/.test(text)) throw new TsmError('malformed', 'tsm generation is not a number');
    return Number(text);
  }

  async function expectGeneration(folder: string, expected: number): Promise<void> {
    const actual = await readGeneration(folder);
    if (actual !== expected)
      throw new TsmError('interference', `tsm generation is ${actual}, expected ${expected}`);
  }

  async function readOptional(path: string): Promise<Uint8Array> {
    return fs.read(path, MAX_BLOB_BYTES).catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return new Uint8Array(0);
      throw error;
    });
  }

  return {
    report,
    get available() {
      return fatal === undefined;
    },
  };
}

function textOf(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('latin1').trim();
}

function toTsmError(error: unknown): TsmError {
  if (error instanceof TsmError) return error;
  const code = (error as NodeJS.ErrnoException).code ?? '';
  if (code === 'ENXIO')
    return new TsmError('no_provider', 'no tsm provider is registered (ENXIO)', true, error);
  if (code === 'ENOTTY')
    return new TsmError('key_wiped', 'the guest driver has no key any more (ENOTTY)', true, error);
  if (TRANSIENT.has(code)) return new TsmError('busy', `the tsm is busy (${code})`, false, error);
  return new TsmError('io', `the tsm failed (${code || 'unknown error'})`, false, error);
}

/** The provider of this machine; undefined without configfs-tsm or a provider. Removes the entry it made to ask. */
export async function probeTsm(fs: TsmFs, folder: string): Promise<TsmProvider | undefined> {
  const probe = `${folder}/assay-probe-${randomBytes(8).toString('hex')}`;
  try {
    await fs.mkdir(probe);
    const provider = textOf(await fs.read(`${probe}/provider`, MAX_TEXT_BYTES));
    return provider === 'sev_guest' || provider === 'tdx_guest' ? provider : undefined;
  } catch {
    return undefined;
  } finally {
    await fs.rmdir(probe).catch(() => undefined);
  }
}

/** The kernel's configfs. */
export const kernelTsmFs: TsmFs = {
  mkdir: (path) => mkdir(path).then(() => undefined),
  rmdir: (path) => rmdir(path),
  async read(path, maxBytes) {
    const file = await open(path, constants.O_RDONLY);
    try {
      // Read until the end: a binary attribute may return its content page by page.
      const buffer = Buffer.alloc(maxBytes + 1);
      let [length, bytesRead] = [0, 1];
      while (bytesRead > 0) {
        ({ bytesRead } = await file.read(buffer, length, buffer.length - length, null));
        length += bytesRead;
        if (length > maxBytes) throw new TsmError('malformed', `a tsm attribute is over ${maxBytes} bytes`);
      }
      return new Uint8Array(buffer.subarray(0, length));
    } finally {
      await file.close();
    }
  },
  async write(path, bytes) {
    // Without O_CREAT and O_TRUNC, which configfs does not support.
    const file = await open(path, constants.O_WRONLY);
    try {
      const { bytesWritten: taken } = await file.write(bytes);
      if (taken !== bytes.length) throw new TsmError('io', `the tsm took ${taken} of ${bytes.length} bytes`);
    } finally {
      await file.close();
    }
  },
};

/** REPORT_DATA of an SNP report (AMD 56860 §7.3, offset 0x50) or REPORTDATA of a TDX quote (DCAP 1.x, version 4 or 5). */
export function reportDataOf(report: Uint8Array, provider: TsmProvider): Uint8Array {
  // A version 5 quote has a 2-byte type and a 4-byte size between header and body.
  const at = provider === 'sev_guest' ? 0x50 : 48 + (report[0] === 5 ? 6 : 0) + 520;
  if (report.length < at + 64)
    throw new TsmError('malformed', `the report is ${report.length} bytes, too short to hold report_data`);
  return report.subarray(at, at + 64);
}
