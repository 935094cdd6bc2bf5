// Listed values (`enum`, `const`), told apart character by character.

import type { Context, Site } from './context.ts';
import { leaf } from './context.ts';
import type { Expression } from './gbnf.ts';
import { KINDS, type Kind } from './readings.ts';
import { addWord, NO_WORDS } from './words.ts';

/** `keyword`: refused when there are too many. */
export function enumerationOf(
  context: Context,
  values: readonly unknown[],
  site: Site,
  keyword: string,
): Expression {
  const { builder } = context;
  const texts = values.map((value) => JSON.stringify(value));
  const words = texts.reduce((all, text) => addWord(builder, all, Array.from(text), ''), NO_WORDS);
  const rule = builder.rule('enum', context.choice(words, site, keyword));
  context.list(rule, texts);
  const counts = new Map<Kind, number>();
  for (const value of values) counts.set(kindOf(value), (counts.get(kindOf(value)) ?? 0) + 1);
  return context.readAs(rule, { is: 'any', of: [...counts].map(([kind, count]) => leaf(kind, count)) });
}

function kindOf(value: unknown): Kind {
  if (Array.isArray(value)) return 'array';
  const kind = value === null ? 'word' : typeof value;
  return KINDS.find((each) => each === kind) ?? 'word';
}
