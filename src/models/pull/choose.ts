// Chooses the files of a repository that a name means: one, or all parts of a split model, which are one
// choice. Files beside the model with the same tag (drafts, imatrix data, adapters) are left out; a projector
// comes along. Refuses: names that are still ambiguous, with the candidates; split models of which parts are
// missing, with their names.

import { ApiError } from '../../base/errors.ts';
import { nameOfPart, namesOfParts, partOf } from '../gguf/part-name.ts';
import { chooseProjector, isProjectorName } from '../gguf/projector-name.ts';
import type { PullName } from './name.ts';

/** A file as the hub lists it. */
export interface ListedFile {
  readonly name: string;
  readonly size: number;
  /** undefined: the hub gives none. */
  readonly sha256: string | undefined;
  /** Of files the hub keeps in git itself: git's id of the bytes, SHA-1 over a header and them. */
  readonly gitId?: string | undefined;
}

const MAX_LISTED = 8;
/**
 * A name without a tag means the first of these that the repository has, where it has several models. Q4_K_M
 * as with llama.cpp's `-hf`; then what is nearest to it in size, then larger ones. Never one below four bits:
 * those lose too much to be a default.
 */
export const DEFAULT_TAGS = [
  'Q4_K_M',
  'Q4_K_S',
  'Q4_K_L',
  'Q4_K_XL',
  'IQ4_NL',
  'IQ4_XS',
  'Q4_0',
  'Q4_1',
  'MXFP4',
  'Q5_K_M',
  'Q5_K_S',
  'Q6_K',
  'Q8_0',
  'BF16',
  'F16',
  'F32',
] as const;

/** One model: its file, or its parts that are there. */
interface Choice {
  readonly name: string;
  readonly files: readonly ListedFile[];
}

/** In order. Throws 404 `hub_not_found`, 400 `ambiguous_quantization` or `unsupported_model_format`. */
export function chooseFiles(files: readonly ListedFile[], name: PullName): readonly ListedFile[] {
  const { want } = name;
  if (want.kind === 'file') {
    if (!files.some((file) => file.name === want.file))
      throw notFound(`the repository has no such file; it has ${listOf(files.map((file) => file.name))}`);
    return complete(choicesOf(files).find((model) => model.files.some((file) => file.name === want.file))!);
  }
  const models = choicesOf(files.filter((file) => !isCompanion(file, files, name.repo)));
  const found =
    want.kind === 'tag' ? models.filter((model) => hasTag(model, want.tag)) : byDefault(models, name.repo);
  // A whole file of the tag goes before the same in parts.
  const whole = found.filter((model) => partOf(model.name) === undefined);
  const [only, ...more] = whole.length > 0 ? whole : found;
  if (only === undefined)
    throw notFound(
      `the repository has no model ${want.kind === 'tag' ? 'of this quantization' : 'file'}; it has ${listOf(files.map((file) => file.name))}`,
    );
  if (more.length === 0) return complete(only);
  const candidates = [only, ...more].map((model) => `${name.repo}/${model.name}`);
  throw new ApiError(
    'ambiguous_quantization',
    `several files match: ${listOf(candidates)}; pull one of them by that name`,
    { param: 'name' },
  );
}

/** The projector that goes with the model; none where the name means one file. */
export function projectorBeside(
  files: readonly ListedFile[],
  [first]: readonly ListedFile[],
  { want }: PullName,
): ListedFile | undefined {
  if (want.kind === 'file' || first === undefined) return undefined;
  const folders = new Set(['', folderOf(first.name)]);
  return chooseProjector(
    files.filter(({ name }) => isProjectorName(baseOf(name)) && folders.has(folderOf(name))),
  );
}

function folderOf(name: string): string {
  return name.slice(0, Math.max(0, name.lastIndexOf('/')));
}

function baseOf(name: string): string {
  return name.slice(name.lastIndexOf('/') + 1);
}

function choicesOf(files: readonly ListedFile[]): readonly Choice[] {
  const choices = new Map<string, ListedFile[]>();
  for (const file of files) {
    const part = partOf(file.name);
    const name = part === undefined ? file.name : nameOfPart(part, 1);
    const parts = choices.get(name);
    if (parts === undefined) choices.set(name, [file]);
    else parts.push(file);
  }
  const numberOf = (file: ListedFile): number => partOf(file.name)?.number ?? 0;
  return [...choices].map(([name, parts]) => ({
    name,
    files: parts.toSorted((one, other) => numberOf(one) - numberOf(other)),
  }));
}

/** All its files; refused where parts are missing. */
function complete({ name, files }: Choice): readonly ListedFile[] {
  const there = new Set(files.map((file) => file.name));
  const missing = partsOf(name).filter((part) => !there.has(part));
  if (missing.length === 0) return files;
  throw new ApiError(
    'unsupported_model_format',
    `this model is split into ${partOf(name)?.count} files, ${name} and so on, of which the repository lacks ${listOf(missing)}`,
    { param: 'name' },
  );
}

function partsOf(name: string): readonly string[] {
  try {
    return namesOfParts(name);
  } catch (error) {
    const reason = error instanceof Error ? error.message : 'cannot be pulled';
    throw new ApiError('unsupported_model_format', reason, { param: 'name', cause: error });
  }
}

function byDefault(models: readonly Choice[], repo: string): readonly Choice[] {
  if (models.length <= 1) return models;
  for (const tag of DEFAULT_TAGS) {
    const tagged = models.filter((model) => hasTag(model, tag));
    if (tagged.length > 0) return tagged;
  }
  throw new ApiError(
    'ambiguous_quantization',
    `the repository has several models and none of a usual quantization (${DEFAULT_TAGS[0]}, …): ${listOf(models.map((model) => model.name))}; pull ${repo}:QUANT or ${repo}/FILE`,
    { param: 'name' },
  );
}

/**
 * The tag must stand alone in the path: Q4_K is not Q4_K_M. An underscore may stand before the whole of one,
 * as in `model_Q4_K_M`; before a part of a tag it is one of its own.
 */
function hasTag({ name }: Choice, tag: string): boolean {
  const pattern = tag.toLowerCase().replaceAll('-', '[-_.]');
  const before = /^[a-z]+\d/.test(pattern) ? '[^a-z0-9]' : '[^a-z0-9_]';
  return new RegExp(`(^|${before})${pattern}($|[^a-z0-9_])`).test(name.toLowerCase());
}

/** Words in the names of files beside a model. */
const COMPANIONS = [
  /imatrix|imat/,
  /draft|drafter/,
  /mtp|nextn/,
  /eagle\d?|medusa|assistant/,
  /lora|adapter/,
  /vocab|tokenizer/,
];

function isCompanion(file: ListedFile, files: readonly ListedFile[], repo: string): boolean {
  if (isProjectorName(file.name)) return true;
  // A word in the repository's own name, or in the names of all its models, says how they were
  // made, not what they are.
  return COMPANIONS.some(
    (word) =>
      hasWord(file.name, word) &&
      !hasWord(repo, word) &&
      files.some((other) => !isProjectorName(other.name) && !hasWord(other.name, word)),
  );
}

function hasWord(name: string, word: RegExp): boolean {
  return new RegExp(`(^|[^a-z0-9])(?:${word.source})($|[^a-z0-9])`).test(name.toLowerCase());
}

function notFound(message: string): ApiError {
  return new ApiError('hub_not_found', message, { param: 'name' });
}

function listOf(names: readonly string[]): string {
  if (names.length === 0) return 'no .gguf file';
  const more = names.length > MAX_LISTED ? ` and ${names.length - MAX_LISTED} more` : '';
  return `${names.slice(0, MAX_LISTED).join(', ')}${more}`;
}
