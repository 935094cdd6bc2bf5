// GGUF v3 writer (ggml docs/gguf.md: magic, counts, key-values, tensor table, padding, data), as small
// as it can be. Deterministic: keys and tensors in the order given, every byte decided here. Refuses
// shapes a type cannot hold.

import { halfBits, halfFromSingle, halfValue } from './numbers.ts';

export type WrittenType = 'F32' | 'F16' | 'Q8_0';

/** A metadata value with its GGUF type. Arrays are of strings, i32 or f32. */
export type WrittenValue =
  | { readonly u32: number }
  | { readonly i32: number }
  | { readonly f32: number }
  | { readonly bool: boolean }
  | { readonly string: string }
  | { readonly strings: readonly string[] }
  | { readonly i32s: readonly number[] }
  | { readonly f32s: readonly number[] };

/** `shape` as GGUF has it: the first dimension is the contiguous one (columns, then rows). */
export interface Tensor {
  readonly name: string;
  readonly type: WrittenType;
  readonly shape: readonly number[];
  readonly values: Float32Array;
}

const ALIGNMENT = 32;
const TYPE_IDS: Readonly<Record<WrittenType, number>> = { F32: 0, F16: 1, Q8_0: 8 };

/** The whole file. */
export function writeGguf(
  metadata: readonly (readonly [key: string, value: WrittenValue])[],
  tensors: readonly Tensor[],
): Buffer {
  const head: Buffer[] = [Buffer.from('GGUF'), u32(3), u64(tensors.length), u64(metadata.length)];
  for (const [key, value] of metadata) head.push(text(key), encodeValue(value));
  const payloads = tensors.map(encodeTensor);
  let offset = 0;
  for (const [i, tensor] of tensors.entries()) {
    head.push(
      text(tensor.name),
      u32(tensor.shape.length),
      ...tensor.shape.map(u64),
      u32(TYPE_IDS[tensor.type]),
      u64(offset),
    );
    offset += padded(payloads[i]!.length);
  }
  const header = Buffer.concat(head);
  const body = payloads.flatMap((payload) => [
    payload,
    Buffer.alloc(padded(payload.length) - payload.length),
  ]);
  return Buffer.concat([header, Buffer.alloc(padded(header.length) - header.length), ...body]);
}

function padded(length: number): number {
  return Math.ceil(length / ALIGNMENT) * ALIGNMENT;
}

function u32(value: number): Buffer {
  const out = Buffer.alloc(4);
  out.writeUInt32LE(value);
  return out;
}

function u64(value: number): Buffer {
  const out = Buffer.alloc(8);
  out.writeBigUInt64LE(BigInt(value));
  return out;
}

function i32(value: number): Buffer {
  const out = Buffer.alloc(4);
  out.writeInt32LE(value);
  return out;
}

function f32(value: number): Buffer {
  const out = Buffer.alloc(4);
  out.writeFloatLE(value);
  return out;
}

function text(value: string): Buffer {
  const bytes = Buffer.from(value, 'utf8');
  return Buffer.concat([u64(bytes.length), bytes]);
}

function encodeValue(value: WrittenValue): Buffer {
  if ('u32' in value) return Buffer.concat([u32(4), u32(value.u32)]);
  if ('i32' in value) return Buffer.concat([u32(5), i32(value.i32)]);
  if ('f32' in value) return Buffer.concat([u32(6), f32(value.f32)]);
  if ('bool' in value) return Buffer.concat([u32(7), Buffer.from([value.bool ? 1 : 0])]);
  if ('string' in value) return Buffer.concat([u32(8), text(value.string)]);
  if ('strings' in value)
    return Buffer.concat([u32(9), u32(8), u64(value.strings.length), ...value.strings.map(text)]);
  if ('i32s' in value) return Buffer.concat([u32(9), u32(5), u64(value.i32s.length), ...value.i32s.map(i32)]);
  return Buffer.concat([u32(9), u32(6), u64(value.f32s.length), ...value.f32s.map(f32)]);
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
