// The name of a repository of a hub as an input of a job has it: `owner/name` of a model; `owner/name`,
// `owner/name:SPLIT` or `owner/name/path/file.jsonl` of a data set; each with an optional `@revision`, and
// with or without the hub's own address before it. Only the configured hub is ever asked.

import { plainPullName, NAME_PART } from '../../models/pull/name.ts';
import type { HubRepository } from '../../models/pull/hub.ts';

export interface HubName extends HubRepository {
  readonly want:
    | { readonly kind: 'default' }
    | { readonly kind: 'split'; readonly split: string }
    | { readonly kind: 'file'; readonly file: string };
}

const ADDRESS = /^(?:https?:\/\/(?:www\.)?)?(?:hf\.co|huggingface\.co)\//;
const SPLIT = /^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$/;
const MAX_NAME = 512;
/** Of parts, below the repository: as deep as a job is shown a folder. */
const MAX_FILE_PARTS = 8;

/** Undefined: the text is no such name. */
export function hubNameOf(given: string, kind: HubRepository['kind']): HubName | undefined {
  if (given.length > MAX_NAME) return undefined;
  const plain = withoutAddress(given, kind);
  if (plain === undefined) return undefined;
  const [path = '', revision = 'main', ...others] = plain.split('@');
  const [repoPath = '', split, ...more] = path.split(':');
  const parts = repoPath.split('/');
  const plainParts = [...parts, ...revision.split('/')];
  if (others.length > 0 || more.length > 0 || !plainParts.every((part) => NAME_PART.test(part)))
    return undefined;
  const [owner, name, ...file] = parts;
  if (owner === undefined || name === undefined || file.length > MAX_FILE_PARTS) return undefined;
  const at = { kind, repo: `${owner}/${name}`, revision };
  if (kind === 'model')
    return file.length > 0 || split !== undefined ? undefined : { ...at, want: { kind: 'default' } };
  if (split !== undefined)
    return file.length > 0 || !SPLIT.test(split) ? undefined : { ...at, want: { kind: 'split', split } };
  return { ...at, want: file.length > 0 ? { kind: 'file', file: file.join('/') } : { kind: 'default' } };
}

/** Pages of data sets lie below `datasets/`, on the hub and in what its own tools write. */
function withoutAddress(given: string, kind: HubRepository['kind']): string | undefined {
  const path = given.replace(ADDRESS, '');
  const ofDataset = path.startsWith('datasets/') && (path !== given || path.split('/').length > 2);
  if (ofDataset !== (kind === 'dataset') && path !== given) return undefined;
  const repo = ofDataset && kind === 'dataset' ? path.slice('datasets/'.length) : path;
  return path === given ? repo : plainPullName(`https://huggingface.co/${repo}`);
}

/** As the audit log and records write a repository. */
export function shownRepository({ kind, repo }: HubRepository): string {
  return `${kind}:${repo}`;
}
