// The signed head of the audit log (docs/audit.md): how many lines there are, the hash of the last, and the signature by the
// receipt key of the run that wrote them.

import { createPublicKey, verify } from 'node:crypto';

export interface Head {
  readonly version: 1;
  /** Lines in the log. */
  readonly count: number;
  /** SHA-256 of the last line; of the empty string before the first. */
  readonly hash: string;
  /** Ed25519 public key, hex. */
  readonly key: string;
  readonly signature: string;
}

export function isHead(value: unknown): value is Head {
  if (value === null || typeof value !== 'object') return false;
  const head = value as Partial<Record<keyof Head, unknown>>;
  const shaped = head.version === 1 && Number.isSafeInteger(head.count) && (head.count as number) >= 0;
  return shaped && isHex(head.hash, 64) && isHex(head.key, 64) && isHex(head.signature, 128);
}

export function isHex(value: unknown, length: number): value is string {
  return typeof value === 'string' && value.length === length && /^[0-9a-f]+$/.test(value);
}

const ED25519_SPKI = Buffer.from('302a300506032b6570032100', 'hex');

export function headVerifies(head: Head): boolean {
  const key = createPublicKey({
    key: Buffer.concat([ED25519_SPKI, Buffer.from(head.key, 'hex')]),
    format: 'der',
    type: 'spki',
  });
  return verify(null, signedText(head.count, head.hash, head.key), key, Buffer.from(head.signature, 'hex'));
}

export function signedText(count: number, hash: string, key: string): Buffer {
  return Buffer.from(`assay/audit-head/v1\n${count}\n${hash}\n${key}\n`);
}
