// Once a request is over, no object in the server's heap holds its text: looked for in a heap snapshot, which
// lists every string that can still be reached. The text is made of numbers each time it is needed, so that
// the test itself keeps none.

import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { getHeapSnapshot, setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { Engine } from '../../src/engine/seam/engine.ts';
import { type ApiServer, events, post, startApi } from '../fixtures/http/api-server.ts';
import { openDemo } from '../fixtures/engine/demo-engine.ts';
import { latch } from '../fixtures/latch.ts';

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

/** How many reachable strings contain the letters. */
async function held(letters: readonly number[]): Promise<number> {
  for (let i = 0; i < 4; i += 1) {
    await new Promise((resolve) => setImmediate(resolve));
    collectGarbage();
  }
  const chunks: Buffer[] = [];
  for await (const chunk of getHeapSnapshot()) chunks.push(chunk as Buffer);
  const snapshot = Buffer.concat(chunks);
  const wanted = Buffer.from(letters);
  let count = 0;
  for (let at = snapshot.indexOf(wanted); at >= 0; at = snapshot.indexOf(wanted, at + 1)) count += 1;
  return count;
}

let seed = 7;
function letters(): number[] {
  return Array.from({ length: 32 }, () => 97 + ((seed = (seed * 48_271) % 2_147_483_647) % 26));
}
function text(of: readonly number[]): string {
  return String.fromCharCode(...of);
}

let engine: Engine;
let api: ApiServer;
beforeAll(async () => {
  engine = await openDemo('demo-chat');
  api = await startApi({ realEngines: { real: engine } });
});
afterAll(async () => {
  await api.close();
  await engine.close();
});

function chat(content: string, more: object = {}): object {
  return {
    model: 'real',
    messages: [{ role: 'user', content }],
    max_tokens: 8,
    ...more,
  };
}

/**
 * Whole bodies, half a body and a refused one behind an answer that takes long; then the connection is
 * closed.
 */
async function pipelined(content: string, close: (socket: Socket) => void): Promise<void> {
  const socket = connect({ host: '127.0.0.1', port: Number(new URL(api.url).port) });
  await once(socket, 'connect');
  const head = (length: number): string =>
    `POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: ${length}\r\n\r\n`;
  const whole = (body: object): string => head(JSON.stringify(body).length) + JSON.stringify(body);
  const more = { max_tokens: 1000, n: 4 };
  const requests = [
    chat('x', more),
    chat(content, more),
    chat(content, { ...more, stream: true }),
    chat(content, { tools: content }),
  ];
  socket.resume().write(`${requests.map(whole).join('')}${head(1000)}{"model":"${content}`);
  await api.begun(5);
  close(socket);
  await once(socket, 'close');
  while (api.server.inFlight > 0) await new Promise((resolve) => setImmediate(resolve));
}

test('what is in use is found', async () => {
  const secret = letters();
  const body = chat(text(secret));
  expect(await held(secret)).toBeGreaterThan(0);
  expect(body).toHaveProperty('model');
});

test.each<[string, (content: string) => Promise<unknown>]>([
  ['an answer', async (content) => (await post(api, '/v1/chat/completions', chat(content))).json()],
  ['a stream', async (content) => events(await post(api, '/v1/chat/completions', chat(content, { stream: true })))],
  ['a grammar and a tool', async (content) => {
    const parameters = { type: 'object', properties: { [content]: { type: 'string', enum: [`${content}!`] } }, required: [content], additionalProperties: false };
    const tools = [{ type: 'function', function: { name: 'note', description: content, parameters } }];
    return (await post(api, '/v1/chat/completions', chat(content, { tools, stop: [content], max_tokens: 64 }))).json();
  }],
  ['a refusal of a value', async (content) => (await post(api, '/v1/chat/completions', chat('x', { temperature: content }))).json()],
  ['broken JSON', async (content) => (await fetch(`${api.url}/v1/chat/completions`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: `{"model":"${content}` })).json()],
  ['an unknown model', async (content) => (await post(api, '/v1/chat/completions', { ...chat('x'), model: content })).json()],
  ['a client that left', async (content) => {
    const controller = new AbortController();
    const response = await post(api, '/v1/chat/completions', chat(content, { stream: true, max_tokens: 1000 }), { signal: controller.signal });
    await response.body?.getReader().read();
    controller.abort();
    await api.models.idle();
  }],
  ['pipelined requests of a connection that was closed', (content) => pipelined(content, (socket) => socket.destroy())],
  ['pipelined requests of a client that said no more', (content) => pipelined(content, (socket) => socket.end())],
  ['tokenize', async (content) => (await post(api, '/v1/tokenize', { model: 'real', content })).json()],
])('nothing is held after %s', async (_, send) => {
  const secret = letters();
  await send(text(secret));
  await api.models.idle();
  expect(await held(secret)).toBe(0);
}); // prettier-ignore

test('fields that are read and ignored are let go while the answer is made', async () => {
  const [kept, ignored] = [letters(), letters()];
  const door = latch();
  const waiting = await startApi({
    engine: { beforeToken: (position) => (position === 2 ? door.opened : Promise.resolve()) },
  });
  // As bytes, which no snapshot lists: a client in this process would hold its text for as long as it waits.
  const call = `{"type":"function","function":{"name":"f","arguments":"{}","parsed_arguments":{"x":"IGNORED"}}}`;
  const assistant = `{"role":"assistant","content":"x","annotations":[{"x":"IGNORED"}],"parsed":{"x":"IGNORED"},"tool_calls":[${call}]}`;
  const json = `{"model":"demo","stream":true,"metadata":{"x":"IGNORED"},"user":"IGNORED","messages":[{"role":"user","content":"KEPT"},${assistant}]}`;
  const pieces = json.split(/(IGNORED|KEPT)/).map((piece) => {
    if (piece === 'KEPT') return Buffer.from(kept);
    return piece === 'IGNORED' ? Buffer.from(ignored) : Buffer.from(piece);
  });
  const body = Buffer.concat(pieces);
  const socket = connect(Number(new URL(waiting.url).port), '127.0.0.1');
  const head =
    'POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n';
  socket.write(Buffer.concat([Buffer.from(`${head}content-length: ${body.length}\r\n\r\n`), body]));
  await once(socket, 'data');
  expect(await held(ignored)).toBe(0);
  expect(await held(kept)).toBeGreaterThan(0);
  door.open();
  await once(socket.resume(), 'close');
  await waiting.close();
});
