// An answer to a client that did not ask for receipts, byte for byte as it was without them but for one
// header: every route, streamed or not, errors, pages of other origins (docs/receipts.md [R12]).

import { afterEach, describe, expect, test } from 'vitest';
import { ApiError } from '../../../src/base/errors.ts';
import { DEFAULT_CONFIG } from '../../../src/http/deps.ts';
import { type ApiServer, type ApiServerOptions, post, startApi } from '../../fixtures/http/api-server.ts';
import { issuer } from '../../fixtures/receipts/issued.ts';
import { ROUTES, STREAMS } from '../../fixtures/receipts/routes.ts';

let api: ApiServer;
async function start(options: ApiServerOptions): Promise<void> {
  api = await startApi({ ...options, deps: { receipts: issuer(), ...options.deps } });
}
afterEach(() => api.close());

describe('[R12] unasked', () => {
  const ORIGIN = 'https://page.example';
  /** Messages repeats the id of the request in its errors. */
  const withoutId = (text: string): string => text.replace(/"request_id":"[^"]*"/, '');
  /** The bytes of an answer without what differs by chance. */
  const plain = async (path: string, body: object | string, origin?: string): Promise<string> => {
    const response = await post(api, path, body, { headers: origin === undefined ? {} : { origin } });
    const { headers, status } = response;
    const names = [...headers]
      .filter(([name]) => name !== 'date' && name !== 'x-request-id' && name !== 'openai-processing-ms')
      .filter(([name]) => name !== 'request-id' && name !== 'assay-receipt-id')
      .map(([name, value]) => `${name}: ${value}`);
    const text = await response.text();
    return `${status}\n${names.join('\n')}\n\n${withoutId(text)}`;
  };
  const both = async <T>(ask: () => Promise<T>, engine = {}): Promise<readonly [T, T]> => {
    const fixed = { now: () => 1_700_000_000_000, randomHex: (bytes: number) => '5a'.repeat(bytes) };
    const config = { ...DEFAULT_CONFIG, streamPadding: false, corsOrigins: [ORIGIN] };
    await start({ engine, config, deps: { ...fixed, receipts: null } });
    const without = await ask();
    await api.close();
    await start({ engine, config, deps: fixed });
    return [without, await ask()];
  };

  test.each([
    ...ROUTES,
    ...STREAMS.map(([name, path, body]) => [name, path, { ...body, stream: true }] as const),
  ])('%s: an answer is what it was but for one header', async (_, path, body) => {
    const asked = async (): Promise<readonly (string | null)[]> => [
      await plain(path, body),
      await plain(path, body, ORIGIN),
      (await post(api, path, body)).headers.get('assay-receipt-id'),
    ];
    const [[text, page, id], [other, otherPage, otherId]] = await both(asked);
    expect([text?.startsWith('200'), page?.includes(`access-control-allow-origin: ${ORIGIN}`)]).toEqual([true, true]); // prettier-ignore
    // The ids of answers hold the text alone, whatever the fake engine drew.
    expect([other, otherPage]).toEqual([text, page]);
    expect([id, otherId]).toEqual([null, expect.stringMatching(/^[0-9a-f]{32}$/)]);
  });

  test.each(ROUTES)('%s: errors are what they were', async (_, path, body) => {
    const wrong = [{ ...body, model: 'none' }, { ...body, model: 7 }, {}, '{', '', '['.repeat(99)];
    const asked = async (): Promise<readonly string[]> => {
      const texts = [];
      for (const each of wrong) texts.push(await plain(path, each), await plain(path, each, ORIGIN));
      const get = await fetch(`${api.url}${path}`);
      return [...texts, `${get.status} ${withoutId(await get.text())}`];
    };
    const [without, with_] = await both(asked);
    expect(with_).toEqual(without);
    expect(without.every((text) => /^4\d\d/.test(text))).toBe(true);
  });

  test.each(STREAMS.flatMap((row) => [[...row, true] as const, [...row, false] as const]))(
    '%s: an engine that fails on the way is told as it was; streamed %4$s',
    async (_, path, body, stream) => {
      const crash = async (position: number): Promise<void> => {
        if (position === 2) throw new ApiError('engine_crashed', 'the engine ended unexpectedly');
      };
      const [without, with_] = await both(() => plain(path, { ...body, stream }), { beforeToken: crash });
      expect(with_).toBe(without);
      expect(without).toContain('engine_crashed');
    },
  );
});
