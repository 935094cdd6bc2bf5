// config.json, read field by field: a field of another type or out of bounds is refused by its name. The few
// defaults are those of `transformers` for that architecture, and stand where they are used; anything else
// that changes a model's results must be there.

import { invalidDescription, unsupportedModel } from './folder.ts';
import { isJsonList, isObject, type ModelJson, type ModelJsonObject } from './json.ts';

export const CONFIG = 'config.json';

/** No model has wider vectors, more layers or a longer context. */
export const MAX_MODEL_WIDTH = 1 << 20;
export const MAX_LAYERS = 512;
export const MAX_CONTEXT = 1 << 28;

/**
 * A JSON object of a file, whose fields are asked for by name. A field that is null is absent,
 * as `transformers` has it.
 */
export class Fields {
  readonly #file: string;
  readonly #object: ModelJsonObject;
  /** Before the names of fields in messages. */
  readonly #prefix: string;

  constructor(file: string, object: ModelJsonObject, prefix = '') {
    this.#file = file;
    this.#object = object;
    this.#prefix = prefix;
  }

  names(): readonly string[] {
    return Object.keys(this.#object);
  }

  value(name: string): ModelJson | undefined {
    const value = Object.hasOwn(this.#object, name) ? this.#object[name] : undefined;
    return value === null ? undefined : value;
  }

  wrong(name: string, message: string): Error {
    return invalidDescription(this.#file, `${this.#prefix}${name} ${message}`);
  }

  optionalInteger(name: string, max: number, min = 1): number | undefined {
    const value = this.value(name);
    if (value === undefined) return undefined;
    if (typeof value !== 'number' || !Number.isInteger(value) || value < min || value > max)
      throw this.wrong(name, `is not a whole number from ${min} to ${max}`);
    return value;
  }

  integer(name: string, max: number, min = 1): number {
    const value = this.optionalInteger(name, max, min);
    if (value === undefined) throw this.wrong(name, 'is missing');
    return value;
  }

  /** Finite and within `min` and `max`, both taken. */
  optionalNumber(name: string, min: number, max: number): number | undefined {
    const value = this.value(name);
    if (value === undefined) return undefined;
    if (typeof value !== 'number' || !(value >= min && value <= max))
      throw this.wrong(name, `is not a number from ${min} to ${max}`);
    return value;
  }

  number(name: string, min: number, max: number): number {
    const value = this.optionalNumber(name, min, max);
    if (value === undefined) throw this.wrong(name, 'is missing');
    return value;
  }

  boolean(name: string): boolean | undefined {
    const value = this.value(name);
    if (value !== undefined && typeof value !== 'boolean') throw this.wrong(name, 'is not true or false');
    return value;
  }

  string(name: string): string | undefined {
    const value = this.value(name);
    if (value !== undefined && typeof value !== 'string') throw this.wrong(name, 'is not a text');
    return value;
  }

  list(name: string): readonly ModelJson[] | undefined {
    const value = this.value(name);
    if (value !== undefined && !isJsonList(value)) throw this.wrong(name, 'is not a list');
    return value;
  }

  object(name: string): Fields | undefined {
    const value = this.value(name);
    if (value === undefined) return undefined;
    if (!isObject(value)) throw this.wrong(name, 'is not an object');
    return new Fields(this.#file, value, `${this.#prefix}${name}.`);
  }
}

/** The first of `architectures`, which decides. */
export function architectureName(config: Fields): string {
  const name = config.list('architectures')?.[0];
  if (typeof name !== 'string') throw config.wrong('architectures', 'names none');
  return name;
}

/** As a message may show it. */
export function shownName(name: string): string {
  return /^\w{1,64}$/.test(name) ? name : 'the one named';
}

const EXPERTS = ['num_local_experts', 'num_experts', 'n_routed_experts'];

/** Refuses weights that are quantised already, experts, and the fields of other kinds of model. */
export function mustBePlain(config: Fields, name: string, others: readonly string[] = []): void {
  const quantized = config.object('quantization_config');
  if (quantized !== undefined) {
    const method = quantized.string('quant_method') ?? '';
    const shown = /^[\w-]{1,40}$/.test(method) ? method : 'of a kind unknown here';
    throw unsupportedModel(
      `${CONFIG}: quantization_config: weights that are quantised already (${shown}) are not converted`,
    );
  }
  for (const field of [...EXPERTS, ...others])
    if (config.value(field) !== undefined) throw config.wrong(field, `is not supported with ${name}`);
}

export interface Rope {
  readonly theta: number;
  readonly type: 'default' | 'linear' | 'yarn' | 'llama3' | 'longrope';
  /** The object they stand in, for what a type has beside. */
  readonly parameters: Fields | undefined;
  /** Context the model was trained for before it was scaled. */
  readonly originalContext: number | undefined;
}

const ROPE_TYPES = ['default', 'linear', 'yarn', 'llama3', 'longrope'] as const;
const MAX_THETA = 1e12;

/**
 * As `transformers` reads them: of `rope_scaling`, else `rope_parameters`, with `rope_theta` in it or beside.
 */
export function readRope(config: Fields, types: readonly Rope['type'][], defaultTheta = 10_000): Rope {
  const parameters = config.object('rope_scaling') ?? config.object('rope_parameters');
  const theta =
    parameters?.optionalNumber('rope_theta', 1, MAX_THETA) ??
    config.optionalNumber('rope_theta', 1, MAX_THETA) ??
    defaultTheta;
  const named = parameters?.string('rope_type') ?? parameters?.string('type') ?? 'default';
  const type = ROPE_TYPES.find((each) => each === (named === 'su' ? 'longrope' : named));
  if (type === undefined || !types.includes(type))
    throw config.wrong('rope_scaling', `has a type that is none of ${types.join(', ')} of this architecture`);
  const outside = config.optionalInteger('original_max_position_embeddings', MAX_CONTEXT);
  const inside = parameters?.optionalInteger('original_max_position_embeddings', MAX_CONTEXT);
  return { theta, type, parameters, originalContext: outside ?? inside };
}

/** The object that rope of a type other than `default` has. */
export function scalingOf(config: Fields, rope: Rope): Fields {
  if (rope.parameters === undefined) throw config.wrong('rope_scaling', 'is missing');
  return rope.parameters;
}
