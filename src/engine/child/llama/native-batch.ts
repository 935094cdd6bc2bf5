// The native arrays of one llama_batch, which is filled again for every decode.

import type { NativeBatch } from './declarations.ts';
import { nativeAlloc, nativeFree } from './library.ts';

export class ContextError extends Error {
  override readonly name = 'ContextError';
}

export class NativeTokens {
  readonly native: NativeBatch;
  readonly #capacity: number;
  readonly #maxOutputs: number;
  readonly #tokens: Int32Array;
  readonly #positions: Int32Array;
  readonly #sequences: Int32Array;
  readonly #outputs: Int8Array;
  readonly #memory: readonly NativeMemory[];
  #outputCount = 0;

  constructor(capacity: number, maxOutputs: number) {
    const [token, pos, count, ids] = Array.from({ length: 4 }, () => nativeAlloc(capacity * 4)) as [
      NativeMemory,
      NativeMemory,
      NativeMemory,
      NativeMemory,
    ];
    const idPointers = nativeAlloc(capacity * 8);
    const output = nativeAlloc(capacity);
    new Int32Array(count.memory).fill(1);
    const pointers = new BigUint64Array(idPointers.memory);
    for (let i = 0; i < capacity; i += 1) pointers[i] = ids.pointer + BigInt(i * 4);
    this.#capacity = capacity;
    this.#maxOutputs = maxOutputs;
    this.#memory = [token, pos, count, ids, idPointers, output];
    this.#tokens = new Int32Array(token.memory);
    this.#positions = new Int32Array(pos.memory);
    this.#sequences = new Int32Array(ids.memory);
    this.#outputs = new Int8Array(output.memory);
    this.native = {
      n_tokens: 0,
      token: token.pointer,
      embd: null,
      pos: pos.pointer,
      n_seq_id: count.pointer,
      seq_id: idPointers.pointer,
      logits: output.pointer,
    };
  }

  get length(): number {
    return this.native.n_tokens;
  }

  /** The batch is not used after. */
  free(): void {
    for (const { pointer } of this.#memory) nativeFree(pointer);
  }

  clear(): void {
    this.native.n_tokens = 0;
    this.#outputCount = 0;
  }

  /** The index of the token in the batch. */
  add(token: number, position: number, sequence: number, output: boolean): number {
    const index = this.native.n_tokens;
    if (index >= this.#capacity) throw new ContextError(`a batch holds ${this.#capacity} tokens`);
    if (output) this.#outputCount += 1;
    if (this.#outputCount > this.#maxOutputs)
      throw new ContextError(`a batch gives ${this.#maxOutputs} outputs`);
    this.#tokens[index] = token;
    this.#positions[index] = position;
    this.#sequences[index] = sequence;
    this.#outputs[index] = output ? 1 : 0;
    this.native.n_tokens = index + 1;
    return index;
  }
}

/** Where vectors of one run stand. */
export interface RowsPlace {
  readonly sequence: number;
  /** Of the first of them; with `columns` that of the run. */
  readonly position: number;
  /** With the output of the last one. */
  readonly last: boolean;
  /** Vectors of a row of the run, and how many of the run were read before these. */
  readonly columns?: number | undefined;
  readonly read?: number | undefined;
  /** Each attends to all of them. */
  readonly whole?: boolean | undefined;
}

/** Components of a position in M-RoPE: moment, row, column, and one of no use yet. */
const COMPONENTS = 4;

/** Vectors of one sequence in the place of tokens. */
export class NativeRows {
  readonly native: NativeBatch;
  readonly #width: number;
  readonly #vectors: Float32Array;
  readonly #positions: Int32Array;
  readonly #sequences: Int32Array;
  readonly #outputs: Int8Array;

  /** `width`: numbers of a vector. */
  constructor(capacity: number, width: number) {
    const sizes = [4 * COMPONENTS, 4, 4, 4 * width, 8, 1];
    const [pos, count, ids, vectors, idPointers, output] = sizes.map((bytes) =>
      nativeAlloc(capacity * bytes),
    ) as [NativeMemory, NativeMemory, NativeMemory, NativeMemory, NativeMemory, NativeMemory];
    new Int32Array(count.memory).fill(1);
    const pointers = new BigUint64Array(idPointers.memory);
    for (let i = 0; i < capacity; i += 1) pointers[i] = ids.pointer + BigInt(i * 4);
    this.#width = width;
    this.#vectors = new Float32Array(vectors.memory);
    this.#positions = new Int32Array(pos.memory);
    this.#sequences = new Int32Array(ids.memory);
    this.#outputs = new Int8Array(output.memory);
    this.native = {
      n_tokens: 0,
      token: null,
      embd: vectors.pointer,
      pos: pos.pointer,
      n_seq_id: count.pointer,
      seq_id: idPointers.pointer,
      logits: output.pointer,
    };
  }

  /** Each of these vectors attends to all of them. */
  whole = false;

  /** Replaces what was there. */
  set(rows: Float32Array, place: RowsPlace): void {
    const { sequence, position, last, columns, read = 0, whole = false } = place;
    const count = rows.length / this.#width;
    if (!Number.isInteger(count) || count < 1 || count > this.#sequences.length)
      throw new ContextError(`${rows.length} numbers are no vectors of a batch`);
    this.#vectors.set(rows);
    this.whole = whole;
    const at = this.#positions;
    if (columns === undefined) for (let i = 0; i < count; i += 1) at[i] = position + i;
    else {
      // One component of all vectors after another (set_position_mrope_2d of mtmd-helper-common.h).
      at.fill(position, 0, count);
      for (let i = 0; i < count; i += 1) {
        at[count + i] = position + Math.floor((read + i) / columns);
        at[2 * count + i] = position + ((read + i) % columns);
      }
      at.fill(0, 3 * count, 4 * count);
    }
    this.#sequences.fill(sequence, 0, count);
    this.#outputs.fill(0, 0, count);
    this.#outputs[count - 1] = last ? 1 : 0;
    this.native.n_tokens = count;
  }
}

type NativeMemory = ReturnType<typeof nativeAlloc>;
