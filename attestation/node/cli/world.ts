// The world around assay-verify: streams, files, clock, randomness and the signal to stop all come in through
// this interface, so that tests run the real commands.

import { AttestationError, type AttestationErrorKind } from '../../transcript/errors.ts';
import type { Releases } from '../../appraise/policy-references.ts';
import type { ProxySettings } from '../endorsements/environment.ts';

/** A stream that a person reads. */
export interface Terminal {
  readonly columns: number;
  readonly colour: boolean;
}

export interface CliWorld {
  readonly stdout: (text: string) => void;
  readonly stderr: (text: string) => void;
  /** Standard input, all of it or its first `maxBytes`. */
  readonly stdin: (maxBytes: number) => Promise<Uint8Array>;
  /** @throws where it cannot be read, or has more than `maxBytes` */
  readonly readBytes: (path: string, maxBytes: number) => Promise<Uint8Array>;
  /** Writes a file that only its owner reads; only what the command line names. */
  readonly writeText?: ((path: string, text: string) => Promise<void>) | undefined;
  /** Where the streams are terminals. */
  readonly terminal?:
    { readonly stdout?: Terminal | undefined; readonly stderr?: Terminal | undefined } | undefined;
  /** Milliseconds since 1970. */
  readonly now: () => number;
  readonly randomBytes: (length: number) => Uint8Array;
  /** Proxies for fetching endorsements. */
  readonly proxy: ProxySettings | undefined;
  /** From when it is called, a request to stop aborts the signal instead of ending the process. */
  readonly stop: () => AbortSignal;
}

/** 11: no fault, and no proof of whose it is: a signature without evidence, a score without policy. */
export type ExitCode = 0 | 1 | 10 | 11 | 20 | 30;

export const EXIT: Readonly<Record<AttestationErrorKind, ExitCode>> = {
  refused: 10,
  unsupported: 20,
  malformed: 30,
  internal: 1,
};

/** Of evidence, policies, receipts and texts; a device or a pipe may have no end. */
const MAX_FILE_BYTES = 256 * 1024 * 1024;

/** A file the command line names; `wrong_usage` when it cannot be read, or is over `maxBytes`. */
export async function readNamed(
  path: string,
  what: string,
  world: CliWorld,
  maxBytes = MAX_FILE_BYTES,
): Promise<Uint8Array> {
  try {
    return await world.readBytes(path, maxBytes);
  } catch (error) {
    throw unreadable(what, error);
  }
}

/** The file when it is there, undefined when it is not; `wrong_usage` when it is and cannot be read. */
export async function readIfThere(path: string, what: string, world: CliWorld): Promise<string | undefined> {
  try {
    await world.readBytes(path, MAX_FILE_BYTES);
  } catch (error) {
    const code: unknown = error instanceof Error && 'code' in error ? error.code : 'ENOENT';
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
  }
  return readTextFile(path, what, world);
}

/** The same for text in UTF-8. */
export async function readTextFile(path: string, what: string, world: CliWorld): Promise<string> {
  const bytes = await readNamed(path, what, world);
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (error) {
    throw unreadable(what, error);
  }
}

/** The reference values of releases that a policy names; none without a file. */
export async function readReleases(path: string | undefined, world: CliWorld): Promise<Releases | undefined> {
  if (path === undefined) return undefined;
  const text = await readTextFile(path, 'reference values', world);
  const { parseReferenceValues } = await import('../../appraise/reference-values.ts');
  return parseReferenceValues(text);
}

function unreadable(what: string, error: unknown): AttestationError {
  const reason = error instanceof Error ? error.message : String(error);
  return new AttestationError('malformed', 'wrong_usage', `${what} cannot be read: ${reason}`);
}
