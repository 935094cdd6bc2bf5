// The evidence to accept, and where: the flags that all judging commands share, and the policy they amount
// to. Flags that weaken a policy exist here and nowhere in a policy file.

import { ANY, boundedCount, wrong } from './options.ts';
import {
  allowAnyModel,
  allowSimulated,
  type AppraisalPolicy,
  type Dangers,
  observingPolicy,
  parsePolicy,
  type Policy,
} from '../../appraise/policy.ts';
import type { Releases } from '../../appraise/policy-references.ts';

/**
 * The address to connect to, and what to accept there; the caller, which has the file
 * system, reads the policy.
 */
export interface Target {
  readonly origin: URL;
  readonly accept: Accept;
  readonly timeoutMs: number;
  readonly cacheFolder: string | undefined;
  readonly bundleFile: string | undefined;
}

export interface Accept {
  readonly policyFile: string | undefined;
  readonly referenceFile: string | undefined;
  readonly measurements: readonly string[];
  readonly models: Readonly<Record<string, string>>;
  readonly dangers: Dangers;
  /** For policies that flags say; a file says its own. */
  readonly channel?: 'sealed' | undefined;
  /** A flag says what to accept, the simulated TEE aside. */
  readonly saysWhat: boolean;
}

/** The policy the flags and the file (its text, when one was named) amount to. */
export function policyOf(accept: Accept, fileText: string | undefined, releases?: Releases): Policy {
  const flags = accept.measurements.length > 0 || Object.keys(accept.models).length > 0;
  if (fileText !== undefined) {
    if (flags) throw wrong('--measurement and --model do not go with --policy: the file lists them');
    return parsePolicy(fileText, accept.dangers, releases);
  }
  if (accept.referenceFile !== undefined)
    throw wrong('--reference-values goes with --policy: only a policy file names releases');
  if (!flags && accept.dangers[allowAnyModel] === undefined) return observingPolicy(accept.dangers);
  const policy: AppraisalPolicy = {
    measurements: accept.measurements,
    models: Object.keys(accept.models).length === 0 ? undefined : accept.models,
    channel: accept.channel,
  };
  return parsePolicy(policy, accept.dangers);
}

interface AcceptValues {
  readonly policy?: string | undefined;
  readonly 'reference-values'?: string | undefined;
  readonly measurement?: string[] | undefined;
  readonly model?: string[] | undefined;
  readonly 'any-model'?: boolean | undefined;
  readonly 'allow-simulated'?: string | undefined;
  readonly timeout?: string | undefined;
  readonly cache?: string | undefined;
  readonly bundle?: string | undefined;
}

export function targetOf(values: AcceptValues, positionals: readonly string[], name: string): Target {
  const [address, ...more] = positionals;
  if (address === undefined) throw wrong(`${name} needs an https address`);
  if (more.length > 0) throw wrong(`${name} takes one address, found also ${more[0]}`);
  if (!URL.canParse(address))
    throw wrong(`${JSON.stringify(address)} is not an address, expected https://HOST[:PORT]`);
  const origin = new URL(address);
  if (
    !['', '/'].includes(origin.pathname) ||
    origin.search !== '' ||
    origin.hash !== '' ||
    origin.username !== '' ||
    origin.password !== ''
  ) {
    throw wrong(`${JSON.stringify(address)} is more than an origin, expected https://HOST[:PORT]`);
  }
  return {
    origin,
    accept: acceptOf(values),
    timeoutMs: boundedCount(values.timeout ?? '30', '--timeout', 3600) * 1000,
    cacheFolder: values.cache,
    bundleFile: values.bundle,
  };
}

export function acceptOf(values: AcceptValues): Accept {
  const simulated = values['allow-simulated'];
  return {
    policyFile: values.policy,
    referenceFile: values['reference-values'],
    measurements: values.measurement ?? [],
    models: Object.fromEntries((values.model ?? []).map(modelPair)),
    saysWhat: values.measurement !== undefined || values.model !== undefined || values['any-model'] === true,
    dangers: {
      [allowAnyModel]: values['any-model'] === true ? true : undefined,
      [allowSimulated]: simulated === undefined ? undefined : simulatedDanger(simulated),
    },
  };
}

function modelPair(text: string): [string, string] {
  const at = text.lastIndexOf('=');
  if (at < 1) throw wrong(`--model ${text} is not ID=SHA256`);
  return [text.slice(0, at), text.slice(at + 1)];
}

function simulatedDanger(root: string): Dangers[typeof allowSimulated] {
  return root === ANY ? true : { root };
}
