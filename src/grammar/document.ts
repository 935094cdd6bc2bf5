// The whole of a schema, into which its references point.

import type { Spend } from './gbnf.ts';
import { refuseKeyword, type Place } from './place.ts';
import { isArray, isJson } from './schema.ts';

export class SchemaDocument {
  readonly root: unknown;
  readonly #spend: Spend;

  constructor(root: unknown, spend: Spend) {
    this.root = root;
    this.#spend = spend;
  }

  /** The schema that a pointer into the document names (RFC 6901); undefined when there is none. */
  target(pointer: string): unknown {
    if (pointer !== '#' && !pointer.startsWith('#/')) return undefined;
    this.#spend(pointer.length);
    let at: unknown = this.root;
    for (const part of pointer.split('/').slice(1)) {
      let key: string;
      try {
        key = decodeURIComponent(part).replaceAll('~1', '/').replaceAll('~0', '~');
      } catch {
        return undefined;
      }
      const found = isArray(at) ? /^\d{1,6}$/.test(key) : isJson(at) && Object.hasOwn(at, key);
      if (!found || (!isJson(at) && !isArray(at))) return undefined;
      at = Reflect.get(at, key);
    }
    return at;
  }

  /** The same; refuses `$ref` at `place` when there is none. */
  resolve(pointer: string, place: Place): unknown {
    if (pointer !== '#' && !pointer.startsWith('#/'))
      return refuseKeyword(place, '$ref', '$ref must point into the same schema (#/…)');
    const target = this.target(pointer);
    return target === undefined ? refuseKeyword(place, '$ref', '$ref points at nothing') : target;
  }
}
