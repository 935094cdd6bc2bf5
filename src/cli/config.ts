// `assay config check|show`: checks a configuration, and prints the effective one. Secrets
// are shown as their SHA-256.

import { CONFIG_OPTIONS, loadConfig, parseArguments, UsageError } from './arguments.ts';
import { apiKeys, configDigest, effectiveConfig } from '../config/read.ts';

export async function configCommand(args: readonly string[]): Promise<number> {
  const { values, positionals } = parseArguments(
    args,
    { ...CONFIG_OPTIONS, json: { type: 'boolean' } },
    true,
  );
  const [action, ...more] = positionals;
  if ((action !== 'check' && action !== 'show') || more.length > 0)
    throw new UsageError('usage: assay config check|show [--config FILE] [--operator-config FILE]');
  const config = loadConfig(values);
  const keys = apiKeys(config);
  const digest = Buffer.from(configDigest(config)).toString('hex');
  if (action === 'show') {
    process.stdout.write(`${JSON.stringify({ digest, config: effectiveConfig(config) }, null, 2)}\n`);
    return 0;
  }
  process.stdout.write(
    `configuration is valid: ${config.modelEntries.size} models, ${keys.length} keys, tee ${config.tee.mode}\ndigest (claim 5): ${digest}\n`,
  );
  return 0;
}
