// `assay api-key add NAME`: makes a key for a caller. It is printed once and not stored: the
// configuration takes its digest.

import { createHash, randomBytes } from 'node:crypto';
import { keyNameProblem } from '../config/forms.ts';
import { quoted } from '../config/keys.ts';
import { parseArguments, UsageError } from './arguments.ts';
import { synopsisOf } from './help.ts';

export function apiKeyCommand(args: readonly string[]): Promise<number> {
  const { values, positionals } = parseArguments(
    args,
    { admin: { type: 'boolean' }, json: { type: 'boolean' } },
    true,
  );
  const [action, name, ...more] = positionals;
  if (action !== 'add' || name === undefined || more.length > 0)
    throw new UsageError(synopsisOf('api-key', 'add'));
  const problem = keyNameProblem(name);
  if (problem !== undefined) throw new UsageError(`api-key add ${JSON.stringify(name)}: ${problem}`);
  // 256 bits; the prefix lets scanners of repositories find a key that was committed by mistake.
  const key = `sk-assay-${randomBytes(32).toString('base64url')}`;
  const sha256 = createHash('sha256').update(key).digest('hex');
  const admin = values['admin'] === true;
  if (values['json'] === true) {
    process.stdout.write(`${JSON.stringify({ name, key, sha256, admin })}\n`);
    return Promise.resolve(0);
  }
  process.stdout.write(
    [
      `key of ${name}, shown this once: ${key}`,
      '',
      'In the configuration, which holds its digest alone:',
      `[api.keys.${quoted(name)}]`,
      `sha256 = "${sha256}"`,
      ...(admin ? ['admin = true'] : []),
      '',
    ].join('\n'),
  );
  return Promise.resolve(0);
}
