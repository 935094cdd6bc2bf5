// The vocabulary of a model as GGUF has it, of what the folder describes it with: `tokenizer.model` (SentencePiece), or byte-level BPE
// or WordPiece of `tokenizer.json`. After `set_vocab` of the official converter for each architecture.

import { Fields } from './config.ts';
import { encodeCheckText } from './encode.ts';
import { invalidDescription, unsupportedModel, type Folder } from './folder.ts';
import { isObject, readJson, readWhole, TOKENIZER_JSON, type ModelJsonObject } from './json.ts';
import type { Metadata } from './plan.ts';
import { CHECK_TEXT, preTokenizerOf } from './pre-tokenizers.ts';
import { readPieces } from './sentencepiece.ts';
import { addSpecialTokens } from './special-tokens.ts';

const TOKENIZER = 'tokenizer.json';
const TOKENIZER_CONFIG = 'tokenizer_config.json';
const MODEL = 'tokenizer.model';
const MAX_MODEL_BYTES = 64 * 1024 * 1024;

/** Token types of GGUF. */
const [NORMAL, CONTROL, USER_DEFINED, UNUSED] = [1, 3, 4, 5];

export type TokenRules = 'llama' | 'qwen' | 'gemma3' | 'phi3' | 'wordpiece';

export interface TokenInput {
  readonly folder: Folder;
  readonly config: Fields;
  readonly metadata: Metadata;
  /** Rows of the embedding. */
  readonly vocabulary: number;
  readonly rules: TokenRules;
  readonly tokenTypes: number;
}

export function addTokens(input: TokenInput): void {
  const { folder, metadata, rules } = input;
  const tokenizer = readJson(folder, TOKENIZER, TOKENIZER_JSON);
  if (rules === 'wordpiece') return addWordPieces(input, tokenizer);
  const settings = new Fields(TOKENIZER_CONFIG, readJson(folder, TOKENIZER_CONFIG) ?? {});
  if (rules === 'llama') {
    const spaced = settings.boolean('add_prefix_space');
    if (spaced !== undefined) metadata.set('tokenizer.ggml.add_space_prefix', { bool: spaced });
  }
  const byPieces =
    folder.has(MODEL) && !(rules === 'phi3' && settings.string('tokenizer_class') === 'GPT2Tokenizer');
  if (byPieces) addPieces(input, tokenizer);
  else if (rules === 'gemma3' || (rules === 'phi3' && settings.string('tokenizer_class') !== 'GPT2Tokenizer'))
    throw invalidDescription(MODEL, 'the folder has no such file, which this architecture needs');
  else addBytePairs(input, tokenizer);
  if (rules === 'gemma3') metadata.set('tokenizer.ggml.add_space_prefix', { bool: false });
  if (rules !== 'llama') return;
  // CodeLlama, and the small Granite and SmolLM models, are known by the size of their vocabulary.
  if (input.vocabulary === 32_016) metadata.set('tokenizer.ggml.eot_token_id', { u32: 32_010 });
  if (input.vocabulary === 49_152) metadata.set('tokenizer.ggml.add_bos_token', { bool: false });
}

interface Token {
  readonly text: string;
  readonly type: number;
}

function addBytePairs(input: TokenInput, tokenizer: ModelJsonObject | undefined): void {
  const { folder, metadata, config } = input;
  if (tokenizer === undefined) throw invalidDescription(TOKENIZER, `the folder has neither it nor ${MODEL}`);
  const model = new Fields(TOKENIZER, tokenizer).object('model');
  if (model?.string('type') !== 'BPE') throw invalidDescription(TOKENIZER, 'model.type is not BPE');
  if (model.boolean('byte_fallback') === true)
    throw invalidDescription(
      MODEL,
      `the folder has no such file, which model.byte_fallback of ${TOKENIZER} needs`,
    );
  const tokens = readVocabulary(input, tokenizer);
  metadata.set('tokenizer.ggml.model', { string: 'gpt2' });
  metadata.set('tokenizer.ggml.pre', { string: preTokenizer(tokenizer) });
  setTokens(metadata, tokens);
  addSpecialTokens(metadata, { folder, tokenizer, config, withMerges: true, vocabulary: undefined });
}

function addWordPieces(input: TokenInput, tokenizer: ModelJsonObject | undefined): void {
  const { folder, metadata, config } = input;
  if (tokenizer === undefined) throw invalidDescription(TOKENIZER, 'the folder has no such file');
  const type = new Fields(TOKENIZER, tokenizer).object('model')?.string('type');
  if (type !== 'WordPiece') throw invalidDescription(TOKENIZER, 'model.type is not WordPiece');
  const tokens = readVocabulary(input, tokenizer);
  metadata.set('tokenizer.ggml.token_type_count', { u32: input.tokenTypes });
  metadata.set('tokenizer.ggml.model', { string: 'bert' });
  metadata.set('tokenizer.ggml.pre', { string: preTokenizer(tokenizer) });
  // llama.cpp marks the beginning of a word, WordPiece its continuation.
  const marked = tokens.map((token) => {
    if (token.type === CONTROL) return token;
    return { ...token, text: token.text.startsWith('##') ? token.text.slice(2) : `\u2581${token.text}` };
  });
  setTokens(metadata, marked);
  addSpecialTokens(metadata, { folder, tokenizer, config, withMerges: false, vocabulary: tokens.length });
}

function preTokenizer(tokenizer: ModelJsonObject): string {
  const name = preTokenizerOf(encodeCheckText(tokenizer, CHECK_TEXT));
  if (name === undefined)
    throw unsupportedModel(
      `${TOKENIZER}: llama.cpp knows no pre-tokenizer that makes these tokens of the check text`,
    );
  return name;
}

/** Token of every id below the size of the vocabulary; ids without a name are unused. */
function readVocabulary({ folder, vocabulary }: TokenInput, tokenizer: ModelJsonObject): readonly Token[] {
  const root = new Fields(TOKENIZER, tokenizer);
  const own = root.object('model')?.value('vocab');
  if (!isObject(own)) throw root.wrong('model.vocab', 'is not an object');
  const tokens = Array.from<Token | undefined>({ length: vocabulary });
  const ids = new Map<string, number>();
  const put = (text: string, id: unknown, type: number, where: string): void => {
    if (typeof id !== 'number' || !Number.isInteger(id) || id < 0)
      throw invalidDescription(TOKENIZER, `${where} has an id that is no whole number`);
    if (id >= vocabulary)
      throw invalidDescription(
        TOKENIZER,
        `${where} has the id ${id}, vocab_size of config.json is ${vocabulary}`,
      );
    if ((ids.get(text) ?? id) !== id || (tokens[id] !== undefined && !ids.has(text)))
      throw invalidDescription(
        TOKENIZER,
        `${where} has two tokens for an id, or two ids for a token (${id})`,
      );
    ids.set(text, id);
    tokens[id] = { text, type };
  };
  for (const [text, id] of Object.entries(own)) put(text, id, NORMAL, 'model.vocab');
  const named = namedTokens(folder);
  // The tokenizers library numbers tokens that the vocabulary lacks by itself, whatever the file says.
  let next = ids.size;
  for (const [i, entry] of (root.list('added_tokens') ?? []).entries()) {
    const content = isObject(entry) ? entry['content'] : undefined;
    if (!isObject(entry) || typeof content !== 'string')
      throw invalidDescription(TOKENIZER, `added_tokens[${i}].content is no text`);
    if (!ids.has(content) && entry['id'] !== next++)
      throw invalidDescription(
        TOKENIZER,
        `added_tokens[${i}].id is not the next one after those of model.vocab`,
      );
    const special = entry['special'] === true || named.has(content) || looksSpecial(content);
    put(content, entry['id'], special ? CONTROL : USER_DEFINED, 'added_tokens');
    if (!special)
      tokens[Number(entry['id'])] = { text: content.replaceAll('\u2581', ' '), type: USER_DEFINED };
  }
  return Array.from(tokens, (token, id) => token ?? { text: `[PAD${id}]`, type: UNUSED });
}

/** A token that tokenizer_config.json names as special is special, whatever tokenizer.json says of it. */
function namedTokens(folder: Folder): ReadonlySet<string> {
  const settings = readJson(folder, TOKENIZER_CONFIG) ?? {};
  const named = new Set<string>();
  for (const kind of ['bos', 'eos', 'unk', 'sep', 'pad', 'cls', 'mask']) {
    const entry = settings[`${kind}_token`];
    const content = isObject(entry) ? entry['content'] : entry;
    if (typeof content === 'string') named.add(content);
  }
  return named;
}

/** Some models forget to say that a token is special (does_token_look_special of the official converter). */
function looksSpecial(token: string): boolean {
  return (
    ['<pad>', '<mask>', '<2mass>', '[@BOS@]'].includes(token) ||
    (token.startsWith('<|') && token.endsWith('|>')) ||
    (token.startsWith('<｜') && token.endsWith('｜>')) ||
    (token.startsWith('<unused') && token.endsWith('>'))
  );
}

interface ScoredToken {
  text: string;
  type: number;
  score: number;
}

function addPieces(input: TokenInput, tokenizer: ModelJsonObject | undefined): void {
  const { folder, metadata, config, vocabulary, rules } = input;
  const pieces = readPieces(MODEL, readWhole(folder, MODEL, MAX_MODEL_BYTES) ?? new Uint8Array());
  const tokens = Array.from({ length: vocabulary }, (_, id): ScoredToken => {
    const piece = pieces[id];
    if (piece === undefined) return { text: `[PAD${id}]`, type: UNUSED, score: -10_000 };
    // The official converter takes a user-defined piece as a normal one.
    return { text: piece.text, type: piece.kind === USER_DEFINED ? NORMAL : piece.kind, score: piece.score };
  });
  const put = (where: string, id: unknown, token: Omit<ScoredToken, 'score'>): void => {
    if (typeof id !== 'number' || !Number.isInteger(id) || id < 0)
      throw invalidDescription(where, 'an added token has an id that is no whole number');
    if (id < vocabulary) tokens[id] = { ...token, score: -1000 };
  };
  for (const [text, id] of Object.entries(readJson(folder, 'added_tokens.json') ?? {}))
    put('added_tokens.json', id, { text, type: USER_DEFINED });
  const settings = new Fields(TOKENIZER_CONFIG, readJson(folder, TOKENIZER_CONFIG) ?? {});
  const added = settings.value('added_tokens_decoder') ?? {};
  if (!isObject(added)) throw settings.wrong('added_tokens_decoder', 'is not an object');
  const describe = (where: string, id: number, entry: unknown): void => {
    const token = isAdded(entry) ? entry : undefined;
    if (token === undefined) throw invalidDescription(where, 'an added token has no content that is a text');
    const looks = rules !== 'phi3' && looksSpecial(token.content);
    const special = token.special === true || looks;
    const text = special || rules === 'phi3' ? token.content : token.content.replaceAll('\u2581', ' ');
    put(where, id, { text, type: special ? CONTROL : USER_DEFINED });
  };
  for (const [id, entry] of Object.entries(added)) describe(TOKENIZER_CONFIG, Number(id), entry);
  if (rules === 'phi3' && tokenizer !== undefined)
    for (const entry of new Fields(TOKENIZER, tokenizer).list('added_tokens') ?? [])
      describe(TOKENIZER, isObject(entry) ? Number(entry['id']) : NaN, entry);
  metadata.set('tokenizer.ggml.model', { string: 'llama' });
  metadata.set('tokenizer.ggml.pre', { string: 'default' });
  metadata.set('tokenizer.ggml.tokens', { strings: tokens.map(({ text }) => text) });
  metadata.set('tokenizer.ggml.scores', { f32s: tokens.map(({ score }) => score) });
  metadata.set('tokenizer.ggml.token_type', { i32s: tokens.map(({ type }) => type) });
  addSpecialTokens(metadata, { folder, tokenizer, config, withMerges: false, vocabulary: tokens.length });
}

function isAdded(value: unknown): value is { readonly content: string; readonly special?: unknown } {
  return (
    typeof value === 'object' && value !== null && 'content' in value && typeof value.content === 'string'
  );
}

function setTokens(metadata: Metadata, tokens: readonly Token[]): void {
  metadata.set('tokenizer.ggml.tokens', { strings: tokens.map(({ text }) => text) });
  metadata.set('tokenizer.ggml.token_type', { i32s: tokens.map(({ type }) => type) });
}
