// Rendered text → tokens: control tokens where the template wrote them, plain text between, and the places of
// images.

import type { SpecialToken } from '../llama/vocabulary.ts';
import type { Disguise } from './disguise.ts';
import { hasImageWord, splitAtImages } from './images.ts';

export interface TemplateVocabulary {
  readonly specials: readonly SpecialToken[];
  readonly bos: number | null;
  readonly eos: number | null;
  readonly addBos: boolean;
  /** Plain text: no control token is ever matched. */
  tokenize(text: string): readonly number[];
}

/** Of rendered text with so many images. */
export type Tokenize = (rendered: string, images: number) => number[];

export function tokenizerOf(vocabulary: TemplateVocabulary, disguise: Disguise): Tokenize {
  const { bos, addBos } = vocabulary;
  const control = vocabulary.specials.filter((special) => special.control);
  const find = finder(control.map((special) => special.text));
  const byText = new Map(control.map((special) => [special.text, special]));
  const hasWord = hasImageWord(control);
  const pushText = (tokens: number[], rendered: string): void => {
    const push = (segment: string): void => {
      if (segment !== '') for (const token of vocabulary.tokenize(disguise.off(segment))) tokens.push(token);
    };
    let rest = rendered;
    for (;;) {
      const found = find(rest);
      const special = found === null ? undefined : byText.get(found.text);
      if (found === null || special === undefined) break;
      const before = rest.slice(0, found.at);
      push(special.lstrip ? before.trimEnd() : before);
      tokens.push(special.token);
      rest = rest.slice(found.at + found.text.length);
      if (special.rstrip) rest = rest.trimStart();
    }
    push(rest);
  };
  return (rendered, images) => {
    const tokens: number[] = [];
    for (const part of splitAtImages(rendered, images, hasWord)) {
      if (typeof part === 'number') tokens.push(-1 - part);
      else pushText(tokens, part);
    }
    if (addBos && bos !== null && tokens[0] !== bos) tokens.unshift(bos);
    return tokens;
  };
}

type Finder = (text: string) => { readonly at: number; readonly text: string } | null;

/** Finds the first, and there the longest, of some texts. */
function finder(texts: readonly string[]): Finder {
  if (texts.length === 0) return () => null;
  const escaped = [...texts]
    .sort((a, b) => b.length - a.length)
    .map((text) => text.replace(/[.*+?^${}()|[\]\\/]/g, '\\$&'));
  const pattern = new RegExp(escaped.join('|'), 'u');
  return (text) => {
    const found = pattern.exec(text);
    return found === null ? null : { at: found.index, text: found[0] };
  };
}
