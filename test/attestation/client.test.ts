// The attesting client against a server that behaves: what it proves, what it sends and when.
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { allowSimulated, type AppraisalPolicy } from '../../attestation/policy.ts';
import { attestedFetch } from '../../attestation/node/fetch.ts';
import { type AttestedServer, MEASUREMENT, MODEL_ID, MODEL_SHA256, NOW, startAttestedServer } from '../fixtures/attested-server.ts';

const policy: AppraisalPolicy = {
  measurements: [{ measurement: MEASUREMENT, name: 'test build' }],
  models: { [MODEL_ID]: MODEL_SHA256 },
  [allowSimulated]: true,
};

describe('attestedFetch', () => {
  let server: AttestedServer;
  beforeAll(async () => {
    server = await startAttestedServer();
  });
  afterAll(() => server.close());

  it('verifies, then sends the request on the same connection', async () => {
    const fetch = attestedFetch({ policy, now: () => NOW });
    const response = await fetch(`${server.origin}/v1/chat/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', authorization: 'Bearer secret' },
      body: JSON.stringify({ model: MODEL_ID, messages: [{ role: 'user', content: 'hello' }] }),
    });
    expect(response.status).toBe(200);
    expect(await response.json()).toMatchObject({ choices: [{ message: { content: 'echo hello' } }] });
    expect(server.connections).toHaveLength(1);
    expect(fetch.result(server.origin)).toMatchObject({ teeType: 'simulated', measurement: MEASUREMENT, build: 'test build' });
    await fetch.close();
  });
});
