// The place of a schema in a request, and its refusal. A refusal names the keyword at fault, so that the
// compiler can leave that keyword out of a schema that is not strict.

import { ApiError } from '../base/errors.ts';

/**
 * The same place in two notations: as `param` of an error, where a key that is more than a word is `*`, and
 * as a JSON pointer (RFC 6901) from the root of the schema.
 */
export class Place {
  readonly param: string;
  readonly pointer: string;

  constructor(param: string, pointer = '') {
    this.param = param;
    this.pointer = pointer;
  }

  /** A member of the schema here: a string is a name, a number a position. */
  at(...keys: readonly (string | number)[]): Place {
    let { param, pointer } = this;
    for (const key of keys) {
      param += typeof key === 'number' ? `[${key}]` : `.${isWord(key) ? key : '*'}`;
      pointer += `/${String(key).replaceAll('~', '~0').replaceAll('/', '~1')}`;
    }
    return new Place(param, pointer);
  }
}

/** Whether a key of a caller's schema is an identifier, as fields of a request are, and no text. */
export function isWord(key: string): boolean {
  return /^[\w.$-]{1,64}$/.test(key);
}

/** 400 `invalid_schema`. */
export class SchemaRefusal extends ApiError {
  /** The keyword that cannot be enforced, or null when it is the schema as a whole. */
  readonly keyword: string | null;
  /** The schema admits no value at all; an optional part of another schema may. */
  readonly admitsNothing: boolean;

  constructor(place: Place, keyword: string | null, message: string, admitsNothing = false) {
    super('invalid_schema', message, {
      param: keyword === null ? place.param : place.at(keyword).param,
    });
    this.keyword = keyword;
    this.admitsNothing = admitsNothing;
  }
}

export function refuseKeyword(place: Place, keyword: string | null, message: string): never {
  throw new SchemaRefusal(place, keyword, message);
}

export function refuseUnsupported(place: Place, keyword: string): never {
  refuseKeyword(
    place,
    keyword,
    `${isWord(keyword) ? `the keyword ${keyword}` : 'a keyword'} is not supported`,
  );
}

export function refuseEmpty(place: Place, keyword: string | null, message: string): never {
  throw new SchemaRefusal(place, keyword, message, true);
}
