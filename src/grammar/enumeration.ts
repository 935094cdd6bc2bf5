// Listed values (`enum`, `const`), told apart character by character.

import type { CompileContext, Site } from './compile-context.ts';
import { leaf } from './compile-context.ts';
import type { Expression } from './gbnf.ts';
import { noted } from './notation.ts';
import { refuseEmpty } from './place.ts';
import { OPENINGS, type Opening } from './readings.ts';
import { addWord, NO_WORDS } from './words.ts';

/** `keyword`: refused when there are too many. */
export function enumerationOf(
  context: CompileContext,
  values: readonly unknown[],
  site: Site,
  keyword: string,
): Expression {
  const { builder } = context;
  const texts = values.flatMap((value) => noted(site.notation, value) ?? []);
  if (texts.length === 0)
    return refuseEmpty(site.place, keyword, 'none of the values can be written in a call of this model');
  const words = texts.reduce((all, text) => addWord(builder, all, Array.from(text), ''), NO_WORDS);
  const rule = builder.rule('enum', context.choice(words, site, keyword));
  context.list(
    rule,
    values.map((value) => JSON.stringify(value)),
  );
  const counts = new Map<Opening, number>();
  for (const value of values) counts.set(openingOf(value), (counts.get(openingOf(value)) ?? 0) + 1);
  return context.readAs(rule, {
    kind: 'any',
    of: [...counts].map(([opening, count]) => leaf(opening, count)),
  });
}

function openingOf(value: unknown): Opening {
  if (Array.isArray(value)) return 'array';
  const type = value === null ? 'word' : typeof value;
  return OPENINGS.find((each) => each === type) ?? 'word';
}
