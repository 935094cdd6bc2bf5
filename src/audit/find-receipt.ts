// The line of an audit log that names a receipt, by the SHA-256 of the receipt. Whether the log is intact is
// for log.ts to say: a line found in a log that is not proves no more than the log.

import { createReadStream } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { segmentNames } from './log.ts';

/** The number of the line, its `seq`; null when no line names the digest (lower-case hex). */
export async function findReceipt(folder: string, digest: string): Promise<number | null> {
  const wanted = `"receipt_sha256":"${digest}"`;
  for (const name of await segmentNames(folder)) {
    const lines = createInterface({ input: createReadStream(join(folder, name)), crlfDelay: Infinity });
    for await (const line of lines) {
      if (!line.includes(wanted)) continue;
      const { receipt_sha256: named, seq } = JSON.parse(line) as Record<string, unknown>;
      if (named === digest && typeof seq === 'number') return seq;
    }
  }
  return null;
}
