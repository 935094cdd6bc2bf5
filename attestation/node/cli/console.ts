// `assay-verify console https://HOST`: the proxy with the console, at an address that is new each time, since
// a page that had this port before may have left something for its origin. `--check URL` compares the page a
// server hands out with the one of this build: that finds drift, and no attacker: a browser can be
// handed another.

import { policyToJson, type Policy } from '../../appraise/policy.ts';
import { boundedBody } from '../../client/evidence.ts';
import { toHex } from '../../encoding/bytes.ts';
import { sha256Digest } from '../../client/asking.ts';
import { AttestationError } from '../../transcript/errors.ts';
import { readConsolePage } from '../console-page.ts';
import type { ProxyConsoleOptions } from '../proxy/console.ts';
import { sealedTransport } from '../sealed-transport.ts';
import type { Command } from './arguments.ts';
import { wrongUsage } from './judging-options.ts';
import { printable } from './printable.ts';
import { commandProxy } from './proxy.ts';
import type { CliWorld, ExitCode } from './world.ts';

type Console = Extract<Command, { kind: 'console' }>;
type Check = Extract<Command, { kind: 'console-check' }>;

const MAX_PAGE_BYTES = 4 * 1024 * 1024;

export async function commandConsole({ proxy }: Console, world: CliWorld): Promise<ExitCode> {
  const page = await readConsolePage();
  return commandProxy(proxy, world, (policy) => consoleFor(policy, page));
}

/** The page seals to a key: a policy that takes connections alone would refuse it there. */
function consoleFor(policy: Policy, page: ProxyConsoleOptions['page']): ProxyConsoleOptions {
  const says = policy.measurements.length > 0;
  if (says && policy.channel !== 'sealed')
    throw wrongUsage(
      'the policy has to say "channel": "sealed": the console seals to a key (docs/console.md)',
    );
  const written = says && !policy.danger.anyModel;
  return { page, policy: written ? JSON.stringify(policyToJson(policy), undefined, 2) : undefined };
}

/** 0: the same bytes; 10: others, or none. */
export async function commandConsoleCheck({ origin, timeoutMs }: Check, world: CliWorld): Promise<ExitCode> {
  const own = await readConsolePage();
  const transport = sealedTransport(timeoutMs);
  try {
    const response = await transport
      .fetch(`${origin.origin}/`, { redirect: 'error', signal: AbortSignal.timeout(timeoutMs) })
      .catch((error: unknown) => {
        throw new AttestationError('internal', 'connection_failed', `${origin.origin} could not be asked`, {
          cause: error,
        });
      });
    const body = response.status === 200 ? await boundedBody(response, MAX_PAGE_BYTES) : undefined;
    const served = body === undefined ? `no page (status ${response.status})` : toHex(sha256Digest(body));
    const same = served === own.sha256;
    world.stdout(
      [
        `this build   ${own.sha256}`,
        `${printable(origin.origin)}   ${served}`,
        same ? 'SAME' : 'DIFFERENT',
        '',
      ].join('\n'),
    );
    return same ? 0 : 10;
  } finally {
    await transport.close();
  }
}
