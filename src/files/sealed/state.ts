// A small sealed JSON state, replaced as one step. Each writing has a salt, and so a key, of its own. An older
// state in the place of the newer one is a roll-back that the file alone cannot show.

import { readSmallBytes, writeAtomically } from '../../base/durable-files.ts';
import type { Shape } from '../../base/shape.ts';
import { parseStored } from '../../base/stored-json.ts';
import { openPiece, sealPiece } from './aead.ts';
import { checkHeader, HEADER_BYTES, type MasterKey, newHeader, NONCE_BYTES, SealedError } from './format.ts';

const MAX_STATE_BYTES = 16 * 1024 * 1024;
const ONLY_NONCE = Buffer.alloc(NONCE_BYTES);

export async function writeState(path: string, key: MasterKey, id: string, value: unknown): Promise<void> {
  await writeAtomically(path, sealState(key, id, value));
}

export function sealState(key: MasterKey, id: string, value: unknown): Buffer {
  const header = newHeader();
  const piece = {
    key: key.objectKey(header, { kind: 'state', id }, 'state'),
    nonce: ONLY_NONCE,
    aad: header,
  };
  return Buffer.concat([header, sealPiece(piece, Buffer.from(JSON.stringify(value)))]);
}

export interface StoredState<T> {
  readonly id: string;
  readonly shape: Shape<T>;
}

/** Undefined when there is no such file. Throws SealedError, or an Error of its shape. */
export async function readState<T>(
  path: string,
  key: MasterKey,
  stored: StoredState<T>,
): Promise<T | undefined> {
  const found = await readSmallBytes(path, { maxBytes: MAX_STATE_BYTES });
  if (found === undefined) return undefined;
  if ('problem' in found) throw new Error(`a stored state ${found.problem}`);
  return openState(found.bytes, key, stored);
}

export function openState<T>(bytes: Buffer, key: MasterKey, { id, shape }: StoredState<T>): T {
  const header = bytes.subarray(0, HEADER_BYTES);
  checkHeader(header);
  if (bytes.length === HEADER_BYTES) throw new SealedError('cut');
  const piece = {
    key: key.objectKey(header, { kind: 'state', id }, 'state'),
    nonce: ONLY_NONCE,
    aad: header,
  };
  return parseStored(shape, openPiece(piece, bytes.subarray(HEADER_BYTES)).toString('utf8'));
}
