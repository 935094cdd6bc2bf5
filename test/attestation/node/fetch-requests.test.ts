// Requests that may not be sent although the server was verified: other models, other origins, plain http.

import { createHash } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { toHex } from '../../../attestation/encoding/bytes.ts';
import { attestedFetch } from '../../../attestation/node/fetch.ts';
import {
  allowAnyModel,
  allowCertificateChannel,
  allowSimulated,
  type AppraisalPolicy,
} from '../../../attestation/appraise/policy.ts';
import {
  type Misbehaviour,
  MODEL,
  MODEL_ID,
  MODEL_SHA256,
  NOW,
  send,
  simulatedAmd,
  startAttestedServer,
} from '../../fixtures/attestation/attested-server.ts';
import { refusalOf } from '../../fixtures/refusal.ts';
import { BASE, POLICY, prompt, without, other } from '../../fixtures/attestation/refusing.ts';

describe('requests', () => {
  test.each([['https'], ['http']])(
    'a redirect to another origin (%s) is not followed [M16]',
    async (protocol) => {
      const elsewhere = await startAttestedServer();
      const server = await startAttestedServer({
        respond: (_, { socket }) =>
          send(socket, 307, '', { location: elsewhere.origin.replace('https', protocol) }),
      });
      expect(await prompt(server)).toMatchObject({ code: 'redirect_refused' });
      expect(elsewhere.connections).toHaveLength(0);
      await server.close();
      await elsewhere.close();
    },
  );

  test('a redirect within the origin is followed', async () => {
    const server = await startAttestedServer({
      respond: ({ path, body }, { socket }) =>
        path === '/b' ? send(socket, 200, body) : send(socket, 307, '', { location: '/b' }),
    });
    const fetch = attestedFetch({ policy: POLICY, now: () => NOW });
    const response = await fetch(`${server.origin}/a`, { method: 'POST', body: '{"x":1}' });
    expect(await response.text()).toBe('{"x":1}');
    await fetch.close();
    await server.close();
  });

  test.each<[string, RequestInit['body'], string]>([
    ['json text', JSON.stringify({ model: 'other' }), 'model_not_attested'],
    ['a form', form('other'), 'model_not_attested'],
    ['json naming a listed model', JSON.stringify({ model: MODEL_ID }), 'accepted'],
    ['a form naming a listed model', form(MODEL_ID), 'accepted'],
    ['json naming none', '{}', 'accepted'],
  ])('%s naming a model that is not attested is not sent', async (_, body, code) => {
    const server = await startAttestedServer({ respond: (_request, { socket }) => send(socket, 200, '') });
    const fetch = attestedFetch({ policy: POLICY, now: () => NOW });
    const refusal = await refusalOf(() => fetch(server.origin, { method: 'POST', body: body ?? null }));
    expect(refusal?.code ?? 'accepted').toBe(code);
    expect(server.requests()).toHaveLength(code === 'accepted' ? 1 : 0);
    await fetch.close();
    await server.close();
  });

  test.each<[string, string, string]>([
    ['names it', JSON.stringify({ model: MODEL_ID }), 'accepted'],
    ['names another, though the policy lists it', JSON.stringify({ model: 'other' }), 'model_not_attested'],
    ['names two', `{"model":"${MODEL_ID}","model":"other"}`, 'model_not_attested'],
    [
      'names two, one of them in escapes',
      `{"model":"${MODEL_ID}","mod\\u0065l":"other"}`,
      'model_not_attested',
    ],
    ['names it in escapes', `{"mod\\u0065l":"${MODEL_ID}"}`, 'accepted'],
    ['names one deeper', `{"x":{"model":"${MODEL_ID}"}}`, 'model_not_attested'],
    [
      'has the word elsewhere',
      JSON.stringify({ model: MODEL_ID, user: 'model', prompt: 'a "model"' }),
      'accepted',
    ],
    [
      'is long',
      JSON.stringify({ model: MODEL_ID, prompt: Array.from({ length: 20_000 }, (_, i) => i) }),
      'accepted',
    ],
    ['names none', '{}', 'model_not_attested'],
    ['is no json', 'x', 'model_not_attested'],
  ])('with one model attested by name, a request that %s', async (_, body, code) => {
    const server = await startAttestedServer({
      models: [MODEL, other],
      respond: (_request, { socket }) => send(socket, 200, ''),
    });
    const lists = { ...POLICY, models: { [MODEL_ID]: MODEL_SHA256, other: toHex(other.sha256) } };
    const fetch = attestedFetch({ policy: lists, now: () => NOW, model: MODEL_ID });
    const refusal = await refusalOf(() => fetch(server.origin, { method: 'POST', body }));
    expect(refusal?.code ?? 'accepted').toBe(code);
    expect(server.requests()).toHaveLength(code === 'accepted' ? 1 : 0);
    await fetch.close();
    await server.close();
  });

  test('the weaker forms hold what they promise when they are asked for in code', async () => {
    const certificate: Misbehaviour = {
      claims: (c) => without(c, 'exporter', 'nonce'),
      document: (d) => without(d, 'nonce'),
    };
    const server = await startAttestedServer({ ...certificate, models: [MODEL, other] });
    const weak: AppraisalPolicy = {
      ...without(POLICY, 'models'),
      [allowAnyModel]: true,
      [allowCertificateChannel]: true,
    };
    const fetch = attestedFetch({ policy: weak, now: () => NOW });
    const result = await fetch.verify(server.origin);
    expect(result.certificateAlone).toBe(true);
    expect(result.transcript.filter(({ status }) => status === 'skip').map(({ id }) => id)).toEqual(
      expect.arrayContaining(['C1', 'C3', 'C5', 'P5', 'P6']),
    );
    await fetch.close();
    await server.close();
  });

  test('allowing one simulated root accepts that root', async () => {
    const root = createHash('sha256')
      .update((await simulatedAmd()).ark)
      .digest('hex');
    const server = await startAttestedServer();
    expect(await prompt(server, { policy: { ...BASE, [allowSimulated]: { root } } })).toBeUndefined();
    await server.close();
  });
});

function form(model: string): FormData {
  const data = new FormData();
  data.set('model', model);
  data.set('file', new Blob(['abc']), 'a.wav');
  return data;
}
