// A key that the hardware derives for this chip and this measurement, for files at rest. SEV-SNP has it
// (SNP_GET_DERIVED_KEY, SEV-SNP ABI 7.2), through a helper program: it takes an ioctl, and neither this process
// nor the root part makes one. The helper writes 32 bytes to its output and ends with 0. TDX has no such key.

import { execFile } from 'node:child_process';
import { ConfigError } from '../base/errors.ts';

const KEY_BYTES = 32;
const TIMEOUT_MS = 10_000;

/** Throws ConfigError when the helper cannot give a key. */
export function deriveSnpKey(helper: string): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    const refused = (why: string): void =>
      reject(new ConfigError(`files.key_helper ${JSON.stringify(helper)} ${why}`, 'files.key_helper'));
    const options = { encoding: 'buffer', env: {}, timeout: TIMEOUT_MS, maxBuffer: 4096 } as const;
    const child = execFile(helper, [], options, (error, stdout) => {
      // Its error output is not repeated: only its way of ending is known to hold no key.
      if (error !== null) return refused(`failed (${String(error.code ?? error.signal ?? 'error')})`);
      if (stdout.length !== KEY_BYTES) return refused(`gave ${stdout.length} bytes, expected ${KEY_BYTES}`);
      return resolve(new Uint8Array(stdout));
    });
    child.stdin?.end();
  });
}
