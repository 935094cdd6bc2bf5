// The header of a projector, read part by part: numbers within bounds, tensors by name, type and shape. A
// tensor that is left at the end belongs to no kind that was asked for, and is refused.

import { invalidGguf } from './bytes.ts';
import { settingsOf, type Settings } from './check.ts';
import type { GgufHeader, TensorEntry } from './header.ts';

type Types = ReadonlySet<string>;

export const VECTORS: Types = new Set(['F32']);
export const MATRICES: Types = new Set(['F32', 'F16', 'BF16', 'Q8_0', 'Q5_0', 'Q5_1', 'Q4_0', 'Q4_1', 'Q4_K', 'Q5_K', 'Q6_K']); // prettier-ignore
/** Of a convolution. */
export const KERNELS: Types = new Set(['F32', 'F16', 'BF16']);
export const WIDEST = 1 << 16;

export class ProjectorFile {
  readonly settings: Settings;
  readonly #kind: string;
  readonly #header: GgufHeader;
  readonly #left: Map<string, TensorEntry>;

  constructor(header: GgufHeader, kind: string) {
    this.settings = settingsOf(header.metadata);
    this.#kind = kind;
    this.#header = header;
    this.#left = new Map(header.tensors.map((tensor) => [tensor.name, tensor]));
  }

  /** A number that the loader needs, by its name below `clip.vision`. */
  number(name: string, max: number, min = 1): number {
    const value = this.settings.u32(key(name));
    if (value === undefined) throw invalidGguf(`${key(name)} is missing`);
    return within(name, value, [min, max]);
  }

  /** One that has a default. */
  numberOr(name: string, usual: number, max: number, min = 1): number {
    return within(name, this.settings.u32(key(name)) ?? usual, [min, max]);
  }

  /** Keys that the loader reads of any kind, and this one has not. */
  refuseKeys(...names: readonly string[]): void {
    for (const name of names)
      if (this.#header.metadata.has(name)) throw invalidGguf(`${name} is not of ${this.#kind}`);
  }

  shapeOf(name: string): readonly number[] {
    return this.#left.get(name)?.shape ?? [];
  }

  take(name: string, shape: readonly number[], types: Types): void {
    const tensor = this.#left.get(name);
    if (tensor === undefined) throw invalidGguf(`tensor ${name} is missing`);
    this.#left.delete(name);
    if (!types.has(tensor.type.name))
      throw invalidGguf(`tensor ${name} has type ${tensor.type.name}, expected ${[...types].join(', ')}`);
    const expected = [...shape, 1, 1, 1].slice(0, 4);
    if (tensor.shape.some((size, i) => size !== expected[i]))
      throw invalidGguf(`tensor ${name} is [${tensor.shape.join(', ')}], expected [${expected.join(', ')}]`);
  }

  /** A weight and its bias. */
  pair(name: string, shape: readonly number[], types = MATRICES): void {
    this.take(`${name}.weight`, shape, types);
    this.take(`${name}.bias`, [shape.at(-1)!], VECTORS);
  }

  /** No tensor is left. */
  end(): void {
    const [other] = this.#left.keys();
    if (other !== undefined) throw invalidGguf(`tensor ${other} is not of ${this.#kind}`);
  }
}

function key(name: string): string {
  return `clip.vision.${name}`;
}

function within(name: string, value: number, [min, max]: readonly [number, number]): number {
  if (value < min || value > max) throw invalidGguf(`${key(name)} is ${value}, expected ${min} to ${max}`);
  return value;
}
