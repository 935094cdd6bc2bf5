// /v1/tokenize and /v1/detokenize count like every other inference route: tokens of the caller's minute, and
// work that ends with its client.

import { afterEach, describe, expect, test } from 'vitest';
import { tokenizeAnswer } from '../../../../src/api/response-schemas.ts';
import {
  type ApiServer,
  type ApiServerOptions,
  type ErrorAnswer,
  post,
  startApi,
} from '../../../fixtures/http/api-server.ts';
import { openDemo } from '../../../fixtures/engine/demo-engine.ts';
import { dataUri, picture } from '../../../fixtures/images.ts';
import { latch, untilAborted } from '../../../fixtures/latch.ts';

let api: ApiServer;
async function start(options: ApiServerOptions = {}): Promise<void> {
  return void (api = await startApi(options));
}
afterEach(() => api.close());

const ROUTES: [string, object, number][] = [
  ['/v1/tokenize', { model: 'demo', content: 'eight by' }, 8],
  ['/v1/tokenize', { model: 'demo', content: 'eight by', with_pieces: true }, 8],
  ['/v1/tokenize', { model: 'demo', messages: [{ role: 'user', content: 'eight by' }] }, 8],
  ['/v1/detokenize', { model: 'demo', tokens: [104, 105, 106] }, 3],
];

test.each(ROUTES)(
  '%s takes its tokens from the minute and is refused when it has none (%#)',
  async (path, body, tokens) => {
    await start({
      config: { anonymous: { requestsPerMinute: 0, tokensPerMinute: 100, concurrent: 0 } },
      deps: { now: () => 1_700_000_000_000 },
    });
    const first = await post(api, path, body);
    await first.text();
    expect(first.headers.get('x-ratelimit-remaining-tokens')).toBe(String(100 - tokens));
    expect((await api.ended())[0]).toMatchObject({ promptTokens: tokens, completionTokens: 0 });
    await (await post(api, '/v1/tokenize', { model: 'demo', content: 'y'.repeat(90) })).text();
    const refused = await post(api, path, body);
    expect([refused.status, ((await refused.json()) as ErrorAnswer).error.code]).toEqual([
      429,
      'rate_limit_exceeded',
    ]);
  },
);

test('an image is for a model that takes one, and no address of one is fetched', async () => {
  await start({ engines: { seer: { vision: true } } });
  const ask = async (model: string, url: string): Promise<unknown> => {
    const content = [{ type: 'image_url', image_url: { url } }];
    const answer = await post(api, '/v1/tokenize', { model, messages: [{ role: 'user', content }] });
    const { error } = (await answer.json()) as Partial<ErrorAnswer>;
    return [answer.status, error?.code, error?.param];
  };
  const param = 'messages[0].content[0].image_url.url';
  expect(await ask('seer', dataUri(picture(8, 8)))).toEqual([200, undefined, undefined]);
  expect(await ask('demo', dataUri(picture(8, 8)))).toEqual([400, 'unsupported_parameter', param]);
  expect(await ask('seer', 'https://a.example/b.png')).toEqual([400, 'unsupported_parameter', param]);
});

test.each(ROUTES)('%s ends with its client (%#)', async (path, body) => {
  const begun = latch();
  const ended = latch();
  await start({
    engine: {
      async beforeText(signal) {
        begun.open();
        if (signal !== undefined) await untilAborted(signal).finally(ended.open);
      },
    },
  });
  const client = new AbortController();
  const answer = post(api, path, body, { signal: client.signal });
  await begun.opened;
  client.abort();
  await expect(answer).rejects.toThrow();
  await ended.opened;
  await api.models.idle();
  expect((await api.ended())[0]).toMatchObject({ aborted: true, promptTokens: 0 });
});

describe('by a real engine', () => {
  test('pieces are those of the tokens, however often one occurs; a text that cannot fit is refused under its name', async () => {
    const engine = await openDemo('demo-context');
    try {
      await start({ realEngines: { demo: engine } });
      const content = 'the key é the key é';
      const answer = await (await post(api, '/v1/tokenize', { content, with_pieces: true })).json();
      const { tokens } = tokenizeAnswer.read(answer, '');
      const bytes = tokens.map((token) => {
        if (typeof token === 'number') return '';
        return typeof token.piece === 'string' ? token.piece : Buffer.from(token.piece).toString('latin1');
      });
      expect(new Set(bytes).size).toBeLessThan(bytes.length);
      expect(
        Buffer.concat(
          tokens.map((token) =>
            typeof token === 'number' ? Buffer.alloc(0) : Buffer.from(token.piece as string),
          ),
        ),
      ).toEqual(Buffer.from(content));
      for (const field of ['content', 'prompt', 'text']) {
        const refused = await post(api, '/v1/tokenize', {
          [field]: 'zq '.repeat(1_000_000),
          with_pieces: true,
        });
        expect([refused.status, ((await refused.json()) as ErrorAnswer).error]).toEqual([
          400,
          expect.objectContaining({ code: 'context_length_exceeded', param: field }),
        ]);
      }
      const many = await post(api, '/v1/detokenize', { tokens: Array.from({ length: 100_000 }, () => 41) });
      expect([many.status, ((await many.json()) as ErrorAnswer).error]).toEqual([
        400,
        expect.objectContaining({ code: 'context_length_exceeded', param: 'tokens' }),
      ]);
    } finally {
      await engine.close();
    }
  });
});
