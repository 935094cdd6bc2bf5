// Prompts, completions, keys and user-chosen names reach no sink: unique strings go into every field of every route, in
// success, refusal, crash and abort, at the most talkative log level; then every sink the process has is searched.
import { readdir, readFile, stat } from 'node:fs/promises';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Agent, fetch } from 'undici';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { childrenOf, type RealServer, startRealServer } from '../fixtures/real-server.ts';

let counter = 0;
const canaries: string[] = [];
/** A string that cannot be there by chance. */
const canary = (what: string): string => {
  const text = `canary${what}${(++counter).toString(36)}q7z${'x9k2'.repeat(2)}`;
  canaries.push(text);
  return text;
};

/** A refusal names the parameter or schema keyword it refuses, to the caller alone: these are names, not content. */
const ECHOED = /^canary(field|keyword)/;

describe('no content in any sink', () => {
  let server: RealServer;
  let folder: string;
  const dispatcher = new Agent({ connect: { rejectUnauthorized: false } });
  const errors: string[] = [];

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'assay-canary-'));
    await writeFile(join(folder, 'assay.toml'), '[api]\nmetrics_enabled = true\n[audit]\nenabled = true\n');
    server = await startRealServer({
      dataFolder: join(folder, 'data'),
      args: ['--config', join(folder, 'assay.toml'), '--log-level', 'debug'],
    });
  });
  afterAll(async () => {
    await dispatcher.close();
    if (server.process.exitCode === null) await server.stop();
    await rm(folder, { recursive: true, force: true });
  });

  const send = async (
    method: string,
    path: string,
    body?: unknown,
    init: { signal?: AbortSignal; headers?: Record<string, string>; raw?: string } = {},
  ): Promise<{ status: number; text: string }> => {
    const response = await fetch(`${server.url}${path}`, {
      method,
      headers: { 'content-type': 'application/json', authorization: `Bearer ${canary('key')}`, ...init.headers },
      ...(body === undefined && init.raw === undefined ? {} : { body: init.raw ?? JSON.stringify(body) }),
      ...(init.signal ? { signal: init.signal } : {}),
      dispatcher,
    });
    const text = await response.text();
    if (response.status >= 400) errors.push(text);
    return { status: response.status, text };
  };

  test('no process of ours may write a core dump', async () => {
    await send('POST', '/v1/completions', { model: 'demo-context', prompt: 'x', max_tokens: 1 });
    for (const pid of [server.process.pid ?? 0, ...(await childrenOf(server.process.pid ?? 0))]) {
      const limits = await readFile(`/proc/${pid}/limits`, 'utf8');
      expect(/Max core file size\s+(\S+)\s+(\S+)/.exec(limits)?.slice(1)).toEqual(['0', '0']);
    }
    // And should a crash handler take one all the same, none of the server's memory is in it.
    if (process.platform === 'linux') expect(await readFile(`/proc/${server.process.pid}/coredump_filter`, 'utf8')).toMatch(/^0+\n$/);
  });

  test('every field of every route, in success, refusal, crash and abort', async () => {
    const tool = {
      type: 'function',
      function: {
        name: 'weather',
        description: canary('tooldesc'),
        parameters: { type: 'object', properties: { city: { type: 'string', description: canary('propdesc') } } },
      },
    };
    const messages = [
      { role: 'system', content: canary('system') },
      { role: 'user', name: canary('name'), content: canary('user') },
      {
        role: 'assistant',
        content: canary('assistant'),
        tool_calls: [
          { id: canary('callid'), type: 'function', function: { name: 'weather', arguments: JSON.stringify({ city: canary('arg') }) } },
        ],
      },
      { role: 'tool', tool_call_id: canary('toolcallid'), content: canary('toolresult') },
      { role: 'user', content: [{ type: 'text', text: canary('part') }] },
    ];
    const chat = {
      model: 'demo-chat',
      messages,
      tools: [tool],
      stop: [canary('stop')],
      user: canary('enduser'),
      metadata: { a: canary('metadata') },
      max_tokens: 8,
    };

    // Success.
    const first = await send('POST', '/v1/chat/completions', chat);
    expect(first.status, first.text).toBe(200);
    expect((await send('POST', '/v1/chat/completions', { ...chat, stream: true })).status).toBe(200);
    expect((await send('POST', '/v1/completions', { model: 'demo-context', prompt: canary('prompt'), max_tokens: 4 })).status).toBe(200);
    expect((await send('POST', '/v1/embeddings', { model: 'demo-embed', input: [canary('embed'), canary('embed')] })).status).toBe(200);
    expect(
      (await send('POST', '/v1/rerank', { model: 'demo-rerank', query: canary('query'), documents: [canary('document')] })).status,
    ).toBe(200);
    expect((await send('POST', '/v1/tokenize', { model: 'demo-chat', content: canary('tokenize') })).status).toBe(200);
    expect((await send('GET', `/v1/models?x=${canary('querystring')}`)).status).toBeLessThan(500);
    expect(
      (
        await send('GET', '/health', undefined, {
          headers: { 'user-agent': canary('agent'), cookie: canary('cookie'), 'x-forwarded-for': canary('forwarded') },
        })
      ).status,
    ).toBe(200);

    // Refusal: unknown names, wrong types, bad JSON, bad paths.
    for (const [method, path, body] of [
      ['POST', '/v1/chat/completions', { ...chat, temperature: canary('temperature') }],
      ['POST', '/v1/chat/completions', { ...chat, [canary('field')]: canary('value') }],
      ['POST', '/v1/chat/completions', { ...chat, messages: [{ role: canary('role'), content: canary('content') }] }],
      [
        'POST',
        '/v1/chat/completions',
        {
          ...chat,
          response_format: {
            type: 'json_schema',
            json_schema: { name: 'x', strict: true, schema: { type: 'object', [canary('keyword')]: canary('schema') } },
          },
        },
      ],
      ['POST', '/v1/chat/completions', { ...chat, messages: [{ role: 'user', content: `${canary('long')} word`.repeat(20_000) }] }],
      ['POST', '/v1/embeddings', { model: 'demo-chat', input: canary('wrongmodel') }],
      ['POST', '/v1/completions', { model: 'demo-context', prompt: { a: canary('object') } }],
      ['POST', '/v1/models', { name: canary('modelname'), path: `/nowhere/${canary('path')}` }],
      ['POST', '/v1/models/load', { name: canary('loadname') }],
      ['GET', `/v1/attestation?nonce=${canary('nonce')}.`, undefined],
      ['GET', `/${canary('route')}`, undefined],
    ] as const) {
      const answer = await send(method, path, body);
      expect(answer.status, `${method} ${path} ${answer.text}`).toBeGreaterThanOrEqual(400);
      expect(answer.status).toBeLessThan(500);
    }
    expect(
      (
        await send('POST', '/v1/chat/completions', undefined, {
          raw: `{"model":"demo-chat","messages":[{"role":"user","content":"${canary('broken')}`,
        })
      ).status,
    ).toBe(400);

    // Abort in mid-stream, then a crash of the engine in mid-stream.
    const controller = new AbortController();
    const stream = await fetch(`${server.url}/v1/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ model: 'demo-context', prompt: canary('aborted'), max_tokens: 1500, stream: true }),
      signal: controller.signal,
      dispatcher,
    });
    await stream.body?.getReader().read();
    controller.abort();
    const crashing = await fetch(`${server.url}/v1/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ model: 'demo-context', prompt: canary('crashed'), max_tokens: 1800, stream: true }),
      dispatcher,
    });
    const reader = crashing.body?.getReader();
    await reader?.read();
    for (const pid of await childrenOf(server.process.pid ?? 0)) process.kill(pid, 'SIGABRT');
    let tail = '';
    for (let part = await reader?.read(); part && !part.done; part = await reader?.read())
      tail += Buffer.from(part.value as Uint8Array).toString();
    expect(tail).toContain('engine_crashed');
    errors.push(tail.slice(tail.lastIndexOf('data: {"error"')));
    await server.logged((line) => JSON.stringify(line).includes('engine') || JSON.stringify(line).includes('crash'));

    // Every sink.
    const metrics = await send('GET', '/metrics');
    expect(metrics.status).toBe(200);
    expect(await server.stop()).toBe(0);
    const sinks: Record<string, string> = {
      stdout: server.stdout(),
      stderr: server.stderr(),
      metrics: metrics.text,
      'error bodies': errors.join('\n'),
    };
    for (const name of await readdir(server.dataFolder, { recursive: true })) {
      const path = join(server.dataFolder, name);
      if ((await stat(path)).isFile()) sinks[name] = (await readFile(path)).toString('latin1');
    }
    expect(sinks['stderr']).toContain('/v1/chat/completions');
    expect(sinks['metrics']).toContain('assay_');
    expect(Object.keys(sinks).some((name) => name.includes('audit'))).toBe(true);
    const leaks = Object.entries(sinks).flatMap(([sink, text]) =>
      canaries
        .filter((value) => text.includes(value) && !(sink === 'error bodies' && ECHOED.test(value)))
        .map((value) => `${sink}: ${value}`),
    );
    expect(leaks.join('\n')).toBe('');
  });
});
