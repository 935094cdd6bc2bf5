// The parts of a pull's name: `owner/repo`, `owner/repo:QUANT` or `owner/repo/path/file.gguf`, each with an
// optional `@revision`, and with or without the hub's own address before it; or the address of a page of the
// hub, which becomes such a name. Only characters without a meaning in a URL path; no `..`. Without a
// revision it takes the hub's `main`, pinned to its commit. The quantization `latest` is the default one, as
// without.

import { ApiError } from '../../base/errors.ts';
import { parseModelName } from '../store/names.ts';

export interface PullName {
  /** As given, an address as `plainPullName` has it; the model's id afterwards. */
  readonly name: string;
  /** `owner/repo` */
  readonly repo: string;
  readonly revision: string;
  readonly want:
    | { readonly kind: 'tag'; readonly tag: string }
    | { readonly kind: 'file'; readonly file: string }
    /** The repository's only model, or the one of the default quantization. */
    | { readonly kind: 'default' };
}

/** As model pages give it for other programs. It names no address: the configured hub is asked. */
const HUB_PREFIX = /^(?:hf\.co|huggingface\.co)\//;

const HUB_URL = /^https?:\/\/(?:www\.)?(?:hf\.co|huggingface\.co)\//;
/** Words of the hub between a repository and a revision. */
const OF_A_PAGE = new Set(['tree', 'blob', 'resolve', 'raw']);
/** Where other tools write a quantization this is the repository's own choice. */
const ANY_TAG = 'latest';

/** One part of a name that is given, of characters without a meaning in an address. */
export const NAME_PART = /^[A-Za-z0-9][A-Za-z0-9._+-]{0,95}$/;

/**
 * The name that the address of a repository, a file or a revision on the hub means; other texts as they are.
 * It names no hub: the configured one is asked.
 */
export function plainPullName(given: string): string {
  if (!HUB_URL.test(given)) return given;
  const path = given
    .replace(HUB_URL, '')
    .replace(/[?#].*$/s, '')
    .replace(/\/+$/, '');
  const [owner = '', repo = '', page = '', revision, ...file] = path.split('/');
  if (revision === undefined || !OF_A_PAGE.has(page)) return path;
  const name = [owner, repo, ...file].join('/');
  return revision === 'main' ? name : `${name}@${revision}`;
}

/** Throws 400 `invalid_model_name`. */
export function parsePullName(given: string): PullName {
  const name = parseModelName(plainPullName(given));
  const [path = '', revision, ...more] = splitOnce(name, '@');
  if (
    revision !== undefined &&
    (more.length > 0 || !revision.split('/').every((part) => NAME_PART.test(part)))
  )
    throw refuse('has no usable revision after "@"');
  const [repoPath = '', quantization] = splitOnce(path.replace(HUB_PREFIX, ''), ':');
  const parts = repoPath.split('/');
  if (!parts.every((part) => NAME_PART.test(part))) throw refuse('has a part that is no plain name');
  const [owner, repo, ...file] = parts;
  if (owner === undefined || repo === undefined) throw refuse('needs an owner and a repository');
  const at = { name, repo: `${owner}/${repo}`, revision: revision ?? 'main' };
  if (quantization !== undefined) {
    if (file.length > 0) throw refuse('names a file and a quantization');
    if (!/^[A-Za-z0-9][A-Za-z0-9_-]{0,31}$/.test(quantization))
      throw refuse('has no usable quantization after ":"');
    if (quantization === ANY_TAG) return { ...at, want: { kind: 'default' } };
    return { ...at, want: { kind: 'tag', tag: quantization } };
  }
  if (file.length === 0) return { ...at, want: { kind: 'default' } };
  if (!repoPath.toLowerCase().endsWith('.gguf')) throw refuse('names no .gguf file');
  return { ...at, want: { kind: 'file', file: file.join('/') } };
}

function refuse(why: string): ApiError {
  return new ApiError(
    'invalid_model_name',
    `name ${why}; expected owner/repo, owner/repo:QUANT or owner/repo/file.gguf, with an optional @revision`,
    {
      param: 'name',
    },
  );
}

function splitOnce(text: string, separator: string): readonly string[] {
  const at = text.indexOf(separator);
  return at < 0 ? [text] : [text.slice(0, at), text.slice(at + 1)];
}
