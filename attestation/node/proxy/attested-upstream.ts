// The upstream of the local proxy by default: a pool of attested connections.

import { parsePolicy } from '../../appraise/policy.ts';
import {
  AttestedPool,
  type AttestedFetchOptions,
  type EvidenceSeen,
  poolOptions,
  SeenPool,
} from '../pool.ts';
import type { Upstream } from './upstream.ts';

export function attestedUpstream(
  options: Omit<AttestedFetchOptions, 'model' | 'receipts'>,
  { origin, host }: URL,
): Upstream {
  const pool = new AttestedPool(origin, poolOptions(options, parsePolicy(options.policy), origin));
  return {
    whole: false,
    get result() {
      return pool.result;
    },
    attest: () => pool.attest(),
    async send({ headers, ...request }) {
      const fields = ['host', host, ...headers];
      let evidence: Parameters<EvidenceSeen>[0] = () => undefined;
      const seen = new SeenPool(pool, (shown) => (evidence = shown));
      const answer = await seen.request({ origin, ...request, headers: fields, responseHeaders: 'raw' });
      return {
        evidence: () => evidence(),
        statusCode: answer.statusCode,
        headers: answer.headers as unknown as (string | Buffer)[],
        body: answer.body,
      };
    },
    destroy: () => pool.destroy(),
  };
}
