// Prompts, completions, keys and user-chosen names reach no sink: unique strings go into every field of every
// route and into what a model writes, in success, refusal, abort and crash, at the most talkative log level;
// then every sink is searched.

import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import type { Response } from 'undici';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { nativeLibrary } from '../../src/base/native-library.ts';
import { audioRounds } from '../fixtures/e2e/canary-audio.ts';
import { CANARIES, canary, chatOf, isAllowed, keepsPulledNames, RUN } from '../fixtures/e2e/canaries.ts';
import {
  bodyRefusals,
  chatRefusals,
  modelRefusals,
  pathAndKeyRefusals,
  textRefusals,
} from '../fixtures/e2e/canary-refusals.ts';
import {
  chatSuccesses,
  headerSuccesses,
  modelSuccesses,
  textSuccesses,
} from '../fixtures/e2e/canary-successes.ts';
import { fileRefusals, fileSuccesses } from '../fixtures/e2e/canary-files.ts';
import { messageOf, messageRefusals, messageSuccesses } from '../fixtures/e2e/canary-messages.ts';
import { responseOf, responseRefusals, responseSuccesses } from '../fixtures/e2e/canary-responses.ts';
import { childrenOf } from '../fixtures/e2e/real-server.ts';
import { leaksOfProcess, WatchedServer } from '../fixtures/e2e/watched-server.ts';

describe('no content in any sink', () => {
  let watched: WatchedServer;
  const written: string[] = [];

  beforeAll(async () => {
    watched = await WatchedServer.start();
  });
  afterEach(() => {
    watched.hub.faults = {};
  });
  afterAll(() => watched.close());

  test('no process of ours may write a core dump', async () => {
    await watched.succeeds('POST', '/v1/completions', { model: 'demo-context', prompt: 'x', max_tokens: 1 });
    for (const pid of [watched.pid, ...(await childrenOf(watched.pid))]) {
      const limits = await readFile(`/proc/${pid}/limits`, 'utf8');
      expect(/Max core file size\s+(\S+)\s+(\S+)/.exec(limits)?.slice(1)).toEqual(['0', '0']);
    }
    // And should a crash handler take one all the same, none of the server's memory is in it.
    if (process.platform === 'linux')
      expect(await readFile(`/proc/${watched.pid}/coredump_filter`, 'utf8')).toMatch(/^0+\n$/);
  });

  test('success: every field of every route, and what the model writes', async () => {
    written.push(...(await chatSuccesses(watched)));
    written.push(...(await responseSuccesses(watched)));
    written.push(...(await messageSuccesses(watched)));
    await textSuccesses(watched);
    await headerSuccesses(watched);
    await modelSuccesses(watched);
    await fileSuccesses(watched);
  });

  test('a pull that is cancelled and one that the hub fails', async () => {
    const name = `${canary('pulledowner')}/${canary('pulledrepo')}:Q8_0`;
    // Bytes the store has not seen: others would not be fetched at all.
    const bytes = randomBytes(4_000_000);
    watched.hub.files = [{ name: 'demo-Q8_0.gguf', bytes }];
    const stalled = new Promise<void>((resolve) => {
      watched.hub.faults.cdn = (_, response) => {
        response.writeHead(200, { 'content-length': bytes.length, etag: '"fixed"' });
        response.write(bytes.subarray(0, 500_000), () => resolve());
        return true;
      };
    });
    const pulling = watched.send(
      'POST',
      '/v1/models/pull',
      { name, token: canary('pulltoken') },
      watched.admin,
    );
    await stalled;
    await watched.succeeds('DELETE', `/v1/models/pull/${encodeURIComponent(name)}`, undefined, watched.admin);
    expect((await pulling).text).toContain('pull_cancelled');
    watched.hub.faults = {
      // It gives back all it was sent, the token with it.
      api: (asked, response) => {
        response.writeHead(asked.url?.includes('pulledmissing') === true ? 404 : 403, {
          'x-echo': asked.headers.authorization ?? '',
        });
        response.end(JSON.stringify({ error: `${asked.url} ${asked.headers.authorization}` }));
        return true;
      },
    };
    for (const repository of [canary('pulledmissing'), canary('pulledgated')]) {
      const failed = await watched.send(
        'POST',
        '/v1/models/pull',
        { name: `${repository}/x:Q4_0`, token: canary('pulltoken') },
        watched.admin,
      );
      expect(failed.text).toMatch(/hub_(not_found|forbidden)/);
    }
    // Without a token of its own the pull is made with the server's.
    await watched.send('POST', '/v1/models/pull', { name: `${canary('pulledgated')}/x:Q4_0` }, watched.admin);
    expect(watched.hub.seen.at(-1)?.headers.authorization).toBe(`Bearer ${watched.keys.hub}`);
  });

  test('refusals: unknown names, wrong types and values, bad JSON, bad paths, bad keys', async () => {
    await chatRefusals(watched);
    await responseRefusals(watched);
    await messageRefusals(watched);
    await textRefusals(watched);
    await modelRefusals(watched);
    await pathAndKeyRefusals(watched);
    await bodyRefusals(watched);
    await fileRefusals(watched);
    // Each said why, in a form that errors have.
    const codes = new Set(
      watched.errors.flatMap((text) => /"(?:error_)?code":"(\w+)"/.exec(text)?.[1] ?? []),
    );
    for (const code of [
      'unknown_parameter',
      'invalid_schema',
      'invalid_model_name',
      'invalid_api_key',
      'invalid_json',
      'context_length_exceeded',
      'invalid_encrypted_content',
    ])
      expect(codes).toContain(code);
  });

  test.skipIf(nativeLibrary('libwhisper') === undefined)('sound: fields, file names and bytes', async () => {
    expect(await audioRounds(watched)).toEqual([200, 200, 200, 400, 400, 400, 404, 400, 200, 400]);
  });

  test('refusals below the routes: broken HTTP, odd targets, server names', async () => {
    const bodies = await Promise.all(
      [
        `GET /${canary('line')} HTTP/1.1\r\n${canary('headername')} : x\r\n\r\n`,
        `${canary('METHOD')} / HTTP/1.1\r\nhost: x\r\n\r\n`,
        `GET / ${canary('version')}\r\nhost: x\r\n\r\n`,
        `GET /health HTTP/1.1\r\nhost: ${canary('host')}\r\nexpect: ${canary('expect')}\r\nconnection: close\r\n\r\n`,
        `CONNECT ${canary('connect')}:443 HTTP/1.1\r\nhost: x\r\n\r\n`,
        `GET https://${canary('absolute')}.example/v1/${canary('absolute')} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n`,
        `GET /${canary('longline')}${'x'.repeat(100_000)} HTTP/1.1\r\nhost: x\r\n\r\n`,
        `POST /v1/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n${canary('chunk')}\r\n`,
        `POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n${canary('smuggled')}`,
        `GET /health HTTP/1.1\r\nhost: x\r\nupgrade: ${canary('upgrade')}\r\nconnection: upgrade\r\n\r\n`,
      ].map((bytes) => watched.raw(bytes, `${canary('sni')}.example`)),
    );
    watched.errors.push(...bodies);
    // Each was answered or cut off; those with a readable line before the fault have an answer.
    expect(bodies.filter((body) => body.startsWith('HTTP/1.1 4')).length).toBeGreaterThanOrEqual(6);
  });

  test('abort and crash in mid-stream', async () => {
    const stream = (what: string, signal?: AbortSignal): Promise<Response> =>
      watched.request('POST', '/v1/completions', { model: 'demo-context', prompt: canary(what), max_tokens: 1800, stream: true }, signal === undefined ? {} : { signal }); // prettier-ignore
    const controller = new AbortController();
    const aborted = await stream('aborted', controller.signal);
    await aborted.body?.getReader().read();
    controller.abort();
    const crashing = await stream('crashed');
    const reader = crashing.body?.getReader();
    await reader?.read();
    const killed = await childrenOf(watched.pid);
    for (const pid of killed) process.kill(pid, 'SIGABRT');
    let tail = '';
    for (let part = await reader?.read(); part && !part.done; part = await reader?.read())
      tail += Buffer.from(part.value as Uint8Array).toString();
    expect(tail).toContain('engine_crashed');
    watched.errors.push(tail.slice(tail.lastIndexOf('data: {"error"')));
    await watched.real.logged(
      (line) => JSON.stringify(line).includes('engine') || JSON.stringify(line).includes('crash'),
    );
    await expect
      .poll(async () => (await childrenOf(watched.pid)).filter((pid) => killed.includes(pid)))
      .toEqual([]);
  });

  // The engines are halted, so that every request is in one when its client leaves, or the engine dies,
  // whatever the machine's pace.
  test.each(['abort', 'crash'] as const)('%s of every route that an engine answers', async (what) => {
    const rounds = (): readonly (readonly [string, unknown])[] => [
      ['/v1/chat/completions', { ...chatOf(), max_tokens: 40 }],
      ['/v1/chat/completions', { ...chatOf(), max_tokens: 40, stream: true, n: 2 }],
      ['/v1/responses', { ...responseOf(), max_output_tokens: 40 }],
      ['/v1/responses', { ...responseOf(), max_output_tokens: 40, stream: true }],
      ['/v1/messages', { ...messageOf(), max_tokens: 40 }],
      ['/v1/messages', { ...messageOf(), max_tokens: 40, stream: true }],
      ['/v1/messages/count_tokens', messageOf()],
      ['/v1/completions', { model: 'demo-context', prompt: canary(what), max_tokens: 40 }],
      ['/v1/embeddings', { model: 'demo-embed', input: canary(what) }],
      [
        '/v1/rerank',
        { model: 'demo-rerank', query: canary(what), documents: [canary(what), { text: canary(what) }] },
      ],
      ['/v1/tokenize', { model: 'demo-chat', messages: [{ role: 'user', content: canary(what) }] }],
      ['/v1/detokenize', { model: 'demo-chat', tokens: [5, 6, 7] }],
    ];
    for (const name of ['demo-chat', 'demo-context', 'demo-embed', 'demo-rerank'])
      await watched.succeeds('POST', '/v1/models/load', { name }, watched.admin);
    const pids = await childrenOf(watched.pid);
    expect(pids.length).toBeGreaterThanOrEqual(4);
    for (const pid of pids) expect(await leaksOfProcess(pid)).toEqual([]);
    // The search finds what is there: the hub's token is in the environment the server itself was given.
    expect(await leaksOfProcess(watched.pid)).toEqual([watched.keys.hub]);
    for (const pid of pids) process.kill(pid, 'SIGSTOP');
    const controller = new AbortController();
    const asked = rounds().map(([path, body]) =>
      watched.send('POST', path, body, { signal: controller.signal }).then(
        ({ status, text }) => `${status} ${/"(?:error_)?code":"(\w+)"/.exec(text)?.[1]}`,
        (error: unknown) => (error as Error).name,
      ),
    );
    await watched.holding(asked.length);
    if (what === 'abort') {
      controller.abort();
      expect(new Set(await Promise.all(asked))).toEqual(new Set(['AbortError']));
      for (const pid of pids) process.kill(pid, 'SIGCONT');
    } else {
      for (const pid of pids) {
        process.kill(pid, 'SIGSEGV');
        process.kill(pid, 'SIGCONT');
      }
      for (const answer of await Promise.all(asked)) expect(answer).toMatch(/ engine_crashed$/);
    }
    await watched.holding(0);
  });

  test('then: nothing of it in any sink', async () => {
    await watched.collectSinks();
    const { sinks } = watched;

    // The search finds what is there: each sink has what it should have, and the data folder
    // the names that it may have.
    expect(sinks['stderr']).toContain('/v1/chat/completions');
    expect(sinks['metrics']).toContain('assay_');
    expect(sinks['error bodies']).toContain('unknown_parameter');
    expect(Object.keys(sinks).some((name) => name.includes('audit'))).toBe(true);
    expect(
      Object.entries(sinks).filter(([sink, text]) => keepsPulledNames(sink) && /canarypulled/.test(text))
        .length,
    ).toBeGreaterThan(3);
    expect(written).toHaveLength(17);
    expect(CANARIES.length).toBeGreaterThan(400);

    const leaks = Object.entries(sinks).flatMap(([sink, text]) =>
      (`${sink} ${text}`.includes(RUN) ? CANARIES : [])
        .filter((value) => `${sink} ${text}`.includes(value) && !isAllowed(sink, value))
        .map((value) => `${sink}: ${value}`),
    );
    expect(leaks.join('\n')).toBe('');
  });
});
