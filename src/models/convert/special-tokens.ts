// The part that gguf.SpecialVocab of the official converter takes from tokenizer.json, tokenizer_config.json, config.json and the files of chat
// templates, by the same rules and in the same order: ids of special tokens, whether they are added around a text, the merges, the
// chat template, and what the normalizer does to letters.

import { Fields } from './config.ts';
import { invalidDescription, type Folder } from './folder.ts';
import {
  isJsonList,
  isObject,
  readJson,
  readTextMember,
  SMALL_JSON,
  type ModelJson,
  type ModelJsonObject,
} from './json.ts';
import type { Metadata } from './plan.ts';

const TOKENIZER = 'tokenizer.json';
const TOKENIZER_CONFIG = 'tokenizer_config.json';
const MAX_TEMPLATE_BYTES = 1024 * 1024;

/** Spelt as llama.cpp does, `seperator` too. There is no key for `cls`. */
const ID_KEYS: Readonly<Record<string, string>> = {
  bos: 'bos',
  eos: 'eos',
  unk: 'unknown',
  sep: 'seperator',
  pad: 'padding',
  mask: 'mask',
  eot: 'eot',
  eom: 'eom',
};
const ADD_KEYS = new Set(['bos', 'eos', 'sep']);

export interface SpecialOptions {
  readonly folder: Folder;
  /** tokenizer.json, where the folder has one. */
  readonly tokenizer: ModelJsonObject | undefined;
  /** config.json */
  readonly config: Fields;
  readonly withMerges: boolean;
  readonly vocabulary: number | undefined;
}

export function addSpecialTokens(metadata: Metadata, options: SpecialOptions): void {
  const found = new SpecialTokens(options.folder, options);
  found.addTo(metadata);
}

class SpecialTokens {
  readonly #folder: Folder;
  readonly #options: SpecialOptions;
  readonly #ids = new Map<string, number>();
  readonly #adds = new Map<string, boolean>();
  #kinds = ['bos', 'eos', 'unk', 'sep', 'pad', 'cls', 'mask'];
  #template: ModelJson | undefined;
  #lowercase: boolean | undefined;
  #stripAccents: boolean | undefined;

  constructor(folder: Folder, options: SpecialOptions) {
    this.#folder = folder;
    this.#options = options;
    this.#readTokenizer();
    for (const kind of this.#kinds) this.#setId(kind, options.config.value(`${kind}_token_id`));
  }

  addTo(metadata: Metadata): void {
    const { tokenizer, withMerges } = this.#options;
    if (withMerges) {
      const merges = mergesOf(this.#folder, tokenizer);
      if (merges.length > 0) metadata.set('tokenizer.ggml.merges', { strings: merges });
    }
    for (const [kind, id] of this.#ids) {
      const key = ID_KEYS[kind];
      if (key !== undefined) metadata.set(`tokenizer.ggml.${key}_token_id`, { u32: id });
    }
    for (const [kind, add] of this.#adds)
      if (ADD_KEYS.has(kind)) metadata.set(`tokenizer.ggml.add_${kind}_token`, { bool: add });
    addTemplate(metadata, this.#template);
    if (this.#lowercase !== undefined)
      metadata.set('tokenizer.ggml.normalizer.lowercase', { bool: this.#lowercase });
    if (this.#stripAccents !== undefined)
      metadata.set('tokenizer.ggml.normalizer.strip_accents', { bool: this.#stripAccents });
  }

  #setId(kind: string, id: ModelJson | undefined): void {
    if (typeof id !== 'number' || !Number.isInteger(id)) return;
    if (id < 0 || id > 0xffffffff) throw invalidDescription('config.json', `${kind}_token_id is ${id}`);
    const { vocabulary } = this.#options;
    if ((vocabulary === undefined || id < vocabulary) && !this.#ids.has(kind)) this.#ids.set(kind, id);
  }

  #readTokenizer(): void {
    const { tokenizer } = this.#options;
    if (tokenizer !== undefined) this.#readNormalizer(new Fields(TOKENIZER, tokenizer).object('normalizer'));
    const config = readJson(this.#folder, TOKENIZER_CONFIG);
    const names = new Map<string, ModelJson>(Object.entries(config ?? {}));
    if (tokenizer !== undefined)
      this.#readPostProcessor(new Fields(TOKENIZER, tokenizer), names, config !== undefined);
    if (config === undefined) return;
    this.#template = this.#findTemplate(names);
    const added = tokenizer === undefined ? undefined : tokenizer['added_tokens'];
    for (const kind of this.#kinds) {
      const add = names.get(`add_${kind}_token`);
      if (typeof add === 'boolean') this.#adds.set(kind, add);
      const entry = names.get(`${kind}_token`);
      const content = isObject(entry) ? entry['content'] : entry;
      if (typeof content !== 'string' || !isJsonList(added)) continue;
      const token = added.find((each) => isObject(each) && each['content'] === content);
      this.#setId(kind, isObject(token) ? token['id'] : undefined);
    }
  }

  #readNormalizer(normalizer: Fields | undefined): void {
    const type = normalizer?.string('type');
    if (normalizer === undefined || type === undefined) return;
    if (type === 'Lowercase') this.#lowercase = true;
    else if (type === 'StripAccents') this.#stripAccents = true;
    else if (type === 'BertNormalizer') {
      this.#lowercase = normalizer.boolean('lowercase') ?? this.#lowercase;
      this.#stripAccents = normalizer.boolean('strip_accents') ?? this.#stripAccents;
    } else if (type === 'Sequence')
      for (const each of normalizer.list('normalizers') ?? [])
        if (isObject(each)) this.#readNormalizer(new Fields(TOKENIZER, each, 'normalizer.'));
  }

  /** `names` are the fields of tokenizer_config.json, into which this writes what the post-processor shows. */
  #readPostProcessor(root: Fields, names: Map<string, ModelJson>, configured: boolean): void {
    const special: Specials = {
      bos: tokenOf(names.get('bos_token')),
      cls: tokenOf(names.get('cls_token')),
      eos: tokenOf(names.get('eos_token')),
      sep: tokenOf(names.get('sep_token')),
    };
    if (special.bos === undefined && special.cls !== undefined && configured) {
      special.bos = special.cls;
      names.set('bos_token', special.cls);
    }
    if (special.eos === undefined && special.sep !== undefined && configured) {
      special.eos = special.sep;
      names.set('eos_token', special.sep);
    }
    const processor = root.object('post_processor');
    if (processor === undefined) return;
    const value = processor.list('processors');
    const all = value === undefined ? [root.value('post_processor')] : value;
    for (const each of all) {
      if (!isObject(each)) continue;
      if (each['type'] === 'RobertaProcessing') this.#readRoberta(each, names, special);
      else if (each['type'] === 'TemplateProcessing')
        this.#readTemplate(each, { names, special, configured });
    }
  }

  #readRoberta(step: ModelJsonObject, names: Map<string, ModelJson>, special: Specials): void {
    for (const kind of ['bos', 'eos', 'sep']) this.#adds.set(kind, true);
    const first = (value: ModelJson | undefined, otherwise: Token): Token =>
      tokenOf(isJsonList(value) ? value[0] : otherwise);
    if (special.cls === undefined) special.cls = setName(names, 'cls_token', first(step['cls'], special.bos));
    if (special.sep === undefined) special.sep = setName(names, 'sep_token', first(step['sep'], special.eos));
  }

  #readTemplate(step: ModelJsonObject, reading: Reading): void {
    const { names, special, configured } = reading;
    const single = isJsonList(step['single']) ? step['single'] : [];
    const pair = isJsonList(step['pair']) ? step['pair'] : [];
    const first = single.length > 1 ? specialOf(single[0]) : undefined;
    const last = single.length > 1 ? specialOf(single.at(-1)) : undefined;
    if (first !== undefined) {
      if (!configured) special.bos = first;
      else if (first !== special.bos && first !== special.cls) {
        if (special.bos === undefined) special.bos = setName(names, 'bos_token', first);
        if (special.cls === undefined) special.cls = setName(names, 'cls_token', first);
      }
      this.#adds.set('bos', first === special.bos || first === special.cls);
    }
    if (last !== undefined) {
      if (!configured) special.eos = last;
      else if (last !== special.eos) {
        const spare = ['eot', 'eom'].find((kind) => !this.#kinds.includes(kind));
        if (spare !== undefined) {
          this.#kinds = [...this.#kinds, spare];
          if (special.eos !== undefined) names.set(`${spare}_token`, special.eos);
        }
        special.eos = setName(names, 'eos_token', last);
      }
      this.#adds.set('eos', last === special.eos);
    }
    this.#readPair(pair, { first, last }, reading);
  }

  /** `A [sep] [eos] B`: whether a separator is added between two texts. */
  #readPair(
    pair: readonly ModelJson[],
    { first, last }: { readonly first: string | undefined; readonly last: string | undefined },
    { names, special, configured }: Reading,
  ): void {
    if (pair.length === 0) return;
    const start = first !== undefined && specialOf(pair[0]) === first ? 1 : 0;
    const stop = last !== undefined && specialOf(pair.at(-1)) === last ? -1 : undefined;
    const inner = pair.slice(start, stop);
    if (sequenceOf(inner[0]) !== 'A' || sequenceOf(inner.at(-1)) !== 'B') return;
    const between = inner.slice(1, -1);
    if (between.length === 0) return;
    const separates = (part: ModelJson | undefined): boolean => {
      const token = specialOf(part);
      return token !== undefined && (token === special.sep || token === special.eos);
    };
    const add =
      (separates(between[0]) && last === undefined) || (between.length === 2 && separates(between[1]));
    this.#adds.set('sep', add);
    if (add && special.sep === undefined && configured) setName(names, 'sep_token', special.eos);
  }

  #findTemplate(names: ReadonlyMap<string, ModelJson>): ModelJson | undefined {
    const own = names.get('chat_template');
    if (own !== undefined) return own ?? undefined;
    const file = readTextMember(this.#folder, 'chat_template.jinja', MAX_TEMPLATE_BYTES);
    if (file !== undefined) return file;
    const json = readJson(this.#folder, 'chat_template.json', SMALL_JSON);
    return json === undefined ? undefined : (json['chat_template'] ?? undefined);
  }
}

/** The four names of tokenizer_config.json as they are by now. */
interface Specials {
  bos: Token;
  cls: Token;
  eos: Token;
  sep: Token;
}

type Token = string | ModelJsonObject | undefined;

interface Reading {
  readonly names: Map<string, ModelJson>;
  readonly special: Specials;
  readonly configured: boolean;
}

/** A token is a text or described by an object, which then equals no text: so the official rules compare. */
function tokenOf(value: ModelJson | undefined): Token {
  return isObject(value) || (typeof value === 'string' && value !== '') ? value : undefined;
}

function setName<T extends Token>(names: Map<string, ModelJson>, name: string, value: T): T {
  if (value !== undefined) names.set(name, value);
  return value;
}

function specialOf(part: ModelJson | undefined): string | undefined {
  const special = isObject(part) ? part['SpecialToken'] : undefined;
  const id = isObject(special) ? special['id'] : undefined;
  return typeof id === 'string' && id !== '' ? id : undefined;
}

function sequenceOf(part: ModelJson | undefined): ModelJson | undefined {
  const sequence = isObject(part) ? part['Sequence'] : undefined;
  return isObject(sequence) ? sequence['id'] : undefined;
}

/** A text, or a list of named ones: `default` is the model's, the others stand beside it. */
function addTemplate(metadata: Metadata, template: ModelJson | undefined): void {
  if (typeof template === 'string' && template !== '')
    metadata.set('tokenizer.chat_template', { string: template });
  if (!isJsonList(template)) return;
  const names: string[] = [];
  let standard: string | undefined;
  for (const each of template) {
    if (!isObject(each) || typeof each['name'] !== 'string' || typeof each['template'] !== 'string') continue;
    const name = each['name'].replaceAll(/[^a-zA-Z0-9]/g, '_');
    if (name === 'default') standard = each['template'];
    else if (name !== '' && each['template'] !== '') {
      names.push(name);
      metadata.set(`tokenizer.chat_template.${name}`, { string: each['template'] });
    }
  }
  // The official converter writes them in the order of a hash table, which differs from run to run.
  if (names.length > 0) metadata.set('tokenizer.chat_templates', { strings: [...new Set(names)] });
  if (standard !== undefined && standard !== '')
    metadata.set('tokenizer.chat_template', { string: standard });
}

/** Of tokenizer.json, else of merges.txt. Pairs become texts, in which a space of a token is written as byte-level BPE does. */
function mergesOf(folder: Folder, tokenizer: ModelJsonObject | undefined): readonly string[] {
  const model = tokenizer === undefined ? undefined : new Fields(TOKENIZER, tokenizer).object('model');
  const merges = model?.list('merges') ?? [];
  if (merges.length === 0) return mergesOfText(readTextMember(folder, 'merges.txt', 64 * 1024 * 1024) ?? '');
  return merges.map((merge, i) => {
    if (typeof merge === 'string') return merge;
    if (
      isJsonList(merge) &&
      merge.length === 2 &&
      typeof merge[0] === 'string' &&
      typeof merge[1] === 'string'
    )
      return `${merge[0].replaceAll(' ', 'Ġ')} ${merge[1].replaceAll(' ', 'Ġ')}`;
    throw invalidDescription(TOKENIZER, `model.merges[${i}] is neither a text nor a pair of texts`);
  });
}

function mergesOfText(text: string): readonly string[] {
  const lines = text.split('\n').map((line) => line.trim());
  if (lines[0]?.startsWith('#') === true) lines.shift();
  return lines
    .map((line) => line.split(/\s+/))
    .flatMap((parts) => (parts.length === 2 ? [parts.join(' ')] : []));
}
