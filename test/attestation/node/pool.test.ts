// The pool of attested connections: bounded, closed for good; no request goes to a model that was not
// attested, none that was given up is sent.

import { describe, expect, onTestFinished, test } from 'vitest';
import { AttestedPool, poolOptions } from '../../../attestation/node/pool.ts';
import { parsePolicy } from '../../../attestation/appraise/policy.ts';
import { POLICY, useAttestedClients } from '../../fixtures/attestation/attested-client.ts';
import { MODEL_ID, NOW } from '../../fixtures/attestation/attested-server.ts';
import { refusalOf } from '../../fixtures/refusal.ts';

const { serve, client } = useAttestedClients();

describe('the pool', () => {
  test('requests that undici refuses before they are sent take no connection away', async () => {
    const { origin } = await serve();
    const fetch = client({ connections: 1 });
    await expect(
      fetch(origin, { method: 'POST', body: 'x', headers: { expect: '100-continue' } }),
    ).rejects.toThrow('fetch failed');
    const answer = await fetch(origin, {
      method: 'POST',
      body: JSON.stringify({ model: MODEL_ID, messages: [{ content: 'hi' }] }),
    });
    expect(answer.status).toBe(200);
    await answer.text();
  });

  test('a form that names two models is not one for the model that was attested', async () => {
    const server = await serve();
    const fetch = client({ model: MODEL_ID });
    const form = new FormData();
    form.append('model', MODEL_ID);
    form.append('model', 'other');
    expect((await refusalOf(() => fetch(server.origin, { method: 'POST', body: form })))?.code).toBe(
      'model_not_attested',
    );
    expect(server.requests()).toHaveLength(0);
  });

  test('is bounded, and closed for good', async () => {
    const { origin } = await serve();
    const pool = new AttestedPool(origin, {
      ...poolOptions({ policy: POLICY, now: () => NOW }, parsePolicy(POLICY), origin),
      connections: 1,
      maxQueued: 2,
    });
    onTestFinished(() => pool.destroy());
    const ask = async (): Promise<number> =>
      (await pool.request({ origin, path: '/', method: 'POST', body: '{}' })).statusCode;
    const asked = await Promise.allSettled([ask(), ask(), ask(), ask()]);
    expect(asked.map(({ status }) => status)).toEqual(['fulfilled', 'fulfilled', 'rejected', 'rejected']);
    await pool.close();
    await expect(ask()).rejects.toThrow('closed');
  });

  test('requests that were given up while they waited are never sent', async () => {
    const server = await serve();
    const { origin } = server;
    const fetch = client({ connections: 1 });
    const stop = AbortSignal.abort();
    const given = await Promise.allSettled(
      Array.from({ length: 20 }, () => fetch(origin, { method: 'POST', body: '{}', signal: stop })),
    );
    expect(given.every(({ status }) => status === 'rejected')).toBe(true);
    const late = new AbortController();
    const waiting = Array.from({ length: 20 }, () =>
      fetch(origin, { method: 'POST', body: '{}', signal: late.signal }),
    );
    late.abort();
    await Promise.allSettled(waiting);
    const answer = await fetch(origin, {
      method: 'POST',
      body: JSON.stringify({ model: MODEL_ID, messages: [{ content: 'hi' }] }),
    });
    expect(answer.status).toBe(200);
    await answer.text();
    expect(server.requests().length).toBe(1);
  });
});
