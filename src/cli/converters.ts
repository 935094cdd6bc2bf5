// The two confined processes that make a model of a folder, as the built tree has them.

import { openConverter } from '../engine/convert.ts';
import { openQuantizer } from '../engine/quantize.ts';
import type { Converters } from '../engine/seam/converters.ts';

/** Beside requests the quantiser has one thread; a command that only converts gives it every core. */
export function converters(threads = 1): Converters {
  return {
    convert: openConverter({ workerEntry: new URL('../engine/child/convert/worker.js', import.meta.url) }),
    quantize: openQuantizer({
      launchEntry: new URL('../engine/child/quantize/launch.js', import.meta.url),
      threads,
    }),
  };
}
