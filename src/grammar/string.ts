// The keywords of strings: lengths, patterns and formats.

import { leaf, type CompileContext, type Site } from './compile-context.ts';
import type { Lengths } from './automaton.ts';
import { FORMATS, withoutLookaround } from './formats.ts';
import { GrammarTooLarge, repeat, type Expression } from './gbnf.ts';
import { Patterns } from './intersection.ts';
import { anyCharacter, cuts, patternExpression } from './pattern.ts';
import { PatternError } from './pattern-parser.ts';
import { refuseKeyword } from './place.ts';
import { rawString } from './raw-string.ts';
import { count, type SchemaJson } from './schema.ts';

const MAX_STRING_LENGTH = 100_000;

export function stringOf(context: CompileContext, schema: SchemaJson, site: Site): Expression {
  const { place } = site;
  const { pattern, format } = schema;
  const min = count(place, 'minLength', schema, MAX_STRING_LENGTH) ?? 0;
  const max = count(place, 'maxLength', schema, Number.MAX_SAFE_INTEGER) ?? Infinity;
  if (max < min) return refuseKeyword(place, 'maxLength', 'maxLength is under minLength');
  if (max !== Infinity && max > MAX_STRING_LENGTH)
    return refuseKeyword(place, 'maxLength', `maxLength is over the supported ${MAX_STRING_LENGTH}`);
  if (schema['contentEncoding'] !== undefined && pattern === undefined)
    return refuseKeyword(
      place,
      'contentEncoding',
      'contentEncoding is supported only beside pattern, which is what is enforced',
    );
  if (format !== undefined && typeof format !== 'string')
    return refuseKeyword(place, 'format', 'format must be a string');
  // Beside an enforced pattern, format stays an annotation, its default (2020-12, validation, section 7).
  if (pattern !== undefined) {
    if (typeof pattern !== 'string' && !(pattern instanceof Patterns))
      return refuseKeyword(place, 'pattern', 'pattern must be a string');
    const all = typeof pattern === 'string' ? [pattern] : pattern.all;
    return matching(context, all, { min, max }, () => [site, 'pattern']);
  }
  if (format !== undefined) {
    const known = FORMATS.get(format);
    if (known === undefined)
      return refuseKeyword(place, 'format', `format must be one of ${[...FORMATS.keys()].join(', ')}`);
    return matching(context, [known], { min, max }, () => [site, 'format']);
  }
  if (min === 0 && max === Infinity)
    return context.readAs(context.valuesIn(site.notation).string, leaf('string', 1));
  const { builder } = context;
  if (site.notation.strings !== null)
    return matching(context, [], { min, max }, () => [site, max === Infinity ? 'minLength' : 'maxLength']);
  return context.readAs(
    builder.rule('string', `"\\"" ${repeat(builder, anyCharacter(builder), min, max)} "\\""`),
    leaf('string', cuts(max)),
  );
}

function matching(
  context: CompileContext,
  patterns: readonly string[],
  lengths: Lengths,
  where: () => readonly [Site, string],
): Expression {
  const { builder, seen, share } = context;
  const [{ place, notation }, keyword] = where();
  const key = JSON.stringify([notation.id, patterns, lengths.min, lengths.max]);
  let found = seen.strings.get(key);
  if (found === undefined) {
    const before = seen.refused.get(key);
    if (before !== undefined) return refuseKeyword(place, keyword, before);
    const languages = patterns.map((pattern) => withoutLookaround.get(pattern) ?? pattern);
    try {
      found = builder.attempt(() => {
        if (notation.strings !== null) return rawString(builder, notation, languages, lengths);
        const { expression, width } = patternExpression(builder, languages, lengths);
        return { expression: builder.rule('string', `"\\"" ${expression} "\\""`), width };
      }, share);
    } catch (error) {
      if (!(error instanceof PatternError) && (share === 1 || !(error instanceof GrammarTooLarge)))
        throw error;
      seen.refused.set(key, `pattern: ${error.message}`);
      return refuseKeyword(place, keyword, `pattern: ${error.message}`);
    }
    seen.strings.set(key, found);
  }
  return context.readAs(found.expression, leaf('string', found.width));
}
