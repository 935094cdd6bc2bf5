// GGUF files of values in memory: the header of src/models/convert, and tensors encoded here. Deterministic:
// keys and tensors in the order given, every byte decided here. Refuses shapes a type cannot hold.

import { encodeGgufHeader, padded, type GgufValue } from '../../src/models/convert/gguf-header.ts';
import { halfBits, halfFromSingle, halfValue } from './numbers.ts';

export type WrittenType = 'F32' | 'F16' | 'Q8_0';

export type WrittenValue = GgufValue;

/** `shape` as GGUF has it: the first dimension is the contiguous one (columns, then rows). */
export interface Tensor {
  readonly name: string;
  readonly type: WrittenType;
  readonly shape: readonly number[];
  readonly values: Float32Array;
}

const TYPE_IDS: Readonly<Record<WrittenType, number>> = { F32: 0, F16: 1, Q8_0: 8 };

/** The whole file. */
export function writeGguf(
  metadata: readonly (readonly [key: string, value: WrittenValue])[],
  tensors: readonly Tensor[],
): Buffer {
  const payloads = tensors.map(encodeTensor);
  const table = tensors.map(({ name, type, shape }, i) => ({
    name,
    typeId: TYPE_IDS[type],
    shape,
    bytes: payloads[i]!.length,
  }));
  const body = payloads.flatMap((payload) => [
    payload,
    Buffer.alloc(padded(payload.length) - payload.length),
  ]);
  return Buffer.concat([encodeGgufHeader(metadata, table), ...body]);
}

function encodeTensor(tensor: Tensor): Buffer {
  const { name, type, shape, values } = tensor;
  const count = shape.reduce((product, size) => product * size, 1);
  if (count !== values.length)
    throw new Error(`${name}: shape ${shape.join('×')} does not hold ${values.length} values`);
  // Explicitly little-endian, whatever the machine is.
  if (type === 'F32') {
    const out = new DataView(new ArrayBuffer(4 * count));
    for (let i = 0; i < count; i++) out.setFloat32(4 * i, values[i]!, true);
    return Buffer.from(out.buffer);
  }
  if (type === 'F16') {
    const words = new Uint32Array(values.buffer, values.byteOffset, count);
    const out = new DataView(new ArrayBuffer(2 * count));
    for (let i = 0; i < count; i++) out.setUint16(2 * i, halfFromSingle(words[i]!), true);
    return Buffer.from(out.buffer);
  }
  return encodeQ8(name, shape[0] ?? 0, values);
}

/** Q8_0: blocks of 32 as a half scale (largest magnitude / 127) and 32 signed bytes. */
function encodeQ8(name: string, columns: number, values: Float32Array): Buffer {
  if (columns % 32 !== 0) throw new Error(`${name}: ${columns} columns are no whole Q8_0 blocks`);
  const out = Buffer.alloc((values.length / 32) * 34);
  for (let block = 0; block < values.length / 32; block++) {
    let largest = 0;
    for (let i = 32 * block; i < 32 * block + 32; i++) largest = Math.max(largest, Math.abs(values[i]!));
    // An all-zero block stays zero.
    if (largest === 0) continue;
    const scale = halfBits(largest / 127);
    const step = halfValue(scale);
    out.writeUInt16LE(scale, 34 * block);
    for (let i = 0; i < 32; i++) {
      const q = Math.round(values[32 * block + i]! / step);
      out.writeInt8(Math.max(-127, Math.min(127, q)), 34 * block + 2 + i);
    }
  }
  return out;
}
