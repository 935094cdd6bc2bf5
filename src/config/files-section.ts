// Settings of stored files and batches. They are off until a folder is named; `key` says what opens the files
// after a restart, and so what a stolen disk tells.

import { measured, oneOf, operator, path, whole } from './fields.ts';

const GI_B = 1024 * 1024 * 1024;
const MAX = Number.MAX_SAFE_INTEGER;

export const filesSection = {
  folder: measured(path('folder of /v1/files and /v1/batches; unset: both are off')),
  key: measured(
    oneOf(
      ['file', 'memory', 'hardware'],
      'where the key of stored files comes from: `file` is `files.key_file`; `memory` is made at the start and ends with the process, and the files with it; `hardware` is derived by the SEV-SNP firmware for this chip and measurement. Unset: `file`, and `memory` with a real TEE, which refuses `file`',
    ),
  ),
  key_file: measured(
    path(
      'file of the key, 64 hex digits, readable by its owner alone; made when it is missing and nothing is stored yet. Unset: `files.key` in the data folder',
    ),
  ),
  key_helper: measured(
    path('program that asks the SEV-SNP firmware for a derived key (native/snp-derived-key.c)'),
  ),
  max_file_bytes: operator(whole(1024, MAX, 'largest file', GI_B / 2)),
  max_files_per_key: operator(whole(1, 1_000_000, 'files of one key; callers without one share them', 1000)),
  max_bytes_per_key: operator(whole(1024, MAX, 'bytes of all files of one key', 10 * GI_B)),
  max_files: operator(whole(1, 10_000_000, 'files of all keys', 100_000)),
  max_bytes: operator(whole(1024, MAX, 'bytes of all files of all keys', 100 * GI_B)),
  max_batches_per_key: operator(
    whole(1, 10_000, 'batches of one key that are not over; more are answered 429 too_many_batches', 64),
  ),
  batch_concurrency: operator(
    whole(
      1,
      1024,
      'lines of batches that run or wait for a slot at once, below live requests; unset: twice `models.slots`, so that a slot is never without one',
    ),
  ),
} as const;
