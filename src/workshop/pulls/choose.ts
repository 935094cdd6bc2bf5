// Chooses the files of a repository that a job reads: of a model its descriptions, tokenizer and safetensors,
// never pickles and never code; of a data set one file of a form that training reads. Refuses with names what
// is ambiguous, and a repository that has none of the kind.

import { ApiError } from '../../base/errors.ts';
import type { ListedFile } from '../../models/pull/choose.ts';
import type { HubName } from './name.ts';

/** Of a Hugging Face folder, where the kind of job names no others. */
const MODEL_FILES =
  /^(?:(?:config|generation_config|tokenizer|tokenizer_config|added_tokens|special_tokens_map|preprocessor_config|vocab|chat_template)\.json|tokenizer\.model|merges\.txt|vocab\.txt|chat_template\.jinja|model[\w.-]*\.safetensors(?:\.index\.json)?)$/;
/** Forms of rows, the ones that training reads. */
export const DATA_ENDINGS = ['.jsonl', '.json', '.csv', '.parquet'] as const;
const PICKLED = /\.(?:bin|pt|pth|pkl|pickle|ckpt|h5|msgpack)$/i;
/** Files that describe a data set beside it. */
const DESCRIPTIONS = /(?:^|\/)(?:dataset_infos?|state|config|metadata|package|.*\.schema)\.json$/i;
const DEFAULT_SPLIT = 'train';
/** Of a folder that is shown to a job. */
const MAX_FILES = 256;
const MAX_LISTED = 8;

/** The files a listing is asked for: more than is chosen, so that a refusal can name it. */
export function isOfInterest({ kind }: HubName, only: string | undefined): (name: string) => boolean {
  if (kind === 'dataset') return isData;
  const wanted = only === undefined ? MODEL_FILES : new RegExp(only);
  return (name) => wanted.test(name) || PICKLED.test(name);
}

function isData(name: string): boolean {
  return DATA_ENDINGS.some((ending) => name.toLowerCase().endsWith(ending)) && !DESCRIPTIONS.test(name);
}

/** In order, descriptions before weights. 400 with `field`; 404 hub_not_found. */
export function chooseInput(
  files: readonly ListedFile[],
  name: HubName,
  field: string,
): readonly ListedFile[] {
  return name.kind === 'model' ? modelFiles(files, field) : [dataFile(files, name, field)];
}

function modelFiles(files: readonly ListedFile[], param: string): readonly ListedFile[] {
  const wanted = files.filter(({ name }) => !PICKLED.test(name));
  if (!wanted.some(({ name }) => name.endsWith('.safetensors'))) {
    const pickled = files.filter(({ name }) => PICKLED.test(name)).map(({ name }) => name);
    throw new ApiError(
      'unsupported_model_format',
      pickled.length > 0
        ? `the repository has its weights as ${listOf(pickled)} alone: only safetensors are fetched`
        : 'the repository has no weights in safetensors',
      { param },
    );
  }
  if (wanted.length > MAX_FILES)
    throw new ApiError(
      'unsupported_model_format',
      `the repository has more than ${MAX_FILES} files of a model`,
      {
        param,
      },
    );
  return wanted.toSorted((a, b) => Number(isWeights(a)) - Number(isWeights(b)) || (a.name < b.name ? -1 : 1));
}

export function isWeights({ name }: Pick<ListedFile, 'name'>): boolean {
  return name.endsWith('.safetensors');
}

function dataFile(files: readonly ListedFile[], { repo, want }: HubName, param: string): ListedFile {
  const named = (list: readonly ListedFile[]): string => listOf(list.map(({ name }) => name).toSorted());
  if (want.kind === 'file') {
    const found = files.find(({ name }) => name === want.file);
    if (found !== undefined) return found;
    throw new ApiError(
      'hub_not_found',
      `the data set has no file of that name to train on; it has ${named(files)}`,
      {
        param,
      },
    );
  }
  const split = want.kind === 'split' ? want.split : DEFAULT_SPLIT;
  const ofSplit = files.filter(({ name }) => hasSplit(name, split));
  // Only a split that is asked for must be there: many data sets are one file.
  const found = ofSplit.length > 0 || want.kind === 'split' ? ofSplit : files;
  const [only, ...more] = found;
  if (only === undefined)
    throw new ApiError(
      'hub_not_found',
      want.kind === 'split'
        ? `the data set has no file of the split ${split}; it has ${named(files)}`
        : `the data set has no file of ${DATA_ENDINGS.join(', ')}`,
      { param },
    );
  if (more.length > 0)
    throw new ApiError(
      'invalid_value',
      `several files match: ${named(found)}; give one of them as ${repo}/FILE, or a split as ${repo}:SPLIT`,
      { param },
    );
  return only;
}

/** A word of its path: `train.jsonl`, `data/train-00000-of-00001.parquet`, `train/part.csv`. */
function hasSplit(name: string, split: string): boolean {
  return new RegExp(`(^|[^a-z])${split.toLowerCase()}([^a-z]|$)`).test(name.toLowerCase());
}

function listOf(names: readonly string[]): string {
  if (names.length === 0) return 'none';
  const more = names.length > MAX_LISTED ? ` and ${names.length - MAX_LISTED} more` : '';
  return `${names.slice(0, MAX_LISTED).map(shown).join(', ')}${more}`;
}

/** A name of the hub's that is fit for a message. */
function shown(name: string): string {
  return name.replaceAll(/[^\x20-\x7e]/g, '?').slice(0, 120);
}
