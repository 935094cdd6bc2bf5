// The console of `api.console`: the page that the verifier's package was built with.

import { type ConsolePage, readConsolePage } from '@assay/attestation/console';
import { ConfigError } from '../base/errors.ts';

/** Throws ConfigError where the page is not there: the configuration promises it. */
export async function openConsole(): Promise<ConsolePage> {
  try {
    return await readConsolePage();
  } catch (error) {
    throw new ConfigError(
      `the console cannot be served: ${error instanceof Error ? error.message : String(error)}`,
      'api.console',
    );
  }
}
