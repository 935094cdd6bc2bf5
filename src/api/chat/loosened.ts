// Reports the parts of a request's schemas that are not enforced: to the caller in a header, by tool and
// place, and in the log by keyword alone, from a closed list, because names and places are the caller's text.

import type { Call } from '../../http/route.ts';
import type { Loosening, Loosenings } from '../../grammar/compile.ts';
import { isAssertion } from '../../grammar/dialect.ts';

export const LOOSENED_HEADER = 'x-assay-loosened';
/** Characters of the whole header. */
const MAX_HEADER = 2000;

/** Must be called before the answer begins. */
export function tellLoosened({ reply, deps, exchange }: Call, loosened: Loosenings): void {
  if (loosened.size === 0) return;
  reply.header(LOOSENED_HEADER, headerOf(loosened));
  deps.log.info({ requestId: exchange.id, keywords: countsOf(loosened) }, 'schema loosened');
}

/**
 * `name#/path/keyword`, comma-separated: JSON pointers as fragments (RFC 6901, section 6). Entries beyond the
 * limit are counted: `+12`.
 */
export function headerOf(loosened: Loosenings): string {
  const entries = [...loosened].flatMap(([name, all]) => all.map((each) => `${name}#${fragmentOf(each)}`));
  let text = '';
  for (const [i, entry] of entries.entries()) {
    const next = text === '' ? entry : `${text}, ${entry}`;
    const rest = `+${entries.length - i}`;
    if (next.length + rest.length + 2 > MAX_HEADER) return text === '' ? rest : `${text}, ${rest}`;
    text = next;
  }
  return text;
}

function fragmentOf({ pointer, keyword }: Loosening): string {
  const whole = keyword === null ? pointer : `${pointer}/${keyword}`;
  // A surrogate on its own has no UTF-8.
  return whole
    .split('/')
    .map((part) => encodeURIComponent(part.replaceAll(/\p{Surrogate}/gu, '\u{fffd}')))
    .join('/');
}

/**
 * Occurrences by keyword: `size` for schemas too large or deep, `other` for words that no specification
 * knows.
 */
export function countsOf(loosened: Loosenings): Readonly<Record<string, number>> {
  const counts = new Map<string, number>();
  for (const all of loosened.values()) {
    for (const { keyword } of all) {
      const name = keyword === null || isAssertion(keyword) ? (keyword ?? 'size') : 'other';
      counts.set(name, (counts.get(name) ?? 0) + 1);
    }
  }
  return Object.fromEntries(counts);
}
