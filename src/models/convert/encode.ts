// Encodes a text with a tokenizer.json (github.com/huggingface/tokenizers): normalizer, pre-tokenizer, BPE or WordPiece, special
// tokens around it. Only for the one fixed text that pre-tokenizers.ts hashes, and only what tokenizers of byte-level BPE
// and of BERT have: anything else is refused, and a mistake in here can only end in an unknown hash.

import { Fields } from './config.ts';
import { invalidDescription } from './folder.ts';
import { isJsonList, isObject, type ModelJson, type ModelJsonObject } from './json.ts';
import { toRegExp } from './oniguruma.ts';

const FILE = 'tokenizer.json';
const MAX_STEPS = 32;

/** Token ids of `text`, with the special tokens of the post-processor. */
export function encodeCheckText(tokenizer: ModelJsonObject, text: string): readonly number[] {
  const root = new Fields(FILE, tokenizer);
  const model = root.object('model');
  if (model === undefined) throw root.wrong('model', 'is missing');
  const encodeWord = wordEncoder(model);
  const ids: number[] = [];
  for (const { text: piece, id } of splitAdded(root, text)) {
    if (id !== undefined) ids.push(id);
    else
      for (const word of preTokenize(root.object('pre_tokenizer'), [
        normalize(root.object('normalizer'), piece),
      ]))
        ids.push(...encodeWord(word));
  }
  return withSpecials(root.object('post_processor'), ids);
}

interface VocabularyPiece {
  readonly text: string;
  /** Of an added token. */
  readonly id?: number | undefined;
}

/** Added tokens are found before anything else is done to a text; the longest one that begins first. */
function splitAdded(root: Fields, text: string): readonly VocabularyPiece[] {
  const added = new Map<string, number>();
  for (const entry of root.list('added_tokens') ?? []) {
    if (!isObject(entry)) continue;
    const { content, id } = entry;
    if (typeof content === 'string' && content !== '' && typeof id === 'number') added.set(content, id);
  }
  const present = [...added.keys()]
    .filter((token) => text.includes(token))
    .toSorted((a, b) => b.length - a.length);
  const pieces: VocabularyPiece[] = [];
  let rest = 0;
  for (let at = 0; present.length > 0 && at < text.length;) {
    const token = present.find((each) => text.startsWith(each, at));
    if (token === undefined) {
      at += 1;
      continue;
    }
    if (at > rest) pieces.push({ text: text.slice(rest, at) });
    pieces.push({ text: token, id: added.get(token) });
    at += token.length;
    rest = at;
  }
  if (rest < text.length) pieces.push({ text: text.slice(rest) });
  return pieces;
}

function steps(owner: Fields, name: string): readonly Fields[] {
  const list = owner.list(name) ?? [];
  if (list.length > MAX_STEPS) throw owner.wrong(name, `has more than ${MAX_STEPS} steps`);
  return list.map((each, i) => {
    if (!isObject(each)) throw owner.wrong(name, `[${i}] is not an object`);
    return new Fields(FILE, each, `${name}[${i}].`);
  });
}

function unknown(step: Fields, what: string): Error {
  return step.wrong('type', `is a ${what} that is not known here`);
}

function normalize(step: Fields | undefined, text: string): string {
  if (step === undefined) return text;
  const type = step.string('type');
  switch (type) {
    case 'Sequence':
      return steps(step, 'normalizers').reduce((each, next) => normalize(next, each), text);
    case 'NFC':
    case 'NFD':
    case 'NFKC':
    case 'NFKD':
      return text.normalize(type);
    case 'Lowercase':
      return text.toLowerCase();
    case 'StripAccents':
      return text.replaceAll(/\p{Mn}/gu, '');
    case 'BertNormalizer':
      return normalizeForBert(step, text);
    default:
      throw unknown(step, 'normalizer');
  }
}

const IDEOGRAPH =
  /[\u{4e00}-\u{9fff}\u{3400}-\u{4dbf}\u{20000}-\u{2a6df}\u{2a700}-\u{2b81f}\u{2b920}-\u{2ceaf}\u{f900}-\u{faff}\u{2f800}-\u{2fa1f}]/gu;

function normalizeForBert(step: Fields, text: string): string {
  const lowercase = step.boolean('lowercase') ?? true;
  let out = text;
  if (step.boolean('clean_text') ?? true)
    out = out
      .replaceAll(/[\t\n\r]/g, ' ')
      .replaceAll(/[\0\ufffd\p{C}]/gu, '')
      .replaceAll(/\s/g, ' ');
  if (step.boolean('handle_chinese_chars') ?? true) out = out.replaceAll(IDEOGRAPH, ' $& ');
  if (step.boolean('strip_accents') ?? lowercase) out = out.normalize('NFD').replaceAll(/\p{Mn}/gu, '');
  return lowercase ? out.toLowerCase() : out;
}

function preTokenize(step: Fields | undefined, words: readonly string[]): readonly string[] {
  if (step === undefined) return words;
  switch (step.string('type')) {
    case 'Sequence':
      return steps(step, 'pretokenizers').reduce((each, next) => preTokenize(next, each), words);
    case 'Split':
      return words.flatMap((word) => splitBy(step, word));
    case 'ByteLevel':
      return words.flatMap((word) => byteLevel(step, word));
    case 'Digits': {
      const digits = step.boolean('individual_digits') === true ? /\p{Nd}|\p{Nl}|\p{No}/gu : /\p{N}+/gu;
      return words.flatMap((word) => cut(word, digits).map(({ text }) => text));
    }
    case 'BertPreTokenizer':
      return words
        .flatMap((word) => word.split(/\s+/u))
        .flatMap((word) => cut(word, /[!-/:-@[-`{-~\p{P}]/gu).map(({ text }) => text));
    default:
      throw unknown(step, 'pre-tokenizer');
  }
}

/** The matches and the text between them, in order, without empty pieces. */
function cut(text: string, pattern: RegExp): readonly { readonly text: string; readonly matched: boolean }[] {
  const pieces: { text: string; matched: boolean }[] = [];
  let at = 0;
  for (const match of text.matchAll(pattern)) {
    if (match[0] === '') continue;
    if (match.index > at) pieces.push({ text: text.slice(at, match.index), matched: false });
    pieces.push({ text: match[0], matched: true });
    at = match.index + match[0].length;
  }
  if (at < text.length) pieces.push({ text: text.slice(at), matched: false });
  return pieces;
}

function splitBy(step: Fields, word: string): readonly string[] {
  const pattern = step.object('pattern');
  const regex = pattern?.string('Regex');
  const literal = pattern?.string('String');
  if (pattern === undefined || (regex === undefined) === (literal === undefined))
    throw step.wrong('pattern', 'is neither a Regex nor a String');
  const compiled =
    regex === undefined
      ? new RegExp((literal ?? '').replaceAll(/[\\^$.*+?()[\]{}|/-]/g, String.raw`\$&`), 'gu')
      : toRegExp(regex);
  if (compiled === undefined) throw pattern.wrong('Regex', 'is not one that can be read');
  const inverted = step.boolean('invert') === true;
  const pieces = cut(word, compiled).map(({ text, matched }) => ({ text, matched: matched !== inverted }));
  switch (step.string('behavior')) {
    case 'Isolated':
      return pieces.map(({ text }) => text);
    case 'Removed':
      return pieces.filter(({ matched }) => !matched).map(({ text }) => text);
    case 'MergedWithPrevious':
      return joined(pieces, (piece, before) => piece.matched && before?.matched === false);
    case 'MergedWithNext':
      return joined(pieces, (piece, before) => !piece.matched && before?.matched === true);
    case 'Contiguous':
      return joined(pieces, (piece, before) => piece.matched === before?.matched);
    default:
      throw step.wrong('behavior', 'is not one that is known here');
  }
}

interface CutPiece {
  readonly text: string;
  readonly matched: boolean;
}

function joined(
  pieces: readonly CutPiece[],
  joins: (piece: CutPiece, before: CutPiece | undefined) => boolean,
): readonly string[] {
  const words: string[] = [];
  for (const [i, piece] of pieces.entries())
    if (joins(piece, pieces[i - 1])) words.push(`${words.pop() ?? ''}${piece.text}`);
    else words.push(piece.text);
  return words;
}

/** GPT-2's own pattern, of tokenizers that name none. */
const GPT2 = /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+/gu;

function byteLevel(step: Fields, word: string): readonly string[] {
  const spaced = step.boolean('add_prefix_space') === true && !word.startsWith(' ') ? ` ${word}` : word;
  const words = step.boolean('use_regex') === false ? [spaced] : cut(spaced, GPT2).map(({ text }) => text);
  return words.map((each) => Array.from(Buffer.from(each), (byte) => BYTE_CHARACTERS[byte]!).join(''));
}

/** Printable characters stand for themselves, the other bytes for those from U+0100 on. */
const BYTE_CHARACTERS: readonly string[] = (() => {
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => {
    const printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    return String.fromCodePoint(printable ? byte : next++);
  });
})();

/** `vocab` is not copied: it has a hundred thousand keys. */
function wordEncoder(model: Fields): (word: string) => readonly number[] {
  const vocabulary = model.value('vocab');
  if (!isObject(vocabulary)) throw model.wrong('vocab', 'is not an object');
  const idOf = (token: string): number | undefined => {
    const id = Object.hasOwn(vocabulary, token) ? vocabulary[token] : undefined;
    return typeof id === 'number' ? id : undefined;
  };
  const type = model.string('type');
  if (type === 'WordPiece') return wordPieces(model, idOf);
  if (type === 'BPE') return bytePairs(model, idOf);
  throw model.wrong('type', 'is neither BPE nor WordPiece');
}

function wordPieces(
  model: Fields,
  idOf: (token: string) => number | undefined,
): (word: string) => readonly number[] {
  const prefix = model.string('continuing_subword_prefix') ?? '##';
  const longest = model.optionalInteger('max_input_chars_per_word', 1000) ?? 100;
  const unknownId = idOf(model.string('unk_token') ?? '[UNK]');
  if (unknownId === undefined) throw model.wrong('unk_token', 'is not in vocab');
  return (word) => {
    const characters = Array.from(word);
    if (characters.length > longest) return [unknownId];
    const ids: number[] = [];
    for (let start = 0; start < characters.length;) {
      let end = characters.length;
      let id: number | undefined;
      for (; end > start; end--) {
        id = idOf(`${start > 0 ? prefix : ''}${characters.slice(start, end).join('')}`);
        if (id !== undefined) break;
      }
      if (id === undefined) return [unknownId];
      ids.push(id);
      start = end;
    }
    return ids;
  };
}

/** Merges that can occur in a word of this length are looked up; the words of the check text are short. */
function bytePairs(
  model: Fields,
  idOf: (token: string) => number | undefined,
): (word: string) => readonly number[] {
  for (const name of ['continuing_subword_prefix', 'end_of_word_suffix'])
    if ((model.string(name) ?? '') !== '') throw model.wrong(name, 'is not supported');
  if (model.boolean('byte_fallback') === true)
    throw model.wrong('byte_fallback', 'is true, so tokenizer.model is needed');
  if (model.value('dropout') !== undefined && model.value('dropout') !== 0)
    throw model.wrong('dropout', 'is set');
  const ranks = new Map<string, number>();
  for (const [rank, merge] of (model.list('merges') ?? []).entries()) ranks.set(pairOf(model, merge), rank);
  const whole = model.boolean('ignore_merges') === true;
  return (word) => {
    const known = whole ? idOf(word) : undefined;
    if (known !== undefined) return [known];
    const parts = Array.from(word);
    for (;;) {
      let best = Infinity;
      let at = -1;
      for (let i = 0; i + 1 < parts.length; i++) {
        const rank = ranks.get(`${parts[i]} ${parts[i + 1]}`) ?? Infinity;
        if (rank < best) [best, at] = [rank, i];
      }
      if (at < 0) break;
      parts.splice(at, 2, `${parts[at]}${parts[at + 1]}`);
    }
    return parts.map((part) => {
      const id = idOf(part);
      if (id === undefined) throw model.wrong('vocab', 'has no token for a byte or a merge');
      return id;
    });
  };
}

function pairOf(model: Fields, merge: ModelJson): string {
  if (typeof merge === 'string') return merge;
  if (isJsonList(merge) && merge.length === 2 && typeof merge[0] === 'string' && typeof merge[1] === 'string')
    return `${merge[0]} ${merge[1]}`;
  throw model.wrong('merges', 'has an element that is neither a text nor a pair of texts');
}

function withSpecials(step: Fields | undefined, ids: readonly number[]): readonly number[] {
  if (step === undefined) return ids;
  switch (step.string('type')) {
    case 'Sequence':
      return steps(step, 'processors').reduce((each, next) => withSpecials(next, each), ids);
    case 'ByteLevel':
      return ids;
    case 'BertProcessing':
    case 'RobertaProcessing':
      return [endOf(step, 'cls'), ...ids, endOf(step, 'sep')];
    case 'TemplateProcessing':
      return fromTemplate(step, ids);
    default:
      throw unknown(step, 'post-processor');
  }
}

function endOf(step: Fields, name: string): number {
  const id = step.list(name)?.[1];
  if (typeof id !== 'number') throw step.wrong(name, 'is not a token with its id');
  return id;
}

function fromTemplate(step: Fields, ids: readonly number[]): readonly number[] {
  const specials = step.object('special_tokens');
  return (step.list('single') ?? []).flatMap((part) => {
    if (!isObject(part)) throw step.wrong('single', 'has an element that is not an object');
    if (isObject(part['Sequence'])) return ids;
    const special = part['SpecialToken'];
    const id = isObject(special) ? special['id'] : undefined;
    const entry = typeof id === 'string' ? specials?.object(id)?.list('ids') : undefined;
    if (entry === undefined) throw step.wrong('special_tokens', 'lacks a token of single');
    return entry.map((each) => {
      if (typeof each !== 'number')
        throw invalidDescription(FILE, 'special_tokens has an id that is not a number');
      return each;
    });
  });
}
