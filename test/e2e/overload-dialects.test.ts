// More conversations than there is room for, in every dialect: the real server and engine. As many as fit are
// served whole; the rest is refused in the words of its dialect, and told when to come back.

import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Agent, fetch } from 'undici';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type RealServer, startRealServer } from '../fixtures/e2e/real-server.ts';

const [SLOTS, QUEUE, TOKENS] = [2, 4, 300];
const dispatcher = new Agent({ connect: { rejectUnauthorized: false }, connections: 200 });
let folder: string;
let server: RealServer;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'assay-overload-'));
  const config = join(folder, 'assay.toml');
  await writeFile(config, `[models]\nslots = ${SLOTS}\n[limits]\nmax_queue_per_model = ${QUEUE}\n`);
  server = await startRealServer({ dataFolder: join(folder, 'data'), args: ['--config', config] });
});
afterAll(async () => {
  expect(await server.stop()).toBe(0);
  await dispatcher.close();
  await rm(folder, { recursive: true, force: true });
});

interface Conversation {
  readonly path: string;
  body(content: string, tokens: number): object;
  /** Length and end of an answer. */
  read(answer: object): readonly unknown[];
  readonly whole: readonly unknown[];
  readonly refusal: object;
}

const OPEN_AI = { error: { type: 'rate_limit_error', code: 'engine_overloaded' } };
const CONVERSATIONS: readonly Conversation[] = [
  {
    path: '/v1/chat/completions',
    body: (content, tokens) => ({ messages: [{ role: 'user', content }], max_tokens: tokens }),
    read: (answer) => {
      const { usage, choices } = answer as {
        usage: { completion_tokens: number };
        choices: { finish_reason: string }[];
      };
      return [usage.completion_tokens, choices[0]?.finish_reason];
    },
    whole: [TOKENS, 'length'],
    refusal: OPEN_AI,
  },
  {
    path: '/v1/responses',
    body: (input, tokens) => ({ input, max_output_tokens: tokens, store: false }),
    read: (answer) => {
      const { usage, incomplete_details: why } = answer as {
        usage: { output_tokens: number };
        incomplete_details: { reason: string } | null;
      };
      return [usage.output_tokens, why?.reason];
    },
    whole: [TOKENS, 'max_output_tokens'],
    refusal: OPEN_AI,
  },
  {
    path: '/v1/messages',
    body: (content, tokens) => ({ messages: [{ role: 'user', content }], max_tokens: tokens }),
    read: (answer) => {
      const { usage, stop_reason: reason } = answer as {
        usage: { output_tokens: number };
        stop_reason: string;
      };
      return [usage.output_tokens, reason];
    },
    whole: [TOKENS, 'max_tokens'],
    refusal: {
      type: 'error',
      error: { type: 'rate_limit_error', details: { error_code: 'engine_overloaded' } },
    },
  },
];

async function converse(conversation: Conversation, content: string, tokens: number) {
  const response = await fetch(`${server.url}${conversation.path}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ model: 'demo-context', ...conversation.body(content, tokens) }),
    dispatcher,
  });
  return { status: response.status, headers: response.headers, body: (await response.json()) as object };
}

test.each(CONVERSATIONS)('$path', async (conversation) => {
  expect((await converse(conversation, 'warm', 1)).status).toBe(200);
  const flood = Array.from({ length: 3 * (SLOTS + QUEUE) }, (_, i) =>
    converse(conversation, `request ${i}`, TOKENS),
  );
  const answers = await Promise.all(flood);
  const served = answers.filter(({ status }) => status === 200);
  const refused = answers.filter(({ status }) => status !== 200);
  expect(served.length).toBeGreaterThanOrEqual(SLOTS + QUEUE);
  expect(refused.length).toBeGreaterThan(0);
  for (const { body } of served) expect(conversation.read(body)).toEqual(conversation.whole);
  for (const { status, headers, body } of refused) {
    expect([status, headers.get('x-should-retry')]).toEqual([429, 'true']);
    expect(Number(headers.get('retry-after'))).toBeGreaterThanOrEqual(1);
    expect(body).toMatchObject(conversation.refusal);
  }
  expect((await converse(conversation, 'after', 3)).status).toBe(200);
});
