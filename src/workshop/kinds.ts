// Every kind of job. A new kind is a file of its own and a line here.

import { convertKind } from './gguf/convert.ts';
import { imatrixKind, inspectKind, mergeKind, mergeLoraKind, splitKind } from './gguf/file-kinds.ts';
import { quantizeKind } from './gguf/quantize.ts';
import type { JobKind } from './kind.ts';
import type { PythonEnvironment } from './python/environment.ts';
import type { Allowed } from './python/pickles.ts';
import { crossKind, litertKind, trainKind } from './python/kinds.ts';

/** By name. */
export function allKinds(
  python: PythonEnvironment,
  allowed: Allowed = { pickles: false },
): ReadonlyMap<string, JobKind> {
  const kinds = [
    quantizeKind,
    convertKind,
    inspectKind,
    splitKind,
    mergeKind,
    mergeLoraKind,
    imatrixKind,
    crossKind(python, allowed),
    litertKind(python, allowed),
    trainKind(python),
  ];
  return new Map(kinds.map((kind) => [kind.name, kind]));
}
