// The short forms the schema is written in: a field is its type with its meaning, wrapped by
// the source that may set it.

import type { Form } from './forms.ts';

/**
 * `measured` keys only come from the measured configuration, `operator` keys also from the
 * unmeasured operator's file.
 */
export type Source = 'measured' | 'operator';

interface Plain {
  readonly about: string;
  /** Only its SHA-256 enters the configuration digest and `config show`; messages do not repeat it. */
  readonly secret?: true | undefined;
  /** Relative values are resolved against the folder of the configuration file. */
  readonly path?: true | undefined;
}

type Kind =
  | (Plain & {
      readonly kind: 'text';
      readonly default?: string | undefined;
      readonly form?: Form | undefined;
    })
  | (Plain & {
      readonly kind: 'choice';
      readonly choices: readonly string[];
      readonly default?: string | undefined;
    })
  | (Plain & { readonly kind: 'boolean'; readonly default?: boolean | undefined })
  | (Plain & {
      readonly kind: 'integer' | 'number';
      readonly default?: number | undefined;
      readonly min: number;
      readonly max: number;
    })
  | (Plain & {
      readonly kind: 'texts';
      readonly default?: readonly string[] | undefined;
      readonly max: number;
      /** Where an empty list would not mean what it says. */
      readonly min?: number | undefined;
      readonly form?: Form | undefined;
    });

export type SchemaField = Kind & { readonly from: Source };
export type Section = Readonly<Record<string, SchemaField>>;

export function measured<const K extends Kind>(kind: K): K & { readonly from: 'measured' } {
  return { ...kind, from: 'measured' };
}

export function operator<const K extends Kind>(kind: K): K & { readonly from: 'operator' } {
  return { ...kind, from: 'operator' };
}

type TextOptions = Omit<Extract<Kind, { readonly kind: 'text' }>, 'kind' | 'about'>;
type TextsOptions = Omit<Extract<Kind, { readonly kind: 'texts' }>, 'kind' | 'about' | 'max'>;

export function string<const O extends TextOptions>(about: string, options: O = {} as O) {
  return { kind: 'text', about, ...options } as const;
}

/** A path to a file or folder. */
export function path<const O extends TextOptions>(about: string, options: O = {} as O) {
  return { kind: 'text', path: true, about, ...options } as const;
}

/** At most `max` texts. */
export function strings<const O extends TextsOptions>(max: number, about: string, options: O = {} as O) {
  return { kind: 'texts', max, about, ...options } as const;
}

export function oneOf<
  const C extends readonly string[],
  const O extends { readonly default?: C[number] | undefined },
>(choices: C, about: string, options: O = {} as O) {
  return { kind: 'choice', choices, about, ...options } as const;
}

/** The last parameter is the default; without one the value may be undefined. */
export function boolean<const D extends readonly [boolean?]>(about: string, ...fallback: D) {
  return { kind: 'boolean', about, ...withDefault(fallback) } as const;
}

export function whole<const D extends readonly [number?]>(
  min: number,
  max: number,
  about: string,
  ...fallback: D
) {
  return { kind: 'integer', min, max, about, ...withDefault(fallback) } as const;
}

export function number<const D extends readonly [number?]>(
  min: number,
  max: number,
  about: string,
  ...fallback: D
) {
  return { kind: 'number', min, max, about, ...withDefault(fallback) } as const;
}

/** The key is there exactly when a default is: the type of a configuration's value depends on it. */
type Default<D extends readonly unknown[]> = D extends readonly [infer V] ? { readonly default: V } : object;

function withDefault<const D extends readonly unknown[]>(fallback: D): Default<D> {
  return (fallback.length === 0 ? {} : { default: fallback[0] }) as Default<D>;
}
