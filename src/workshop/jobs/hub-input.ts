// An input that lies on a hub, as a job is shown it: files that were fetched, each compared with what it was
// then.

import { mkdir, symlink } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { ApiError } from '../../base/errors.ts';
import type { InputRef } from '../kind.ts';
import type { HubFetched, HubInputs } from '../pulls/inputs.ts';
import { shownRepository, type HubName } from '../pulls/name.ts';
import { type JobInputFiles, show, type ShowOptions, type Shown } from './shown.ts';

export interface FromHubOptions extends ShowOptions {
  readonly owner: string;
  readonly hub: Pick<HubInputs, 'fetch'>;
  /** From 0 to 1. */
  readonly onProgress: (progress: number) => void;
}

/** Codes of pulls; 502 digest_mismatch where a file is no longer what was fetched. */
export async function fromHub(name: HubName, ref: InputRef, options: FromHubOptions): Promise<JobInputFiles> {
  const { hub, owner, signal, onProgress } = options;
  const { field, only } = ref;
  const fetched = await hub.fetch({ owner, name, field, only, signal, onProgress });
  try {
    return await shownFetched(fetched, name, ref, options);
  } catch (error) {
    fetched.release();
    throw error;
  }
}

async function shownFetched(
  fetched: HubFetched,
  name: HubName,
  ref: InputRef,
  options: ShowOptions,
): Promise<JobInputFiles> {
  const isFolder = name.kind === 'model';
  const shown: Shown[] = [];
  for (const { name: file, path, sha256 } of fetched.files) {
    const each = await show(path, '', { ...ref, name: isFolder ? `${ref.name}/${file}` : ref.name }, options);
    if (each.recorded.sha256 !== sha256) {
      await fetched.forget();
      throw new ApiError(
        'digest_mismatch',
        'a file of a hub is no longer what was fetched; it was thrown away',
        {
          param: ref.field,
          status: 502,
          shouldRetry: true,
        },
      );
    }
    shown.push(each);
  }
  const of = `${shownRepository(name)}@${fetched.commit}`;
  return {
    name: ref.name,
    target: `/job/in/${ref.name}`,
    source: isFolder ? await sideBySide(fetched, ref, options) : shown[0]!.mount.source,
    mounts: shown.map(({ mount }) => mount),
    recorded: shown.map(({ recorded }) => recorded),
    origin: isFolder ? of : `${of}/${fetched.files[0]!.name}`,
    async check() {
      for (const { check } of shown) await check();
    },
    release: fetched.release,
  };
}

/** Where there is no jail that shows them under their names: links, in the job's own folder. */
async function sideBySide(
  { files }: HubFetched,
  { name }: InputRef,
  { staging }: ShowOptions,
): Promise<string> {
  const folder = join(staging, `${name}.hub`);
  for (const file of files) {
    await mkdir(resolve(folder, file.name, '..'), { recursive: true });
    await symlink(file.path, join(folder, file.name));
  }
  return folder;
}
