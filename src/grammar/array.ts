// The keywords of arrays, which are tuples with a rest.

import type { CompileContext, Site } from './compile-context.ts';
import { SPACE } from './any-value.ts';
import { joined, verbatim, repeat, type Expression } from './gbnf.ts';
import type { Notation } from './notation.ts';
import { cuts } from './pattern.ts';
import { refuseKeyword } from './place.ts';
import { count, modernTuple, type SchemaJson } from './schema.ts';

const MAX_ITEMS = 10_000;

interface Tuple {
  readonly min: number;
  readonly max: number;
  readonly heads: readonly Expression[];
  /** Null: no items after the heads. */
  readonly rest: Expression | null;
}

export function arrayOf(context: CompileContext, given: SchemaJson, site: Site): Expression {
  const tuple = tupleOf(context, modernTuple(given, site.place), site);
  const parts = tuple.rest === null ? tuple.heads : [...tuple.heads, tuple.rest];
  return context.readAs(written(context, tuple, site.notation), {
    kind: 'array',
    items: parts.map((each) => context.readingOf(each)),
    times: cuts(tuple.max),
  });
}

function tupleOf(context: CompileContext, schema: SchemaJson, site: Site): Tuple {
  const { place } = site;
  const min = count(place, 'minItems', schema, MAX_ITEMS) ?? 0;
  const max = count(place, 'maxItems', schema, MAX_ITEMS) ?? Infinity;
  if (max < min) return refuseKeyword(place, 'maxItems', 'maxItems is under minItems');
  const prefix = schema['prefixItems'];
  if (prefix !== undefined && (!Array.isArray(prefix) || prefix.length === 0))
    return refuseKeyword(place, 'prefixItems', 'prefixItems must be a non-empty array');
  const first = (prefix ?? []).slice(0, max);
  const items = schema['items'] ?? true;
  const ends = max <= first.length || items === false;
  // Before the elements are compiled: a schema that is not strict is tried again without the bound.
  if (ends && min > first.length) return tooFew(site);
  context.assertRoom(first.length);
  const heads = first.map((each: unknown, i: number) => context.inner(each, site, 'prefixItems', i));
  const rest = ends ? null : context.optional(items, site, 'items');
  if (rest === null && min > heads.length) return tooFew(site);
  return { min, max, heads, rest };
}

function tooFew({ place }: Site): never {
  return refuseKeyword(place, 'minItems', 'minItems is over what the items allow');
}

/** Built from the end: the text that may follow after i items. */
function written({ builder }: CompileContext, tuple: Tuple, { array }: Notation): Expression {
  const { min, max } = tuple;
  const item = (each: Expression): Expression =>
    array.before + array.after === ''
      ? each
      : builder.rule('item', joined(verbatim(array.before), each, verbatim(array.after)));
  const heads = tuple.heads.map(item);
  const rest = tuple.rest === null ? null : item(tuple.rest);
  const comma = array.comma === '' ? '' : joined(verbatim(array.comma), array.blanks ? SPACE : '');
  const enclosed = (body: Expression): Expression =>
    builder.rule('array', joined(verbatim(array.open), body, verbatim(array.close)) || '""');
  let tail = '';
  if (rest !== null) {
    const needed = Math.max(0, min - heads.length);
    const room = max - heads.length;
    if (heads.length === 0) {
      if (max === 0) return enclosed('');
      const more = builder.rule('more', joined(comma, rest));
      const body = `${rest} ${repeat(builder, more, Math.max(0, needed - 1), room - 1)}`;
      return enclosed(min === 0 ? `(${body})?` : body);
    }
    tail = repeat(builder, builder.rule('more', joined(comma, rest)), needed, room);
  }
  if (heads.length === 0) return enclosed('');
  for (let i = heads.length - 1; i >= 0; i -= 1) {
    const head = heads[i] ?? '""';
    const body = joined(i === 0 ? '' : comma, head, tail);
    tail = i < min ? body : builder.rule('items', `${body} | ""`);
  }
  return enclosed(tail);
}
