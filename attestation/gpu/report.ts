// The report of an NVIDIA device: an SPDM 1.1 GET_MEASUREMENTS request and the MEASUREMENTS response to it
// (DMTF DSP0274 1.1.0 §10.11), followed by opaque fields and the signature over everything before it. The
// request is signed as well: that is what binds the nonce. Read from front to back; the signature is where
// parsing ends, never "the last 96 bytes".

import { decodeLayout, raw, u16, u8 } from '../encoding/layout.ts';
import { type AttestationError, malformed } from '../transcript/errors.ts';
import { equalBytes, viewOf } from '../encoding/bytes.ts';

export const MAX_REPORT_BYTES = 32 * 1024;
export const SPDM_HEADER_BYTES = 45;
export const SPDM_BLOCK_BYTES = 55;
const TAIL_BYTES = 34;
const SIGNATURE_BYTES = 96;

/** The head of a report, before its measurement blocks. */
export const SPDM_HEADER = {
  request: raw(0, 4), // 11 e0 01 ff: version 1.1, GET_MEASUREMENTS, signature requested, all blocks
  nonce: raw(4, 32), // of the requester: the challenge
  slot: u8(36), // certificate slot, 0
  response: raw(37, 4), // 11 60 00 00: version 1.1, MEASUREMENTS
  blocks: u8(41), // number of blocks N
  recordLength: raw(42, 3), // bytes of all blocks, 55 × N
} as const;

/** One measurement block; block i of N has the index i, from 1. */
export const SPDM_BLOCK = {
  index: u8(0), // 1 to N, in order
  specification: u8(1), // 1: DMTF
  size: u16(2), // of what follows, 51
  type: u8(4), // 1
  valueSize: u16(5), // 48
  value: raw(7, 48), // SHA-384
} as const;

const REQUEST = Uint8Array.of(0x11, 0xe0, 0x01, 0xff);
const RESPONSE = Uint8Array.of(0x11, 0x60, 0, 0);

/** A report as parsed: signed only where its signature has been checked. */
export interface GpuReport {
  /** 32 bytes: the challenge the report answers. */
  readonly nonce: Uint8Array;
  /** 48 bytes each; block i + 1 is at index i. */
  readonly measurements: readonly Uint8Array[];
  /** By id. */
  readonly opaque: ReadonlyMap<number, Uint8Array>;
  /** The bytes the signature is over: all before it. */
  readonly signed: Uint8Array;
  /** r ‖ s, big-endian, 48 bytes each. */
  readonly signature: Uint8Array;
  /** Bytes after the signature, which no signature covers. */
  readonly trailing: number;
}

/**
 * Bytes → report.
 * @throws AttestationError `gpu_format`
 * @example const { nonce, measurements } = parseGpuReport(bytes);
 */
export function parseGpuReport(bytes: Uint8Array, name = 'GPU report'): GpuReport {
  if (bytes.length > MAX_REPORT_BYTES)
    throw bad(name, `is ${bytes.length} bytes, at most ${MAX_REPORT_BYTES} are read`);
  if (bytes.length < SPDM_HEADER_BYTES + TAIL_BYTES + SIGNATURE_BYTES)
    throw bad(name, `is ${bytes.length} bytes, too few for a report`);
  const head = decodeLayout(SPDM_HEADER, bytes.subarray(0, SPDM_HEADER_BYTES), SPDM_HEADER_BYTES, name);
  if (!equalBytes(head.request, REQUEST) || head.slot !== 0)
    throw bad(name, 'does not begin with the request for all measurements of slot 0, signed, in SPDM 1.1');
  if (!equalBytes(head.response, RESPONSE)) throw bad(name, 'has no MEASUREMENTS response in SPDM 1.1');
  const [low = 0, middle = 0, high = 0] = head.recordLength;
  const length = low | (middle << 8) | (high << 16);
  if (head.blocks === 0 || length !== head.blocks * SPDM_BLOCK_BYTES)
    throw bad(name, `says ${head.blocks} blocks in ${length} bytes, expected ${SPDM_BLOCK_BYTES} each`);
  const tail = SPDM_HEADER_BYTES + length;
  if (bytes.length < tail + TAIL_BYTES + SIGNATURE_BYTES) throw bad(name, 'ends within its blocks');
  const measurements = Array.from({ length: head.blocks }, (_, i) => readBlock(bytes, i, name));
  const start = tail + TAIL_BYTES;
  const end = start + viewOf(bytes).getUint16(start - 2, true);
  if (bytes.length < end + SIGNATURE_BYTES) throw bad(name, 'ends within its opaque fields or signature');
  return {
    nonce: head.nonce,
    measurements,
    opaque: readOpaque(bytes.subarray(start, end), name),
    signed: bytes.subarray(0, end),
    signature: bytes.subarray(end, end + SIGNATURE_BYTES),
    trailing: bytes.length - end - SIGNATURE_BYTES,
  };
}

function readBlock(bytes: Uint8Array, i: number, name: string): Uint8Array {
  const at = SPDM_HEADER_BYTES + i * SPDM_BLOCK_BYTES;
  const block = decodeLayout(SPDM_BLOCK, bytes.subarray(at, at + SPDM_BLOCK_BYTES), SPDM_BLOCK_BYTES, name);
  if (block.index !== i + 1) throw bad(name, `has block ${block.index} in place of block ${i + 1}`);
  if (block.specification !== 1 || block.size !== 51 || block.type !== 1 || block.valueSize !== 48)
    throw bad(name, `has a block ${i + 1} that is no DMTF measurement of 48 bytes`);
  return block.value;
}

function readOpaque(bytes: Uint8Array, name: string): ReadonlyMap<number, Uint8Array> {
  const view = viewOf(bytes);
  const fields = new Map<number, Uint8Array>();
  for (let at = 0; at < bytes.length;) {
    if (at + 4 > bytes.length) throw bad(name, 'has an opaque field without a length');
    const id = view.getUint16(at, true);
    const end = at + 4 + view.getUint16(at + 2, true);
    if (end > bytes.length) throw bad(name, `has an opaque field ${id} longer than what is left`);
    if (fields.has(id)) throw bad(name, `has the opaque field ${id} twice`);
    fields.set(id, bytes.subarray(at + 4, end));
    at = end;
  }
  return fields;
}

function bad(name: string, problem: string): AttestationError {
  return malformed('gpu_format', `${name} ${problem}`);
}
