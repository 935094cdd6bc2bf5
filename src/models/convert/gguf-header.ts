// The header of a GGUF v3 file (ggml docs/gguf.md): magic, counts, key-values, table of tensors,
// padding. Deterministic: keys and tensors in the order given. The data of each tensor begins at a
// multiple of 32 bytes after it.

/** A metadata value with its GGUF type. Arrays are of strings, i32 or f32. */
export type GgufValue =
  | { readonly u32: number }
  | { readonly i32: number }
  | { readonly f32: number }
  | { readonly bool: boolean }
  | { readonly string: string }
  | { readonly strings: readonly string[] }
  | { readonly i32s: readonly number[] }
  | { readonly f32s: readonly number[] };

/** `shape` as GGUF has it: the first dimension is the contiguous one. */
export interface GgufTensor {
  readonly name: string;
  readonly typeId: number;
  readonly shape: readonly number[];
  readonly bytes: number;
}

const ALIGNMENT = 32;

export function padded(length: number): number {
  return Math.ceil(length / ALIGNMENT) * ALIGNMENT;
}

/** Up to the first byte of data. */
export function encodeGgufHeader(
  metadata: Iterable<readonly [key: string, value: GgufValue]>,
  tensors: readonly GgufTensor[],
): Uint8Array {
  const pairs = [...metadata];
  const out = new Growing();
  out.raw(Buffer.from('GGUF'));
  out.u32(3);
  out.u64(tensors.length);
  out.u64(pairs.length);
  for (const [key, value] of pairs) {
    out.text(key);
    writeValue(out, value);
  }
  let offset = 0;
  for (const { name, typeId, shape, bytes } of tensors) {
    out.text(name);
    out.u32(shape.length);
    for (const size of shape) out.u64(size);
    out.u32(typeId);
    out.u64(offset);
    offset += padded(bytes);
  }
  return out.padded();
}

function writeValue(out: Growing, value: GgufValue): void {
  if ('u32' in value) {
    out.u32(4);
    out.u32(value.u32);
  } else if ('i32' in value) {
    out.u32(5);
    out.i32(value.i32);
  } else if ('f32' in value) {
    out.u32(6);
    out.f32(value.f32);
  } else if ('bool' in value) {
    out.u32(7);
    out.raw(Uint8Array.of(value.bool ? 1 : 0));
  } else if ('string' in value) {
    out.u32(8);
    out.text(value.string);
  } else if ('strings' in value) {
    writeArray(out, 8, value.strings, (each) => out.text(each));
  } else if ('i32s' in value) {
    writeArray(out, 5, value.i32s, (each) => out.i32(each));
  } else {
    writeArray(out, 6, value.f32s, (each) => out.f32(each));
  }
}

function writeArray<T>(out: Growing, type: number, values: readonly T[], write: (value: T) => void): void {
  out.u32(9);
  out.u32(type);
  out.u64(values.length);
  for (const value of values) write(value);
}

/** Little-endian numbers and texts, one after another, in a buffer that doubles. */
class Growing {
  #bytes = Buffer.alloc(64 * 1024);
  #length = 0;

  raw(bytes: Uint8Array): void {
    const at = this.#take(bytes.length);
    this.#bytes.set(bytes, at);
  }

  u32(value: number): void {
    const at = this.#take(4);
    this.#bytes.writeUInt32LE(value, at);
  }

  i32(value: number): void {
    const at = this.#take(4);
    this.#bytes.writeInt32LE(value, at);
  }

  f32(value: number): void {
    const at = this.#take(4);
    this.#bytes.writeFloatLE(value, at);
  }

  u64(value: number): void {
    const at = this.#take(8);
    this.#bytes.writeBigUInt64LE(BigInt(value), at);
  }

  text(value: string): void {
    const length = Buffer.byteLength(value);
    this.u64(length);
    const at = this.#take(length);
    this.#bytes.write(value, at);
  }

  padded(): Uint8Array {
    this.#take(padded(this.#length) - this.#length);
    return this.#bytes.subarray(0, this.#length);
  }

  /** Where the next `count` bytes go. */
  #take(count: number): number {
    const at = this.#length;
    this.#length += count;
    if (this.#length > this.#bytes.length) {
      const larger = Buffer.alloc(Math.max(this.#bytes.length * 2, this.#length));
      larger.set(this.#bytes.subarray(0, at));
      this.#bytes = larger;
    }
    return at;
  }
}
