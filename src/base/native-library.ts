// The libraries that `make native` builds beside the packages of llama.cpp. A machine without a compiler has
// none of them: what needs one is then absent, and said to be. The server only asks whether a file is there;
// a confined child loads it, after libllama, whose libraries two of them are linked with by name.

import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export type NativeLibraryName = 'libmtmd' | 'libwhisper' | 'libwebpdecoder';

/**
 * The path of a library that was built for this platform, or undefined. `from`: below the package's folder.
 */
export function nativeLibrary(
  name: NativeLibraryName,
  from = dirname(fileURLToPath(import.meta.url)),
): string | undefined {
  const top = packageFolder(from);
  const path = join(top, 'dist/native', `${process.platform}-${process.arch}`, `${name}.so`);
  return existsSync(path) ? path : undefined;
}

/** Sources, compiled files and the bundles of the image lie at different depths below it. */
function packageFolder(from: string): string {
  const parent = dirname(from);
  return parent === from || existsSync(join(from, 'package.json')) ? from : packageFolder(parent);
}
