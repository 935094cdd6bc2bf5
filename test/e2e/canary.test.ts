// Prompts, completions, keys and user-chosen names reach no sink: unique strings go into every field of every route and into
// what a model writes, in success, refusal, abort and crash, at the most talkative log level; then every sink is searched.

import { randomBytes } from 'node:crypto';
import { copyFile, mkdir, mkdtemp, readdir, readFile, readlink, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect as connectTls } from 'node:tls';
import { Agent, fetch, type Response } from 'undici';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { ensureDemoModels } from '../../scripts/demo-model/main.ts';
import { type Hub, startHub } from '../fixtures/models/hub.ts';
import { childrenOf, type RealServer, startRealServer } from '../fixtures/e2e/real-server.ts';

const run = randomBytes(5).toString('hex');
let counter = 0;
const CANARIES: string[] = [];
/** A string that cannot be there by chance, nor from another run. */
function canary(what: string): string {
  const text = `canary${what}${(++counter).toString(36)}q${run}`;
  CANARIES.push(text);
  return text;
}

/** A refusal names the parameter or schema keyword it refuses, to the caller alone: these are names, not content. */
const ECHOED = /^canary(field|keyword)/;
/** The name of a pull is kept with its state, and as the name of the model it became: docs/models.md. */
const PULLED = /^canarypulled/;
function keepsPulledNames(sink: string): boolean {
  return /(^|\/)(pulls|models\/manifests)\/[^/]+\.json$/.test(sink);
}

const BIGGEST_FILE = 64 * 1024 * 1024;

interface Answer {
  readonly status: number;
  readonly text: string;
}

interface Init {
  readonly key?: string;
  readonly headers?: Record<string, string>;
  readonly raw?: string;
  readonly signal?: AbortSignal;
}

describe('no content in any sink', () => {
  let server: RealServer;
  let hub: Hub;
  let folder: string;
  let embedding: string;
  const dispatcher = new Agent({ connect: { rejectUnauthorized: false } });
  /** What refused callers were told: bodies, terminal events of streams, headers. */
  const errors: string[] = [];
  /** What the model wrote of what it was told to write, by its own callers' answers. */
  const written: string[] = [];
  const apiKey = canary('apikey');
  const adminKey = canary('adminkey');
  const hubToken = canary('hubtoken');
  const sinks: Record<string, string> = {};
  let tmpBefore = new Set<string>();

  beforeAll(async () => {
    const { 'demo-embed': model } = await ensureDemoModels(['demo-embed']);
    embedding = model.path;
    hub = await startHub([{ name: 'demo-Q8_0.gguf', bytes: await readFile(embedding) }]);
    tmpBefore = await shared();
    folder = await mkdtemp(join(tmpdir(), 'assay-canary-'));
    for (const name of ['cwd', 'tmp', 'roots']) await mkdir(join(folder, name));
    await writeFile(
      join(folder, 'assay.toml'),
      `[api]
metrics_enabled = true
api_key = "${apiKey}"
admin_key = "${adminKey}"
cors_enabled = true
cors_origins = ["https://known.example"]
[audit]
enabled = true
[models]
hub = "${hub.endpoint}"
hub_private = true
[store]
model_roots = ["${join(folder, 'roots')}"]
`,
    );
    server = await startRealServer({
      dataFolder: join(folder, 'data'),
      args: ['--config', join(folder, 'assay.toml'), '--log-level', 'debug'],
      env: { HF_TOKEN: hubToken, TMPDIR: join(folder, 'tmp') },
      cwd: join(folder, 'cwd'),
    });
  });
  afterEach(() => {
    hub.faults = {};
  });
  afterAll(async () => {
    await dispatcher.destroy();
    await hub.close();
    if (server.process.exitCode === null) await server.stop();
    await rm(folder, { recursive: true, force: true });
  });

  const request = (method: string, path: string, body?: unknown, init: Init = {}): Promise<Response> =>
    fetch(`${server.url}${path}`, {
      method,
      headers: {
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        authorization: `Bearer ${init.key ?? apiKey}`,
        ...init.headers,
      },
      ...(body === undefined && init.raw === undefined ? {} : { body: init.raw ?? JSON.stringify(body) }),
      ...(init.signal ? { signal: init.signal } : {}),
      dispatcher,
    });

  const send = async (method: string, path: string, body?: unknown, init: Init = {}): Promise<Answer> => {
    const response = await request(method, path, body, init);
    const text = await response.text();
    if (response.status >= 400) errors.push(text, JSON.stringify([...response.headers]));
    else errors.push(/data: \{[^\n]*"error"[^\n]*/.exec(text)?.[0] ?? '');
    return { status: response.status, text };
  };
  const succeeds = async (method: string, path: string, body?: unknown, init: Init = {}): Promise<string> => {
    const { status, text } = await send(method, path, body, init);
    expect(status, `${method} ${path} ${text}`).toBeLessThan(300);
    return text;
  };
  const refuses = async (method: string, path: string, body?: unknown, init: Init = {}): Promise<void> => {
    const { status, text } = await send(method, path, body, init);
    expect(status, `${method} ${path} ${text}`).toBeGreaterThanOrEqual(400);
    expect(status, `${method} ${path} ${text}`).toBeLessThan(500);
  };
  const admin = { key: adminKey };

  const chatOf = (): Record<string, unknown> => ({
    model: 'demo-chat',
    messages: [
      { role: 'system', content: canary('system'), name: canary('sysname') },
      { role: 'developer', content: canary('developer') },
      { role: 'user', name: canary('name'), content: canary('user') },
      {
        role: 'assistant',
        content: [
          { type: 'text', text: canary('assistant') },
          { type: 'refusal', refusal: canary('refusalpart') },
        ],
        refusal: canary('refusal'),
        reasoning_content: canary('reasoning'),
        parsed: { [canary('parsedkey')]: canary('parsed') },
        annotations: [canary('annotation')],
        tool_calls: [
          {
            id: canary('callid'),
            type: 'function',
            function: {
              name: canary('calledname'),
              arguments: JSON.stringify({ [canary('argkey')]: canary('arg') }),
              parsed_arguments: { a: canary('parsedarg') },
            },
          },
        ],
      },
      {
        role: 'tool',
        tool_call_id: canary('toolcallid'),
        name: canary('toolrole'),
        content: canary('toolresult'),
      },
      { role: 'user', content: [{ type: 'text', text: canary('part') }] },
    ],
    stop: [canary('stop'), canary('stop')],
    user: canary('enduser'),
    metadata: { [canary('metadatakey')]: canary('metadata') },
    safety_identifier: canary('safety'),
    prompt_cache_key: canary('cachekey'),
    max_tokens: 8,
  });
  const toolsOf = () => {
    const name = canary('tool');
    const parameters = {
      type: 'object',
      description: canary('schemadesc'),
      properties: {
        [canary('property')]: { type: 'string', enum: [canary('enum')], description: canary('propdesc') },
      },
      required: [CANARIES.find((each) => each === CANARIES.at(-3)) ?? ''],
      additionalProperties: false,
    };
    return {
      name,
      tools: [{ type: 'function', function: { name, description: canary('tooldesc'), parameters } }],
    };
  };
  const schemaOf = (schema: unknown) => ({
    type: 'json_schema',
    json_schema: { name: canary('schemaname'), description: canary('schemaabout'), strict: true, schema },
  });

  test('no process of ours may write a core dump', async () => {
    await succeeds('POST', '/v1/completions', { model: 'demo-context', prompt: 'x', max_tokens: 1 });
    for (const pid of [server.process.pid ?? 0, ...(await childrenOf(server.process.pid ?? 0))]) {
      const limits = await readFile(`/proc/${pid}/limits`, 'utf8');
      expect(/Max core file size\s+(\S+)\s+(\S+)/.exec(limits)?.slice(1)).toEqual(['0', '0']);
    }
    // And should a crash handler take one all the same, none of the server's memory is in it.
    if (process.platform === 'linux')
      expect(await readFile(`/proc/${server.process.pid}/coredump_filter`, 'utf8')).toMatch(/^0+\n$/);
  });

  test('success: every field of every route, and what the model writes', async () => {
    await succeeds('POST', '/v1/chat/completions', { ...chatOf(), store: false, service_tier: 'auto' });
    await succeeds('POST', '/v1/chat/completions', {
      ...chatOf(),
      stream: true,
      n: 2,
      stream_options: { include_usage: true },
    });
    // The model is made to write a text that is known: as content, with log probabilities, and as arguments of a call.
    for (const stream of [false, true]) {
      const spoken = canary('spoken');
      const said = await succeeds('POST', '/v1/chat/completions', {
        ...chatOf(),
        stop: [],
        max_tokens: 200,
        logprobs: true,
        top_logprobs: 3,
        stream,
        response_format: schemaOf({ const: spoken }),
      });
      written.push(textOf(said));
      expect(written.at(-1)).toContain(spoken);
      const { name, tools } = toolsOf();
      const choices = [{ type: 'function', function: { name } }, 'required', { type: 'allowed_tools', allowed_tools: { mode: 'required', tools: [{ type: 'function', function: { name } }] } }]; // prettier-ignore
      for (const tool_choice of choices) {
        const called = await succeeds('POST', '/v1/chat/completions', {
          ...chatOf(),
          stop: [],
          max_tokens: 200,
          tools,
          tool_choice,
          stream,
        });
        written.push(textOf(called));
        expect(written.at(-1)).toMatch(/canaryenum/);
      }
    }
    await succeeds('POST', '/v1/chat/completions', {
      ...chatOf(),
      response_format: schemaOf({
        $defs: { [canary('definition')]: { type: 'string', pattern: `^${canary('pattern')}$` } },
        type: 'object',
        properties: {
          a: { $ref: `#/$defs/${CANARIES.at(-2)}` },
          b: { enum: [canary('enum'), canary('enum')] },
        },
        required: ['a', 'b'],
        additionalProperties: false,
      }),
    });
    await succeeds('POST', '/v1/completions', {
      model: 'demo-context',
      prompt: [canary('prompt'), canary('prompt')],
      stop: canary('stop'),
      echo: true,
      logprobs: 2,
      best_of: 1,
      max_tokens: 4,
      user: canary('enduser'),
      metadata: { a: canary('metadata') },
      safety_identifier: canary('safety'),
    });
    await succeeds('POST', '/v1/completions', {
      model: 'demo-context',
      prompt: canary('prompt'),
      max_tokens: 4,
      stream: true,
    });
    await succeeds('POST', '/v1/embeddings', {
      model: 'demo-embed',
      input: [canary('embed'), canary('embed')],
      user: canary('enduser'),
    });
    await succeeds('POST', '/v1/embeddings', {
      model: 'demo-embed',
      input: canary('embed'),
      encoding_format: 'base64',
    });
    await succeeds('POST', '/v1/rerank', {
      model: 'demo-rerank',
      query: canary('query'),
      documents: [canary('document'), { text: canary('documentobject') }],
      return_documents: true,
      user: canary('enduser'),
    });
    for (const body of [
      { content: canary('tokenize'), with_pieces: true },
      { prompt: canary('tokenize') },
      { text: canary('tokenize') },
      { messages: chatOf()['messages'], tools: toolsOf().tools },
    ])
      await succeeds('POST', '/v1/tokenize', { model: 'demo-chat', ...body });
    const { tokens } = JSON.parse(await succeeds('POST', '/v1/tokenize', { model: 'demo-chat', content: canary('detokenize') })) as { tokens: number[] }; // prettier-ignore
    expect(await succeeds('POST', '/v1/detokenize', { model: 'demo-chat', tokens })).toContain(
      CANARIES.at(-1),
    );
    await succeeds('GET', '/v1/models');
    await succeeds('GET', '/v1/models/status');
    await succeeds('GET', '/health', undefined, {
      headers: {
        'user-agent': canary('agent'),
        cookie: canary('cookie'),
        referer: `https://${canary('referer')}.example`,
        origin: `https://${canary('origin')}.example`,
        'x-forwarded-for': canary('forwarded'),
        'x-request-id': `${canary('requestid')}/`,
        'openai-organization': canary('organization'),
        'openai-project': canary('project'),
        'x-stainless-lang': canary('stainless'),
        [canary('headername')]: canary('headervalue'),
      },
    });
    const preflight = {
      'access-control-request-method': 'POST',
      'access-control-request-headers': canary('askedheader'),
    };
    await succeeds('OPTIONS', `/${canary('preflightpath')}`, undefined, {
      headers: { origin: 'https://known.example', ...preflight },
    });
    await refuses('OPTIONS', '/v1/models', undefined, {
      headers: { origin: `https://${canary('origin')}.example`, ...preflight },
    });
    // Models: from the hub, loaded, shown, unloaded, deleted.
    const name = `${canary('pulledowner')}/${canary('pulledrepo')}:Q8_0`;
    expect(await succeeds('POST', '/v1/models/pull', { name, token: canary('pulltoken') }, admin)).toContain(
      '"status":"success"',
    );
    expect(hub.seen.some(({ headers }) => headers.authorization === `Bearer ${CANARIES.at(-1)}`)).toBe(true);
    await succeeds('GET', `/v1/models/pull/${encodeURIComponent(name)}/status`, undefined, admin);
    await succeeds('GET', `/v1/models/${encodeURIComponent(name)}`);
    await succeeds('DELETE', `/v1/models/${encodeURIComponent(name)}`, undefined, admin);
    // And one from a file of the operator's, which is served under the name it was registered by.
    const path = join(folder, 'roots', `${canary('file')}.gguf`);
    await copyFile(embedding, path);
    const settings = { default_parameters: { dimensions: 8 }, format: 'gguf' };
    await succeeds('POST', '/v1/models', { name: 'registered', path, ...settings }, admin);
    await succeeds('POST', '/v1/embeddings', { model: 'registered', input: canary('embed') });
    await succeeds('DELETE', '/v1/models/registered', undefined, admin);
    await succeeds('POST', '/v1/models/unload', { name: 'demo-rerank' }, admin);
    await succeeds('POST', '/v1/models/load', { model: 'demo-rerank' }, admin);
  });

  test('a pull that is cancelled and one that the hub fails', async () => {
    const name = `${canary('pulledowner')}/${canary('pulledrepo')}:Q8_0`;
    // Bytes the store has not seen: others would not be fetched at all.
    const bytes = randomBytes(4_000_000);
    hub.files = [{ name: 'demo-Q8_0.gguf', bytes }];
    const stalled = new Promise<void>((resolve) => {
      hub.faults.cdn = (_, response) => {
        response.writeHead(200, { 'content-length': bytes.length, etag: '"fixed"' });
        response.write(bytes.subarray(0, 500_000), () => resolve());
        return true;
      };
    });
    const pulling = send('POST', '/v1/models/pull', { name, token: canary('pulltoken') }, admin);
    await stalled;
    await succeeds('DELETE', `/v1/models/pull/${encodeURIComponent(name)}`, undefined, admin);
    expect((await pulling).text).toContain('pull_cancelled');
    hub.faults = {
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
      const failed = await send(
        'POST',
        '/v1/models/pull',
        { name: `${repository}/x:Q4_0`, token: canary('pulltoken') },
        admin,
      );
      expect(failed.text).toMatch(/hub_(not_found|forbidden)/);
    }
    // Without a token of its own the pull is made with the server's.
    await send('POST', '/v1/models/pull', { name: `${canary('pulledgated')}/x:Q4_0` }, admin);
    expect(hub.seen.at(-1)?.headers.authorization).toBe(`Bearer ${hubToken}`);
  });

  test('refusals: unknown names, wrong types and values, bad JSON, bad paths, bad keys', async () => {
    const chat = '/v1/chat/completions';
    const c = canary;
    const user = (content: unknown) => ({ ...chatOf(), messages: [{ role: 'user', content }] });
    const strict = (schema: unknown) => ({ ...chatOf(), response_format: schemaOf(schema) });
    for (const body of [
      { ...chatOf(), temperature: c('temperature') },
      { ...chatOf(), [c('field')]: c('value') },
      { ...chatOf(), model: c('model') },
      { ...chatOf(), messages: [{ role: c('role'), content: c('content') }] },
      user(`${c('long')} word`.repeat(20_000)),
      user([
        { type: 'image_url', image_url: { url: `data:image/png;base64,${c('image')}`, detail: c('detail') } },
      ]),
      user([
        { type: 'file', file: { filename: c('filename'), file_data: c('filedata'), file_id: c('fileid') } },
      ]),
      user([{ type: 'input_audio', input_audio: { data: c('audio'), format: 'wav' } }]),
      user([{ type: c('parttype'), text: c('parttext') }]),
      { ...chatOf(), tools: [{ type: 'function', function: { name: `${c('toolname')} ` } }] },
      { ...chatOf(), tools: [...toolsOf().tools, { type: c('tooltype') }] },
      {
        ...chatOf(),
        tools: toolsOf().tools,
        tool_choice: { type: 'function', function: { name: c('chosen') } },
      },
      { ...chatOf(), tools: toolsOf().tools, tool_choice: c('choice') },
      {
        ...chatOf(),
        tools: [
          {
            type: 'function',
            function: {
              name: 'a',
              strict: true,
              parameters: { type: 'object', [c('keyword')]: c('schema') },
            },
          },
        ],
      },
      { ...chatOf(), function_call: c('functioncall'), functions: [{ name: c('function') }] },
      { ...chatOf(), response_format: { type: c('format') } },
      {
        ...chatOf(),
        response_format: { type: 'json_schema', json_schema: { name: `${c('schemaname')} `, schema: {} } },
      },
      strict({ type: 'object', [c('keyword')]: c('schema') }),
      strict({ type: 'object', properties: { [c('keywordproperty')]: { type: c('type') } } }),
      strict({ $ref: `#/$defs/${c('reference')}` }),
      strict({ type: 'string', pattern: `(?<=${c('pattern')})` }),
      strict({ type: 'string', format: c('stringformat') }),
      strict({ enum: c('enum') }),
      strict({ type: 'string', const: c('const'), not: { const: c('not') } }),
      strict({ type: 'object', properties: {}, required: [c('required')], additionalProperties: false }),
      { ...chatOf(), logit_bias: { [c('bias')]: 1 } },
      { ...chatOf(), logit_bias: { '1': c('biasvalue') } },
      { ...chatOf(), keep_alive: c('keepalive') },
      { ...chatOf(), service_tier: c('tier') },
      { ...chatOf(), store: c('store') },
      { ...chatOf(), metadata: c('metadata') },
      { ...chatOf(), user: { a: c('enduser') } },
      { ...chatOf(), modalities: [c('modality')] },
      { ...chatOf(), prompt_cache_retention: c('retention') },
      { ...chatOf(), prediction: { content: c('prediction') }, reasoning_effort: c('effort') },
      { ...chatOf(), stream: true, stream_options: { [c('field')]: c('streamoption') } },
      { ...chatOf(), stop: Array.from({ length: 17 }, () => c('stop')) },
      { ...chatOf(), seed: c('seed') },
    ])
      await refuses('POST', chat, body);
    // A schema that is not strict is loosened instead: what it says reaches the caller's own header alone.
    const loose = { type: 'object', properties: { [c('loosename')]: { uniqueItems: c('loosevalue') } } };
    const named = { name: 'loosened', parameters: loose };
    await succeeds('POST', chat, { ...chatOf(), tools: [{ type: 'function', function: named }] });
    for (const [path, body] of [
      ['/v1/completions', { model: 'demo-context', prompt: c('prompt'), suffix: c('suffix') }],
      ['/v1/completions', { model: 'demo-context', prompt: c('prompt'), best_of: c('bestof') }],
      ['/v1/completions', { model: 'demo-context', prompt: { a: c('object') } }],
      ['/v1/completions', { model: 'demo-context', prompt: [1, c('token')] }],
      ['/v1/embeddings', { model: 'demo-chat', input: c('wrongmodel') }],
      [
        '/v1/embeddings',
        {
          model: 'demo-embed',
          input: c('embed'),
          encoding_format: c('encoding'),
          dimensions: c('dimensions'),
        },
      ],
      ['/v1/embeddings', { model: 'demo-embed', input: `${c('long')} word`.repeat(20_000) }],
      [
        '/v1/rerank',
        {
          model: 'demo-rerank',
          query: c('query'),
          documents: [{ text: c('document'), [c('field')]: c('value') }],
        },
      ],
      [
        '/v1/rerank',
        { model: 'demo-rerank', query: [c('query')], documents: c('documents'), top_n: c('topn') },
      ],
      ['/v1/rerank', { model: 'demo-chat', query: c('query'), documents: [c('document')] }],
      ['/v1/tokenize', { model: 'demo-chat', content: c('tokenize'), prompt: c('tokenize') }],
      ['/v1/tokenize', { model: c('model'), content: c('tokenize') }],
      ['/v1/detokenize', { model: 'demo-chat', tokens: [c('token')] }],
      ['/v1/detokenize', { model: 'demo-chat', tokens: [2 ** 31 - 1], [c('field')]: c('value') }],
      [`/${c('route')}`, { a: c('body') }],
    ] as const)
      await refuses('POST', path, body);
    for (const [method, path, body] of [
      ['POST', '/v1/models', { name: c('modelname'), path: join(folder, 'roots', `${c('path')}.gguf`) }],
      ['POST', '/v1/models', { name: c('modelname'), path: `/etc/../${c('path')}` }],
      [
        'POST',
        '/v1/models',
        {
          name: `${c('modelname')} `,
          path: 'x',
          format: c('format'),
          default_parameters: { [c('field')]: 1 },
        },
      ],
      ['DELETE', `/v1/models/${c('deleted')}`, undefined],
      ['POST', '/v1/models/load', { name: c('loadname'), keep_alive: '1s' }],
      ['POST', '/v1/models/load', { name: 'demo-chat', keep_alive: c('keepalive') }],
      ['POST', '/v1/models/unload', { path: c('unloadname') }],
      ['POST', '/v1/models/pull', { name: `${c('pullname')} x`, token: c('pulltoken') }],
      ['POST', '/v1/models/pull', { name: 'a/b:c', token: { a: c('pulltoken') }, force: c('force') }],
      ['DELETE', `/v1/models/pull/${c('pullname')}`, undefined],
      ['DELETE', `/v1/models/pull/${c('pullname')}%2Fx`, undefined],
    ] as const) {
      await refuses(method, path, body, admin);
      // And the same by somebody whose key is none for this.
      await refuses(method, path, body, { key: canary('wrongkey') });
      await refuses(method, path, body);
    }
    for (const path of [
      `/${c('route')}?${c('queryname')}=${c('queryvalue')}`,
      `/v1/models/${c('model')}`,
      `/v1/models/%zz${c('percent')}`,
      `/v1/models/pull/${c('pullname')}/status`,
      `/v1/attestation?nonce=${c('nonce')}.`,
      `/v1/attestation?nonce=${'ab'.repeat(16)}&model=${c('model')}`,
      `/v1/attestation?nonce=${'ab'.repeat(16)}&${c('field')}=${c('queryvalue')}`,
    ])
      await refuses('GET', path);
    await refuses('GET', `/v1/models/pull/${c('pullname')}/status`, undefined, admin);
    await refuses('GET', '/v1/models', undefined, { key: canary('wrongkey') });
    await refuses('GET', '/v1/models', undefined, { headers: { authorization: `Basic ${canary('basic')}` } });
    for (const init of [
      {
        raw: `{"model":"demo-chat","messages":[{"role":"user","content":"${canary('broken')}`,
        headers: { 'content-type': 'application/json' },
      },
      {
        raw: `{"${canary('prototype')}":1,"__proto__":{"${canary('prototype')}":"${canary('prototype')}"}}`,
        headers: { 'content-type': 'application/json' },
      },
      { raw: JSON.stringify(chatOf()), headers: { 'content-type': canary('contenttype') } },
      {
        raw: JSON.stringify(chatOf()),
        headers: { 'content-type': `application/json; charset=${canary('charset')}` },
      },
      { raw: JSON.stringify(chatOf()), headers: { 'content-encoding': canary('encoding') } },
      {
        raw: `--x\r\ncontent-disposition: form-data; name="${canary('formname')}"; filename="${canary('formfile')}"\r\n\r\n${canary('formbody')}\r\n--x--`,
        headers: { 'content-type': `multipart/form-data; boundary=x; y=${canary('boundary')}` },
      },
    ])
      await refuses('POST', chat, undefined, init);
    // Each said why, in the one form errors have.
    const codes = new Set(errors.flatMap((text) => /"code":"(\w+)"/.exec(text)?.[1] ?? []));
    for (const code of [
      'unknown_parameter',
      'invalid_schema',
      'invalid_model_name',
      'invalid_api_key',
      'invalid_json',
      'context_length_exceeded',
    ])
      expect(codes).toContain(code);
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
      ].map((bytes) => raw(bytes, `${canary('sni')}.example`)),
    );
    errors.push(...bodies);
    // Each was answered or cut off; those with a readable line before the fault have an answer.
    expect(bodies.filter((body) => body.startsWith('HTTP/1.1 4')).length).toBeGreaterThanOrEqual(6);
  });

  /** Writes, and reads until the server has ended the connection, or an answer is complete that keeps it open. */
  const raw = (bytes: string, servername: string): Promise<string> =>
    new Promise((resolve, reject) => {
      let text = '';
      const socket = connectTls(
        { port: server.port, host: '127.0.0.1', servername, rejectUnauthorized: false },
        () => socket.write(bytes),
      );
      socket.setEncoding('latin1').on('data', (chunk: string) => {
        text += chunk;
        const [head = '', body] = text.split('\r\n\r\n');
        const length = /content-length: (\d+)/i.exec(head)?.[1];
        if (body !== undefined && length !== undefined && body.length >= Number(length)) socket.end();
      });
      socket.on('close', () => resolve(text));
      socket.on('error', (error) =>
        (error as NodeJS.ErrnoException).code === 'ECONNRESET' ? resolve(text) : reject(error),
      );
    });

  test('abort and crash in mid-stream', async () => {
    const stream = (what: string, signal?: AbortSignal): Promise<Response> =>
      request('POST', '/v1/completions', { model: 'demo-context', prompt: canary(what), max_tokens: 1800, stream: true }, signal === undefined ? {} : { signal }); // prettier-ignore
    const controller = new AbortController();
    const aborted = await stream('aborted', controller.signal);
    await aborted.body?.getReader().read();
    controller.abort();
    const crashing = await stream('crashed');
    const reader = crashing.body?.getReader();
    await reader?.read();
    const killed = await childrenOf(server.process.pid ?? 0);
    for (const pid of killed) process.kill(pid, 'SIGABRT');
    let tail = '';
    for (let part = await reader?.read(); part && !part.done; part = await reader?.read())
      tail += Buffer.from(part.value as Uint8Array).toString();
    expect(tail).toContain('engine_crashed');
    errors.push(tail.slice(tail.lastIndexOf('data: {"error"')));
    await server.logged(
      (line) => JSON.stringify(line).includes('engine') || JSON.stringify(line).includes('crash'),
    );
    await expect
      .poll(async () => (await childrenOf(server.process.pid ?? 0)).filter((pid) => killed.includes(pid)))
      .toEqual([]);
  });

  // The engines are halted, so that every request is in one when its client leaves, or the engine dies, whatever the machine's pace.
  test.each(['abort', 'crash'] as const)('%s of every route that an engine answers', async (what) => {
    const rounds = (): readonly (readonly [string, unknown])[] => [
      ['/v1/chat/completions', { ...chatOf(), max_tokens: 40 }],
      ['/v1/chat/completions', { ...chatOf(), max_tokens: 40, stream: true, n: 2 }],
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
      await succeeds('POST', '/v1/models/load', { name }, admin);
    const pids = await childrenOf(server.process.pid ?? 0);
    expect(pids.length).toBeGreaterThanOrEqual(4);
    for (const pid of pids) expect(await leaksOfProcess(pid)).toEqual([]);
    // The search finds what is there: the hub's token is in the environment the server itself was given.
    expect(await leaksOfProcess(server.process.pid ?? 0)).toEqual([hubToken]);
    for (const pid of pids) process.kill(pid, 'SIGSTOP');
    const controller = new AbortController();
    const asked = rounds().map(([path, body]) =>
      send('POST', path, body, { signal: controller.signal }).then(
        ({ status, text }) => `${status} ${/"code":"(\w+)"/.exec(text)?.[1]}`,
        (error: unknown) => (error as Error).name,
      ),
    );
    await holding(asked.length);
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
    await holding(0);
  });

  /** Until that many requests hold a model. */
  const holding = async (wanted: number): Promise<void> => {
    const held = async (): Promise<string | undefined> =>
      /^assay_model_requests_in_flight (\d+)$/m.exec(
        (await send('GET', '/metrics', undefined, { key: adminKey })).text,
      )?.[1];
    await expect.poll(held, { timeout: 15_000 }).toBe(String(wanted));
  };

  /** Command line, environment and open files of an engine: it is given neither keys nor tokens, and no text by name or file. */
  const leaksOfProcess = async (pid: number): Promise<string[]> => {
    const texts = [await readFile(`/proc/${pid}/cmdline`, 'latin1')];
    expect(texts[0]).toContain('node');
    // An engine is not dumpable: of these two nobody but root may see anything.
    texts.push(await readFile(`/proc/${pid}/environ`, 'latin1').catch(ifForbidden('')));
    for (const fd of await readdir(`/proc/${pid}/fd`).catch(ifForbidden([])))
      texts.push(await readlink(`/proc/${pid}/fd/${fd}`));
    return CANARIES.filter((value) => texts.some((text) => text.includes(value)));
  };

  test('then: nothing of it in any sink', async () => {
    const pid = server.process.pid ?? 0;
    sinks['cmdline'] = await readFile(`/proc/${pid}/cmdline`, 'latin1');
    // Files the server holds open, with a name or without.
    for (const fd of await readdir(`/proc/${pid}/fd`)) {
      const path = `/proc/${pid}/fd/${fd}`;
      const found = await stat(path).catch(() => undefined);
      if (found?.isFile() === true && found.size < BIGGEST_FILE)
        sinks[`fd ${await readlink(path)}`] = (await readFile(path)).toString('latin1');
    }
    sinks['metrics'] = await succeeds('GET', '/metrics', undefined, { key: adminKey });
    expect(await server.stop()).toBe(0);
    sinks['stdout'] = server.stdout();
    sinks['stderr'] = server.stderr();
    sinks['error bodies'] = errors.join('\n');
    await collect(server.dataFolder);
    await collect(join(folder, 'tmp'));
    expect(await readdir(join(folder, 'cwd'))).toEqual([]);
    for (const path of await shared()) if (!tmpBefore.has(path) && path !== folder) await collect(path);

    // The search finds what is there: each sink has what it should have, and the data folder the names that it may have.
    expect(sinks['stderr']).toContain('/v1/chat/completions');
    expect(sinks['metrics']).toContain('assay_');
    expect(sinks['error bodies']).toContain('unknown_parameter');
    expect(Object.keys(sinks).some((name) => name.includes('audit'))).toBe(true);
    expect(
      Object.entries(sinks).filter(([sink, text]) => keepsPulledNames(sink) && /canarypulled/.test(text))
        .length,
    ).toBeGreaterThan(3);
    expect(written).toHaveLength(8);
    expect(CANARIES.length).toBeGreaterThan(400);

    const allowed = (sink: string, value: string): boolean =>
      (sink === 'error bodies' && ECHOED.test(value)) || (PULLED.test(value) && keepsPulledNames(sink));
    const leaks = Object.entries(sinks).flatMap(([sink, text]) =>
      (`${sink} ${text}`.includes(run) ? CANARIES : [])
        .filter((value) => `${sink} ${text}`.includes(value) && !allowed(sink, value))
        .map((value) => `${sink}: ${value}`),
    );
    expect(leaks.join('\n')).toBe('');
  });

  /** Every file below, by its path. What is gone meanwhile, or another's, is no sink of ours. */
  async function collect(path: string): Promise<void> {
    const found = await stat(path).catch(() => undefined);
    if (found?.isDirectory() === true) {
      for (const name of await readdir(path).catch(() => [])) await collect(join(path, name));
    } else if (found?.isFile() === true && found.size < BIGGEST_FILE) {
      const bytes = await readFile(path).catch(() => undefined);
      // Files of others are many and large; the one string that all of ours have says which to look into.
      if (bytes !== undefined)
        sinks[path] = path.startsWith(folder) || bytes.includes(run) ? bytes.toString('latin1') : '';
    }
  }
});

function ifForbidden<T>(instead: T) {
  return (error: NodeJS.ErrnoException): T => {
    if (error.code !== 'EACCES') throw error;
    return instead;
  };
}

/** What stands in the folders all programs share. */
async function shared(): Promise<Set<string>> {
  const found = new Set<string>();
  for (const folder of ['/tmp', '/var/tmp', '/dev/shm', tmpdir()])
    for (const name of await readdir(folder).catch(() => [])) found.add(join(folder, name));
  return found;
}

/** What a chat answer says: content and arguments, of one body or of all chunks. */
function textOf(answer: string): string {
  const bodies = answer.startsWith('data: ')
    ? answer.split('\n\n').flatMap((event) => (event.startsWith('data: {') ? [event.slice(6)] : []))
    : [answer];
  interface Said {
    readonly content?: string | null;
    readonly tool_calls?: readonly {
      readonly function?: { readonly name?: string; readonly arguments?: string };
    }[];
  }
  return bodies
    .flatMap((body) => (JSON.parse(body) as { choices: { message?: Said; delta?: Said }[] }).choices)
    .flatMap(({ message, delta }) => [message, delta])
    .map(
      (said) =>
        `${said?.content ?? ''}${(said?.tool_calls ?? []).map((call) => call.function?.arguments ?? '').join('')}`,
    )
    .join('');
}
