// Three real servers behind a plain HTTP balancer that chooses, retries and lies, and a client that seals
// each request for all it verified (docs/sealed.md §8 [B18]): real processes, real llama.cpp.

import { createServer, type Server } from 'node:http';
import { request as httpsRequest } from 'node:https';
import type { AddressInfo } from 'node:net';
import OpenAI from 'openai';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { allowSimulated, type AppraisalPolicy } from '@assay/attestation';
import { answererOf, receiptOf, sealedFetch, type SealedFetchOptions } from '@assay/attestation/sealed';
import { sealedTransport } from '../../attestation/node/sealed-transport.ts';
import { EXPECTED } from '../../scripts/demo-model/text.ts';
import { type RealServer, startRealServer } from '../fixtures/e2e/real-server.ts';

const question = EXPECTED[0]?.question ?? '';
const answer = EXPECTED[0]?.answer ?? '';

let servers: RealServer[];
let policy: AppraisalPolicy;
let balancer: Server;
let url: string;
/** Servers that the balancer sends a request to, one after the other; the last one's answer is handed on. */
let route: () => readonly number[];
const SEEN: Buffer[] = [];
const transport = sealedTransport(60_000);

beforeAll(async () => {
  servers = await Promise.all([startRealServer(), startRealServer(), startRealServer()]);
  // Each listens elsewhere, which its configuration says.
  const configs = servers.flatMap((server) => (server.policy as AppraisalPolicy).configs ?? []);
  policy = {
    ...(servers[0]!.policy as AppraisalPolicy),
    configs: [...new Set(configs)],
    channel: 'sealed',
    [allowSimulated]: true,
  };
  balancer = createServer((incoming, outgoing) => {
    void (async () => {
      const pieces: Buffer[] = [];
      for await (const piece of incoming) pieces.push(piece as Buffer);
      const body = Buffer.concat(pieces);
      SEEN.push(Buffer.from(`${incoming.method} ${incoming.url}\n${incoming.rawHeaders.join('\n')}\n`), body);
      const to = route();
      for (const [i, index] of to.entries())
        await new Promise<void>((resolve, reject) => {
          const { method, headers } = incoming;
          const asked = httpsRequest(`${servers[index]!.url}${incoming.url}`, { method, headers, rejectUnauthorized: false }, (from) => {
            if (i < to.length - 1) from.resume().on('end', resolve);
            else {
              outgoing.writeHead(from.statusCode ?? 502, from.rawHeaders);
              from.pipe(outgoing).on('close', resolve);
            }
          }); // prettier-ignore
          asked.on('error', reject).end(body);
        });
    })().catch(() => outgoing.destroy());
  });
  await new Promise<void>((resolve) => balancer.listen(0, '127.0.0.1', resolve));
  url = `http://127.0.0.1:${(balancer.address() as AddressInfo).port}`;
});
afterAll(async () => {
  await transport.close();
  balancer.closeAllConnections();
  balancer.close();
  expect(await Promise.all(servers.map((server) => server.stop()))).toEqual([0, 0, 0]);
});
beforeEach(() => {
  route = () => [0];
});

function client(options: Partial<SealedFetchOptions> = {}): {
  readonly openai: OpenAI;
  readonly answers: Response[];
} {
  const sealed = sealedFetch({
    policy,
    endpoint: url,
    replicas: servers.map((server) => server.url),
    fetch: transport.fetch,
    ...options,
  });
  const answers: Response[] = [];
  const openai = new OpenAI({
    baseURL: `${url}/v1`,
    apiKey: 'sk-canary',
    maxRetries: 0,
    fetch: async (input, init) => {
      const response = await sealed(input, init);
      answers.push(response);
      return response;
    },
  });
  return { openai, answers };
}

const ASKED = {
  model: 'demo-chat',
  temperature: 0,
  messages: [{ role: 'user' as const, content: question }],
};

async function code(asked: Promise<unknown>): Promise<unknown> {
  try {
    await asked;
    return undefined;
  } catch (error) {
    return (error as { code?: unknown }).code;
  }
}

test('each server in turn answers a streamed chat, and its receipt says which one [B18]', async () => {
  const { openai, answers } = client();
  const by: unknown[] = [];
  for (const index of [0, 1, 2]) {
    route = () => [index];
    const pieces: string[] = [];
    for await (const event of await openai.chat.completions.create({ ...ASKED, stream: true }))
      pieces.push(event.choices[0]?.delta.content ?? '');
    expect(pieces.join('')).toBe(answer);
    expect(receiptOf(answers.at(-1)!)?.state).toBe('verified');
    by.push(answererOf(answers.at(-1)!)?.guests.map(({ origin }) => origin));
  }
  expect(by).toEqual(servers.map((server) => [server.url]));
});

describe('the balancer [B18]', () => {
  test('sends to one that refuses its replay, and to another after it: one answer each', async () => {
    const { openai, answers } = client();
    route = () => [0, 1];
    expect((await openai.chat.completions.create(ASKED)).choices[0]?.message.content).toBe(answer);
    expect(answererOf(answers[0]!)?.guests[0]?.origin).toBe(servers[1]!.url);
    // To one server twice: it does not run again.
    route = () => [2, 2];
    expect(await code(openai.chat.completions.create(ASKED))).toBe('sealed_outcome_unknown');
  });

  test('chooses one that is not listed: it does not open', async () => {
    const { openai } = client({ replicas: servers.slice(0, 2).map((server) => server.url) });
    route = () => [2];
    expect(await code(openai.chat.completions.create(ASKED))).toBe('sealed_refused');
  });

  test('a route without receipts is answered by one of the set', async () => {
    const { openai, answers } = client();
    expect((await openai.models.list()).data.length).toBeGreaterThan(0);
    expect(answererOf(answers[0]!)).toMatchObject({ kind: 'set', guests: [{}, {}, {}] });
  });

  test('reads no byte of what it carries, but the hints where they are on', async () => {
    const bytes = Buffer.concat(SEEN);
    expect(bytes.includes('POST /v1/sealed')).toBe(true);
    for (const secret of [question, answer, 'sk-canary', '/v1/chat', 'demo-chat', 'assay-route'])
      expect(bytes.includes(secret), secret).toBe(false);
    const { openai } = client({ routeHints: true });
    await openai.chat.completions.create(ASKED);
    expect(Buffer.concat(SEEN).toString('latin1')).toMatch(/model="demo-chat", size=\d+, prefix=:/);
  });
});
