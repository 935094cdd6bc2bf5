// Shared by the routes of files, batches and responses: the store, the caller that owns what they touch,
// metadata, and pages of a list (OpenAI API reference, "List files", "List batch").

import { ApiError } from '../base/errors.ts';
import { anyObject, integer, map, optional, refuse, type Shape, text } from '../base/shape.ts';
import type { IdKind } from '../files/ids.ts';
import type { Files } from '../files/open.ts';
import type { Call } from '../http/route.ts';

/** 403 files_disabled. */
export function storedFiles({ deps }: Pick<Call, 'deps'>): Files {
  if (deps.files === null || deps.files === undefined) throw filesDisabled();
  return deps.files;
}

export function filesDisabled(): ApiError {
  return new ApiError('files_disabled', 'files and batches are off on this server (files.folder)');
}

export function ownerOf({ exchange }: Pick<Call, 'exchange'>): string {
  const owner = exchange.principal?.owner;
  if (owner === undefined) throw new TypeError('a route of stored files takes a key');
  return owner;
}

/** A number of a query string. */
export function queryInteger(bounds: { readonly min: number; readonly max: number }): Shape<number> {
  const whole = integer(bounds);
  const digits = text({ max: 16, pattern: /^\d+$/, form: 'a whole number' });
  return map(digits, (given, path) => whole.read(Number(given), path), whole.schema);
}

/** The `after` of a list: an id of that kind, also of one that is gone. */
export function afterId(kind: IdKind): Shape<string | undefined> {
  const id = new RegExp(`^${kind}[0-9a-f]{32}$`);
  return optional(text({ max: 64, pattern: id, form: 'an id of this list', about: AFTER }));
}
const AFTER = 'Id of the one before the first wanted; it may be gone.';

/** The part of a list, oldest first, that a page shows. */
export function pageOf<T extends { readonly id: string }>(
  all: readonly T[],
  {
    after,
    limit,
    newestFirst,
  }: { readonly after?: string | undefined; readonly limit: number; readonly newestFirst: boolean },
): { readonly page: readonly T[]; readonly more: boolean } {
  const ordered = newestFirst ? all.toReversed() : all;
  // Ids are in the order of their making, so a page also goes on behind one that is gone.
  const isBehind = (id: string): boolean => after === undefined || (newestFirst ? id < after : id > after);
  const rest = ordered.filter(({ id }) => isBehind(id));
  return { page: rest.slice(0, limit), more: rest.length > limit };
}

export function listAnswer(data: readonly { readonly id: string }[], more: boolean): object {
  return {
    object: 'list',
    data,
    first_id: data[0]?.id ?? null,
    last_id: data.at(-1)?.id ?? null,
    has_more: more,
  };
}

export function seconds(milliseconds: number): number {
  return Math.floor(milliseconds / 1000);
}

const MAX_METADATA = 16;

/** Texts of a caller's own, kept beside what it makes. `end`: the rest of the sentence about them. */
export function metadata(end: string): Shape<Readonly<Record<string, string>>> {
  return map(
    anyObject(`At most ${MAX_METADATA} pairs of texts, names up to 64 characters, values up to 512; ${end}`),
    (given, path) => {
      const pairs = Object.entries(given);
      if (pairs.length > MAX_METADATA)
        throw refuse('invalid_value', path, `${path} has more than ${MAX_METADATA} pairs`);
      return Object.fromEntries(
        pairs.map(([name, value]) => {
          if (name.length > 64 || name === '__proto__' || typeof value !== 'string' || value.length > 512)
            throw refuse('invalid_value', path, `${path} has a pair that is too long or no text`);
          return [name, value] as const;
        }),
      );
    },
  );
}
