// The attesting client’s connections: every socket of the pool is proven by itself ([M15] [M16]),
// kept, renewed and given up.

import { describe, expect, test } from 'vitest';
import { toBase64, toHex } from '../../../attestation/encoding/bytes.ts';
import { attestedModel } from '../../../attestation/protocol/model.ts';
import { attestedFetch } from '../../../attestation/node/fetch.ts';
import { createSimulatedAmd } from '../../../attestation/simulated/amd.ts';
import { parseReport } from '../../../attestation/snp/report.ts';
import {
  chat,
  type Misbehaviour,
  MODEL,
  MODEL_ID,
  MODEL_SHA256,
  NOW,
  send,
  simulatedAmd,
  startAttestedServer,
  tlsIdentity,
} from '../../fixtures/attestation/attested-server.ts';
import { deferred } from '../../fixtures/deferred.ts';
import { refusalOf } from '../../fixtures/refusal.ts';
import { POLICY, say, ask, useAttestedClients } from '../../fixtures/attestation/attested-client.ts';

const { serve, client } = useAttestedClients();

describe('connections', () => {
  test('a kept-alive connection is attested once and used again [M15]', async () => {
    const server = await serve();
    const fetch = client();
    for (const word of ['a', 'b', 'c']) expect(await ask(fetch, server, word)).toBe(`echo ${word}`);
    expect(server.connections.map(({ attested, requests }) => [attested, requests.length])).toEqual([[1, 4]]);
  });

  test('50 parallel requests: every socket is attested before its first request [M15] [M16]', async () => {
    const server = await serve();
    const results: unknown[] = [];
    const fetch = client({ connections: 16, onResult: (result) => results.push(result) });
    const answers = await Promise.all(Array.from({ length: 50 }, (_, i) => ask(fetch, server, String(i))));
    expect(answers).toEqual(Array.from({ length: 50 }, (_, i) => `echo ${i}`));
    expect(server.connections.length).toBeGreaterThan(1);
    expect(server.connections.length).toBeLessThanOrEqual(16);
    expect(results).toHaveLength(server.connections.length);
    for (const { received, attested } of server.connections) {
      expect(received.startsWith('GET /v1/attestation?')).toBe(true);
      expect(attested).toBe(1);
    }
    expect(server.requests()).toHaveLength(50);
    expect(new Set(server.connections.map(({ received }) => received.slice(0, 100))).size).toBe(
      server.connections.length,
    );
  });

  test('server restarts mid-run with a new key and genuine evidence: attested again, then used [M16]', async () => {
    const before = await startAttestedServer();
    const fetch = client();
    expect(await ask(fetch, before, 'a')).toBe('echo a');
    const firstKey = fetch.result(before.origin)?.tlsSpki;
    await before.close();
    const after = await serve({}, before.port);
    expect(await ask(fetch, after, 'b')).toBe('echo b');
    expect(after.connections.map(({ attested }) => attested)).toEqual([1]);
    expect(fetch.result(after.origin)?.tlsSpki).not.toBe(firstKey);
  });

  test('server restarts mid-run as an impostor: blocked, and resumed when the genuine one is back [M16]', async () => {
    const genuine = await tlsIdentity();
    const before = await startAttestedServer({ identity: genuine });
    const fetch = client();
    expect(await ask(fetch, before, 'a')).toBe('echo a');
    await before.close();
    const impostor = await startAttestedServer(
      { claims: (c) => ({ ...c, tlsSpki: new Uint8Array(32).fill(1) }) },
      before.port,
    );
    const refusal = await refusalOf(() =>
      fetch(`${impostor.origin}/v1/chat/completions`, {
        method: 'POST',
        body: JSON.stringify(say('secret')),
      }),
    );
    expect(refusal?.code).toBe('tls_key_mismatch');
    expect(impostor.requests()).toHaveLength(0);
    await impostor.close();
    const after = await serve({ identity: genuine }, before.port);
    expect(await ask(fetch, after, 'b')).toBe('echo b');
  });

  test('50 parallel requests while the server is replaced: none reaches the impostor', async () => {
    const before = await startAttestedServer();
    const fetch = client({ connections: 8 });
    const wave = Array.from({ length: 25 }, (_, i) => ask(fetch, before, String(i)));
    await Promise.all(wave);
    await before.close();
    const impostor = await serve({ report: { measurement: new Uint8Array(48).fill(3) } }, before.port);
    const second = await Promise.allSettled(
      Array.from({ length: 25 }, (_, i) => ask(fetch, impostor, String(i))),
    );
    expect(second.every(({ status }) => status === 'rejected')).toBe(true);
    expect(impostor.requests()).toHaveLength(0);
    expect(impostor.connections.length).toBeGreaterThan(0);
  });

  test('evidence older than maxEvidenceAge is renewed before the next request, on another connection [M16]', async () => {
    const server = await serve();
    let now = NOW;
    const fetch = client({ policy: { ...POLICY, maxEvidenceAge: 60 }, now: () => now });
    await ask(fetch, server, 'a');
    now += 59_999;
    await ask(fetch, server, 'b');
    expect(server.connections).toHaveLength(1);
    now += 1;
    await ask(fetch, server, 'c');
    expect(server.connections.map(({ attested, requests }) => [attested, requests.length])).toEqual([[1, 3], [1, 2]]); // prettier-ignore
    expect(fetch.result(server.origin)?.verifiedAt).toBe(now);
  });

  test('a clock that was set back renews too', async () => {
    const server = await serve();
    let now = NOW;
    const fetch = client({ now: () => now });
    await ask(fetch, server, 'a');
    now -= 1;
    await ask(fetch, server, 'b');
    expect(server.connections).toHaveLength(2);
  });

  test('a stream that outlives its evidence is read to its end; the next request is on a new connection', async () => {
    let now = NOW;
    const release = deferred();
    const server = await serve({
      respond: async (request, connection) => {
        connection.socket.write('HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n');
        if (request.path === '/slow') await release.promise;
        connection.socket.write('3\r\ntwo\r\n0\r\n\r\n');
      },
    });
    const fetch = client({ now: () => now });
    const slow = await fetch(`${server.origin}/slow`);
    now += 4_000_000;
    expect(await (await fetch(`${server.origin}/fast`)).text()).toBe('onetwo');
    release.resolve();
    expect(await slow.text()).toBe('onetwo');
    expect(server.connections).toHaveLength(2);
    expect(await (await fetch(`${server.origin}/again`)).text()).toBe('onetwo');
    expect(server.connections).toHaveLength(2);
  });

  test('more requests than connections wait their turn', async () => {
    const server = await serve();
    const fetch = client({ connections: 1 });
    expect(await Promise.all(['a', 'b', 'c'].map((word) => ask(fetch, server, word)))).toEqual([
      'echo a',
      'echo b',
      'echo c',
    ]);
    expect(server.connections).toHaveLength(1);
  });

  test('a request aborted while its connection is being attested is not sent', async () => {
    const arrived = deferred();
    const release = deferred();
    const server = await serve({
      attestation: async ({ socket }, json) => {
        arrived.resolve();
        await release.promise;
        send(socket, 200, await json());
      },
    });
    const fetch = client();
    const abort = new AbortController();
    const pending = fetch(`${server.origin}/x`, { signal: abort.signal }).catch((error: unknown) => error);
    await arrived.promise;
    abort.abort();
    expect(await pending).toMatchObject({ name: 'AbortError' });
    release.resolve();
    expect(await (await fetch(`${server.origin}/y`, { method: 'POST', body: '{}' })).json()).toMatchObject({
      object: 'chat.completion',
    });
    expect(server.requests().map(({ path }) => path)).toEqual(['/y']);
  });

  test('takes a Request, a URL or a text, and what init says wins', async () => {
    const server = await serve({
      respond: ({ method, headers, body }, { socket }) =>
        send(socket, 200, JSON.stringify([method, headers.get('x-a'), body])),
    });
    const fetch = client();
    const request = new Request(`${server.origin}/v1/x`, {
      method: 'PUT',
      headers: { 'x-a': '1' },
      body: 'one',
    });
    expect(await (await fetch(request)).json()).toEqual(['PUT', '1', 'one']);
    const again = new Request(`${server.origin}/v1/x`, { method: 'PUT', headers: { 'x-a': '1' } });
    expect(await (await fetch(again, { method: 'POST', body: 'two' })).json()).toEqual(['POST', '1', 'two']);
    expect(await (await fetch(new URL(`${server.origin}/v1/x`), { headers: { 'x-a': '2' } })).json()).toEqual(
      ['GET', '2', ''],
    );
  });

  test('a body that streams is sent as it comes', async () => {
    const server = await serve({
      respond: ({ headers, body }, { socket }) =>
        send(socket, 200, JSON.stringify([headers.get('transfer-encoding'), body])),
    });
    const body = new ReadableStream({
      start(controller) {
        for (const part of ['a', 'b']) controller.enqueue(new TextEncoder().encode(part));
        controller.close();
      },
    });
    const response = await client()(`${server.origin}/v1/x`, {
      method: 'POST',
      body,
      duplex: 'half',
    } as RequestInit);
    expect(await response.json()).toEqual(['chunked', 'ab']);
  });

  test('two origins never share a connection', async () => {
    const [a, b] = [await serve(), await serve()];
    const fetch = client();
    await ask(fetch, a, 'a');
    await ask(fetch, b, 'b');
    expect([a, b].map(({ connections }) => connections.map(({ attested }) => attested))).toEqual([[1], [1]]);
    expect(fetch.result(a.origin)?.tlsSpki).not.toBe(fetch.result(b.origin)?.tlsSpki);
  });

  test('sameMachine: later connections must come from the chip of the first, and every one is verified besides', async () => {
    const one = await simulatedAmd();
    // Same roots, same software, another genuine chip.
    const two = await createSimulatedAmd({
      now: new Date(NOW),
      keys: await one.exportKeys(),
      chipId: new Uint8Array(64).fill(0x22),
    });
    const moved: Pick<Misbehaviour, 'document'> = {
      document: async (document) => {
        const report = new Uint8Array(Buffer.from(String(document['report']), 'base64'));
        const { reportData, measurement } = parseReport(report);
        return {
          ...document,
          report: toBase64(await two.signReport({ reportData, measurement })),
          endorsements: {
            vek: toBase64(two.vek),
            chain: [two.intermediate, two.ark].map(toBase64),
            crl: toBase64(two.crl),
          },
        };
      },
    };
    const first = await startAttestedServer();
    const fetch = client({ sameMachine: true });
    const free = client();
    expect(await ask(fetch, first, 'a')).toBe('echo a');
    expect(await ask(free, first, 'a')).toBe('echo a');
    await first.close();
    const second = await startAttestedServer(moved, first.port);
    const send = (): Promise<unknown> =>
      fetch(`${second.origin}/v1/chat/completions`, { method: 'POST', body: JSON.stringify(say('b')) });
    const refusal = await refusalOf(send);
    expect(refusal).toMatchObject({
      kind: 'refused',
      code: 'machine_changed',
      check: 'C8',
      expected: toHex(one.chipId),
      actual: toHex(two.chipId),
    });
    expect(refusal?.transcript.filter(({ status }) => status === 'fail').map(({ id }) => id)).toEqual(['C8']);
    expect(await refusalOf(() => fetch.verify(second.origin))).toMatchObject({ code: 'machine_changed' });
    expect(second.requests()).toEqual([]);
    expect(fetch.result(second.origin)?.chip).toBe(toHex(one.chipId));
    // A client that did not ask for it is served.
    expect(await ask(free, second, 'b')).toBe('echo b');
    await second.close();
    const back = await serve({}, first.port);
    expect(await ask(fetch, back, 'c')).toBe('echo c');
  });

  test('sameMachine: evidence that names no machine is refused at once', async () => {
    const vlek = await createSimulatedAmd({
      now: new Date(NOW),
      keys: await (await simulatedAmd()).exportKeys(),
      vekKind: 'vlek',
    });
    const server = await serve({
      document: async (document) => {
        const { reportData, measurement } = parseReport(
          new Uint8Array(Buffer.from(String(document['report']), 'base64')),
        );
        const endorsements = {
          vek: toBase64(vlek.vek),
          chain: [vlek.asvk, vlek.ark].map(toBase64),
          crl: toBase64(vlek.crl),
        };
        return {
          ...document,
          report: toBase64(await vlek.signReport({ reportData, measurement })),
          endorsements,
        };
      },
    });
    expect((await client().verify(server.origin)).chip).toBeUndefined();
    expect(await refusalOf(() => client({ sameMachine: true }).verify(server.origin))).toMatchObject({
      code: 'machine_changed',
      actual: 'none',
    });
  });

  test('verify opens a connection of its own and sends no request', async () => {
    const server = await serve();
    const fetch = client();
    expect(await fetch.verify(server.origin)).toBe(fetch.result(server.origin));
    expect(server.requests()).toHaveLength(0);
  });

  test('one model can be attested by name', async () => {
    const other = attestedModel('other', [{ role: 'weights', sha256: new Uint8Array(32).fill(9), size: 1 }]);
    const server = await serve({ models: [other, MODEL], respond: chat });
    const fetch = client({ model: MODEL_ID });
    expect(await ask(fetch, server, 'a')).toBe('echo a');
    expect(fetch.result(server.origin)?.models).toEqual(new Map([[MODEL_ID, MODEL_SHA256]]));
  });

  test('is closed for good', async () => {
    const server = await serve();
    const fetch = attestedFetch({ policy: POLICY, now: () => NOW });
    await fetch.verify(server.origin);
    await fetch.close();
    await expect(fetch(server.origin)).rejects.toThrow('closed');
  });
});
