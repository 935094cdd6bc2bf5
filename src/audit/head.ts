// The signed head of the audit log (docs/audit.md): how many lines there are, the hash of the last, and the
// signature by the receipt key of the run that wrote them.

import { createPublicKey, verify } from 'node:crypto';
import { anything, integer, openObject, text, type Shape } from '../base/shape.ts';
import { checked, readStored } from '../base/stored-json.ts';

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

const head = openObject({
  version: checked(anything, (version) => version === 1, 'is not 1'),
  count: integer({ min: 0, max: Number.MAX_SAFE_INTEGER }),
  hash: hex(64),
  key: hex(64),
  signature: hex(128),
});

/** Null: not the form of a head. */
export function headOf(value: unknown): Head | null {
  try {
    return { ...readStored(head, value), version: 1 };
  } catch {
    return null;
  }
}

function hex(length: number): Shape<string> {
  return checked(text({ max: length }), (value) => isHex(value, length), `is not ${length} hex digits`);
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
