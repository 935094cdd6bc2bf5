// The value of an argument whose format does not write its type: text as it stands between two marks. Where
// the schema admits a string, text that is JSON of another type it admits too is that value, and all other
// text is the string; where it does not, text is JSON, or Python's writing of it, and what is neither is kept
// as a string, so that no text is lost.

import { typeOfValue, type ValueTypes } from '../../../grammar/schema-view.ts';
import { literalText, PYTHON_WORDS } from './literal-scan.ts';

const NULLS = ['null', 'None'];
const BOOLEANS = ['true', 'false', 'True', 'False'];

/** The JSON of a value, from its whole text. */
export function argumentValue(text: string, types: ValueTypes): string {
  const trimmed = text.trim();
  const json = PYTHON_WORDS.get(trimmed) ?? trimmed;
  const parsed = parsedJson(json);
  if (types.has('string')) {
    if (parsed === undefined) return JSON.stringify(text);
    const type = typeOfValue(parsed.value);
    return type !== 'string' && types.has(type) ? json : JSON.stringify(text);
  }
  return parsed === undefined ? (literalText(trimmed) ?? JSON.stringify(text)) : json;
}

/** Whether text may begin a value that is no string, where the schema admits strings too. */
export function mayBeOther(text: string, types: ValueTypes): boolean {
  const begun = text.trimStart();
  if (begun === '') return types.size > 1;
  const word = begun.trimEnd();
  const isPart = (whole: string): boolean => whole.startsWith(word);
  return (
    (types.has('null') && NULLS.some(isPart)) ||
    (types.has('boolean') && BOOLEANS.some(isPart)) ||
    (types.has('number') && /^-?\d*\.?\d*(?:[eE][+-]?\d*)?\s*$/.test(begun)) ||
    (types.has('object') && begun.startsWith('{')) ||
    (types.has('array') && begun.startsWith('['))
  );
}

function parsedJson(text: string): { readonly value: unknown } | undefined {
  try {
    return { value: JSON.parse(text) as unknown };
  } catch {
    return undefined;
  }
}
