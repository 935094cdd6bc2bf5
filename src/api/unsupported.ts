// Shapes of parameters of the OpenAI API that have no effect here: checked and ignored (inert), refused
// (unsupported), or taken for the values that ask for what this server does anyway (supportedAs). A value
// that asks for none of the thing is always taken. Refuses: unsupported_parameter.

import type { ApiError } from '../base/errors.ts';
import { isEmpty, refuse, type Shape } from '../base/shape.ts';

/** Checked, and then without any effect. The list of these in docs/api.md is made from the schemas. */
export function inert(shape: Shape<unknown>, why: string): Shape<undefined> {
  return {
    schema: { ...shape.schema, description: `Accepted and ignored: ${why}` },
    optional: true,
    read(value, path) {
      if (!isNothing(value)) shape.read(value, path);
      return undefined;
    },
  };
}

/**
 * A parameter of the OpenAI API that this server does not honour; a value that asks for
 * none of the thing is taken.
 */
export function unsupportedParameter(instead: string): Shape<undefined> {
  return {
    schema: {},
    optional: true,
    refused: true,
    read(value, path) {
      if (!isNothing(value)) throw notSupported(path, instead);
      return undefined;
    },
  };
}

/**
 * A parameter of the OpenAI API of which these values ask for what happens here; every other one is refused.
 */
export function supportedAs<const C extends string>(
  values: readonly C[],
  about: string,
): Shape<C | undefined> {
  return {
    schema: { type: 'string', enum: values, description: about },
    optional: true,
    read(value, path) {
      const found = values.find((each) => each === value);
      if (found === undefined && !isNothing(value))
        throw notSupported(path, `expected ${values.map((each) => `'${each}'`).join(' or ')}`);
      return found;
    },
  };
}

/**
 * A parameter of another API of which these values ask for what happens here anyway; every other one is
 * refused.
 */
export function asUsual(...values: readonly unknown[]): Shape<undefined> {
  return {
    schema: { enum: values, description: 'Accepted as what happens anyway; other values are refused.' },
    optional: true,
    read(value, path) {
      if (!values.some((each) => each === value || (isEmpty(each) && isEmpty(value))))
        throw notSupported(path, `expected ${values.map((each) => JSON.stringify(each)).join(' or ')}`);
      return undefined;
    },
  };
}

/** One shape under each of these names. */
export function forEach<const N extends string, T>(names: readonly N[], value: T): Readonly<Record<N, T>> {
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- every name gets the value
  return Object.fromEntries(names.map((name) => [name, value])) as Readonly<Record<N, T>>;
}

function notSupported(path: string, instead: string): ApiError {
  return refuse(
    'unsupported_parameter',
    path,
    `${path} is not supported${instead === '' ? '' : `: ${instead}`}`,
  );
}

/**
 * Values by which clients say that they want none of a thing. An empty object is not one:
 * it asks for the defaults.
 */
function isNothing(value: unknown): boolean {
  const none = value === null || value === false || value === 0 || value === '';
  return none || (Array.isArray(value) && value.length === 0);
}
