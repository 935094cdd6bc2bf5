// How the connecting commands judge: by the policy of flags, of a file, or of the folder they run in; with a
// source of endorsements and a memory of the versions seen.

import { join } from 'node:path';
import { AttestationError } from '../../transcript/errors.ts';
import type { Policy } from '../../appraise/policy.ts';
import { isCloudTee } from '../../protocol/document.ts';
import type { ConnectOptions } from '../connect.ts';
import { bundleStore } from '../endorsements/bundle.ts';
import { fileRollbackMemory } from '../memory-file.ts';
import { isLoopbackHost } from '../proxy/guard.ts';
import { policyOf } from './accept.ts';
import type { Command } from './arguments.ts';
import { type CliWorld, readIfThere, readReleases, readTextFile } from './world.ts';

/** Where `assay serve --demo` puts the policy of what it serves. */
export const FOUND_POLICY = '.assay/policy.json';

export type Connecting = Extract<Command, { kind: 'verify' | 'proxy' | 'seal' | 'score' }>;

export interface JudgingOptions extends Pick<ConnectOptions, 'endorsements' | 'memory' | 'vtpm'> {
  readonly policy: Policy;
  readonly close: () => Promise<void>;
}

export async function readJudgingOptions(command: Connecting, world: CliWorld): Promise<JudgingOptions> {
  const { accept, cacheFolder, bundleFile } = command;
  const text = await policyText(command, world);
  const policy = policyOf(accept, text, await readReleases(accept.referenceFile, world));
  const mode = policy.endorsements;
  if (bundleFile !== undefined && mode !== 'offline')
    throw wrongUsage('--bundle goes with a policy whose endorsements are "offline"');
  if (mode === 'offline' && bundleFile === undefined && cacheFolder === undefined)
    throw wrongUsage('the policy wants offline endorsements: give --bundle FILE or --cache DIR');
  const memory =
    cacheFolder === undefined ? undefined : await fileRollbackMemory(join(cacheFolder, 'seen.json'));
  const vtpm = await cloudVerifier(policy);
  if (mode === 'stapled') return { policy, memory, vtpm, close: () => Promise.resolve() };
  const { createEndorsements } = await import('../endorsements/endorsements.ts');
  const bundle = bundleFile === undefined ? undefined : await readTextFile(bundleFile, 'bundle', world);
  const endorsements = createEndorsements({
    offline: mode === 'offline',
    now: world.now,
    store: bundle === undefined ? undefined : bundleStore(bundle),
    cacheFolder:
      bundle !== undefined || cacheFolder === undefined ? undefined : join(cacheFolder, 'endorsements'),
    proxy: world.proxy,
  });
  return { policy, memory, vtpm, endorsements: endorsements.source, close: () => endorsements.close() };
}

/**
 * The policy file that was named; else, for an address of this machine and without flags that say
 * what to accept, the one in the folder. For other machines only a file that was named counts:
 * the folder may be anyone's.
 */
async function policyText({ accept, origin }: Connecting, world: CliWorld): Promise<string | undefined> {
  if (accept.policyFile !== undefined) return readTextFile(accept.policyFile, 'policy file', world);
  if (accept.saysWhat || !isLoopbackHost(origin.hostname)) return undefined;
  const text = await readIfThere(FOUND_POLICY, 'policy file', world);
  if (text !== undefined) world.stderr(`policy: ${FOUND_POLICY}, found in this folder\n`);
  return text;
}

/** Loaded only for a policy that takes a cloud's evidence: other evidence never needs it. */
export async function cloudVerifier(policy: Policy): Promise<ConnectOptions['vtpm']> {
  return policy.tee.some(isCloudTee) ? (await import('../../appraise/clouds.ts')).vtpm : undefined;
}

export function wrongUsage(message: string): AttestationError {
  return new AttestationError('malformed', 'wrong_usage', message, { hint: 'see assay-verify --help' });
}
