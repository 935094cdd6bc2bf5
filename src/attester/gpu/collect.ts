// Evidence of the machine's GPUs and switches through the vendor's tool, a program of its own for each call:
// it loads the driver's libraries, and this process does not. What it prints is parsed here and believed
// nowhere. Bounds: time, bytes of output, one call at a time.

import { execFile } from 'node:child_process';
import { parseJson } from '@assay/attestation';
import { type DeviceEvidence, readDeviceEvidence } from '@assay/attestation/gpu';

/** Asks all devices for evidence that answers 32 bytes. */
export interface GpuCollector {
  collect(nonce: Uint8Array, signal: AbortSignal): Promise<readonly DeviceEvidence[]>;
}

/** A program and its arguments. `{nonce}` in an argument becomes the nonce in hex. */
export type HelperCommand = readonly [program: string, ...args: readonly string[]];

export interface HelperOptions {
  readonly command: HelperCommand;
  /** Milliseconds one call may take. */
  readonly timeoutMs: number;
}

const MAX_OUTPUT = 4 << 20;
/** The helper's whole environment: where programs are. */
const ENVIRONMENT = { PATH: '/usr/local/bin:/usr/bin:/bin' };

export function helperCollector(options: HelperOptions): GpuCollector {
  let last: Promise<unknown> = Promise.resolve();
  return {
    collect(nonce, signal) {
      const next = last.then(async () => {
        const text = await runHelper(options, Buffer.from(nonce).toString('hex'), signal);
        return devicesIn(text);
      });
      last = next.catch(() => undefined);
      return next;
    },
  };
}

/** Runs a program to its end; rejects when it fails, takes too long or prints too much. */
export function runHelper(
  { command: [program, ...args], timeoutMs }: HelperOptions,
  nonce: string,
  signal: AbortSignal,
): Promise<string> {
  const given = args.map((argument) => argument.replaceAll('{nonce}', nonce));
  const bounds = { timeout: timeoutMs, maxBuffer: MAX_OUTPUT, signal, killSignal: 'SIGKILL' } as const;
  return new Promise((resolve, reject) => {
    execFile(program, given, { ...bounds, env: ENVIRONMENT, encoding: 'utf8' }, (error, stdout) => {
      if (error === null) resolve(stdout);
      else reject(new Error(`${program} did not do its work (${reasonOf(error)})`, { cause: error }));
    });
  });
}

/** Never what the program printed: exit code, signal or error code alone. */
function reasonOf(error: Error & { readonly code?: unknown; readonly signal?: unknown }): string {
  if (typeof error.code === 'string') return error.code;
  if (typeof error.code === 'number') return `exit ${error.code}`;
  return typeof error.signal === 'string' ? error.signal : error.name;
}

/** NVIDIA's tools put a result beside the list of evidence. */
function devicesIn(text: string): readonly DeviceEvidence[] {
  const json = parseJson(text.trim(), 'output of the GPU helper', MAX_OUTPUT);
  const isObject = typeof json === 'object' && json !== null && !Array.isArray(json);
  if (!isObject || !('evidences' in json)) return readDeviceEvidence(json);
  return readDeviceEvidence(json['evidences'] ?? null);
}
