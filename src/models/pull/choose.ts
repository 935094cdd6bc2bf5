// Chooses the file of a repository that a name means. Files beside the model with the same tag (projectors, drafts, imatrix
// data, adapters) are left out. Refuses: names that are still ambiguous, with the candidates; models split into several files,
// with the parts present and missing.

import { ApiError } from '../../base/errors.ts';
import type { PullName } from './name.ts';

/** A .gguf file as the hub lists it. */
export interface ListedFile {
  readonly name: string;
  readonly size: number;
  /** undefined: the hub gives none. */
  readonly sha256: string | undefined;
}

const MAX_LISTED = 8;
/** A name without a tag means this one where a repository has several, as with llama.cpp's `-hf`. */
const DEFAULT_TAG = 'Q4_K_M';

/** Throws 404 `hub_not_found`, 400 `ambiguous_quantization` or `unsupported_model_format`. */
export function chooseFile(files: readonly ListedFile[], name: PullName): ListedFile {
  const { want } = name;
  if (want.kind === 'file') {
    const found = files.find((file) => file.name === want.file);
    if (found === undefined)
      throw notFound(`the repository has no such file; it has ${listOf(files.map((file) => file.name))}`);
    if (partOf(found.name) !== undefined) throw splitModel([found], files);
    return found;
  }
  const models = files.filter((file) => !isCompanion(file, files, name.repo));
  const found =
    want.kind === 'tag' ? models.filter((file) => hasTag(file, want.tag)) : byDefault(models, name.repo);
  const whole = found.filter((file) => partOf(file.name) === undefined);
  if (whole.length === 1) return whole[0]!;
  if (whole.length > 1) {
    const candidates = whole.map((file) => `${name.repo}/${file.name}`);
    throw new ApiError(
      'ambiguous_quantization',
      `several files match: ${listOf(candidates)}; pull one of them by that name`,
      { param: 'name' },
    );
  }
  if (found.length > 0) throw splitModel(found, files);
  throw notFound(
    `the repository has no model ${want.kind === 'tag' ? 'of this quantization' : 'file'}; it has ${listOf(files.map((file) => file.name))}`,
  );
}

function byDefault(models: readonly ListedFile[], repo: string): readonly ListedFile[] {
  if (modelCount(models) <= 1) return models;
  const tagged = models.filter((file) => hasTag(file, DEFAULT_TAG));
  if (tagged.length > 0) return tagged;
  throw new ApiError(
    'ambiguous_quantization',
    `the repository has several models and none of the default quantization ${DEFAULT_TAG}: ${listOf(models.map((file) => file.name))}; pull ${repo}:QUANT or ${repo}/FILE`,
    { param: 'name' },
  );
}

/** The tag must stand alone in the path: Q4_K is not Q4_K_M. */
function hasTag(file: ListedFile, tag: string): boolean {
  const pattern = tag.toLowerCase().replaceAll('-', '[-_.]');
  return new RegExp(`(^|[^a-z0-9_])${pattern}($|[^a-z0-9_])`).test(file.name.toLowerCase());
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
const PROJECTOR = /mmproj|projector|vision[-_.]?(?:tower|encoder)/;

function isCompanion(file: ListedFile, files: readonly ListedFile[], repo: string): boolean {
  if (hasWord(file.name, PROJECTOR)) return true;
  // A word in the repository's own name, or in the names of all its models, says how they were made, not what they are.
  return COMPANIONS.some(
    (word) =>
      hasWord(file.name, word) &&
      !hasWord(repo, word) &&
      files.some((other) => !hasWord(other.name, PROJECTOR) && !hasWord(other.name, word)),
  );
}

function hasWord(name: string, word: RegExp): boolean {
  return new RegExp(`(^|[^a-z0-9])(?:${word.source})($|[^a-z0-9])`).test(name.toLowerCase());
}

interface SplitPart {
  readonly stem: string;
  readonly number: number;
  readonly count: number;
}

function partOf(name: string): SplitPart | undefined {
  const match = /^(.*)-(\d{5})-of-(\d{5})\.gguf$/i.exec(name);
  return match === null
    ? undefined
    : { stem: match[1] ?? '', number: Number(match[2]), count: Number(match[3]) };
}

/** All parts of a split model are one model. */
function modelCount(files: readonly ListedFile[]): number {
  return new Set(files.map(({ name }) => partOf(name)?.stem ?? name)).size;
}

function splitModel(found: readonly ListedFile[], files: readonly ListedFile[]): ApiError {
  const { name } = found[0]!;
  const { stem, count } = partOf(name)!;
  const there = new Set(
    files.flatMap((file) => {
      const part = partOf(file.name);
      return part !== undefined && part.stem === stem && part.count === count ? [part.number] : [];
    }),
  );
  const missing: string[] = [];
  for (let number = 1; number <= count && missing.length <= MAX_LISTED; number++)
    if (!there.has(number)) missing.push(partName(stem, number, count));
  const lacks = missing.length === 0 ? '' : `, of which it lacks ${listOf(missing)}`;
  return new ApiError(
    'unsupported_model_format',
    `this model is split into ${count} files, ${partName(stem, 1, count)} and so on${lacks}; split models cannot be pulled: ` +
      'pull a file that holds the whole model, or merge the parts (llama-gguf-split --merge) and register the result',
    { param: 'name' },
  );
}

function partName(stem: string, number: number, count: number): string {
  return `${stem}-${String(number).padStart(5, '0')}-of-${String(count).padStart(5, '0')}.gguf`;
}

function notFound(message: string): ApiError {
  return new ApiError('hub_not_found', message, { param: 'name' });
}

function listOf(names: readonly string[]): string {
  if (names.length === 0) return 'no .gguf file';
  const more = names.length > MAX_LISTED ? ` and ${names.length - MAX_LISTED} more` : '';
  return `${names.slice(0, MAX_LISTED).join(', ')}${more}`;
}
