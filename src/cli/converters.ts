// The two confined processes that make a model of a folder, as the built tree has them.

import { openConverter } from '../engine/convert.ts';
import { openQuantizer } from '../engine/quantize.ts';
import type { Converters } from '../engine/seam/converters.ts';

export function converters(): Converters {
  return {
    convert: openConverter({ workerEntry: new URL('../engine/child/convert/worker.js', import.meta.url) }),
    quantize: openQuantizer({ launchEntry: new URL('../engine/child/quantize/launch.js', import.meta.url) }),
  };
}
