// /v1/batches through the OpenAI SDK: from a file of requests to files of answers, on every endpoint.

import type OpenAI from 'openai';
import { afterEach, describe, expect, test } from 'vitest';
import { detectReasoning } from '../../../../src/engine/seam/reasoning.ts';
import { DEFAULT_CONFIG } from '../../../../src/http/deps.ts';
import { manualClock } from '../../../fixtures/clock.ts';
import {
  begun,
  chatLine,
  ended,
  type FilesApi,
  linesOf,
  startFilesApi,
  turn,
} from '../../../fixtures/files/files-api.ts';
import { apiKey, type ApiServerOptions } from '../../../fixtures/http/api-server.ts';
import { latch, untilAborted } from '../../../fixtures/latch.ts';

let files: FilesApi | undefined;
afterEach(async () => {
  await files?.close();
  files = undefined;
});

async function started(options: ApiServerOptions = {}, given?: Parameters<typeof startFilesApi>[1]) {
  files = await startFilesApi(options, given);
  return { files, client: files.client() };
}

type Endpoint = OpenAI.BatchCreateParams['endpoint'];
describe('a batch', () => {
  test('of many lines at once has no listeners that Node warns of', async () => {
    const warnings: Error[] = [];
    const warned = (warning: Error): void => void warnings.push(warning);
    process.on('warning', warned);
    const { client } = await started({
      config: { files: { ...DEFAULT_CONFIG.files, batchConcurrency: 64 } },
    });
    const lines = Array.from({ length: 64 }, (_, i) => chatLine(String(i)));
    const { request_counts: counts } = await ended(client, (await begun(client, lines)).id);
    process.off('warning', warned);
    expect([counts?.completed, warnings]).toEqual([64, []]);
  });

  test('answers every line, in the form of the API', async () => {
    const { client } = await started();
    const made = await begun(
      client,
      ['a', 'b', 'c'].map((id) => chatLine(id)),
      {
        metadata: { job: 'nightly' },
        output_expires_after: { anchor: 'created_at', seconds: 3600 },
      },
    );
    expect(made).toMatchObject({
      object: 'batch',
      status: 'validating',
      completion_window: '24h',
      errors: null,
      metadata: { job: 'nightly' },
      request_counts: { total: 0, completed: 0, failed: 0 },
      expires_at: made.created_at + 86_400,
    });
    const batch = await ended(client, made.id);
    expect(batch).toMatchObject({
      status: 'completed',
      request_counts: { total: 3, completed: 3, failed: 0 },
      error_file_id: null,
      usage: { output_tokens: 12 },
    });
    const lines = await linesOf(client, batch.output_file_id);
    expect(lines.map((line) => line.custom_id).toSorted()).toEqual(['a', 'b', 'c']);
    expect(new Set(lines.map((line) => line.id)).size).toBe(3);
    for (const { response, error } of lines) {
      expect(error).toBeNull();
      expect(response).toMatchObject({
        status_code: 200,
        body: { object: 'chat.completion', choices: [{ message: { content: 'Hello, world!' } }] },
      });
    }
    const output = await client.files.retrieve(batch.output_file_id as string);
    expect(output).toMatchObject({ purpose: 'batch_output', expires_at: output.created_at + 3600 });
    expect((await client.batches.list()).data).toEqual([batch]);
  });

  test.each<readonly [Endpoint, object, object]>([
    ['/v1/completions', { model: 'demo', prompt: 'x' }, { object: 'text_completion' }],
    [
      '/v1/embeddings',
      { model: 'text-embed', input: 'x' },
      { object: 'list', data: [{ object: 'embedding' }] },
    ],
    ['/v1/responses', { model: 'demo', input: 'x' }, { object: 'response', status: 'completed' }],
  ])('of %s', async (endpoint, body, answer) => {
    const { client } = await started();
    const line = { custom_id: 'one', method: 'POST', url: endpoint, body };
    const batch = await ended(client, (await begun(client, [line], { endpoint })).id);
    expect(batch.status).toBe('completed');
    const [only] = await linesOf(client, batch.output_file_id);
    expect(only?.response?.body).toMatchObject(answer);
  });

  test('opens the reasoning that was sealed for a live request of its key', async () => {
    const engine = {
      reasoning: detectReasoning('<think></think>'),
      script: () => ['<think>', 'Secret', '</think>', 'Yes'],
    };
    const { client, files: started_ } = await started({ engine });
    const live = await client.responses.create({
      model: 'demo',
      input: 'Hi',
      include: ['reasoning.encrypted_content'],
    });
    const [item] = live.output;
    const input = [
      { ...item, content: undefined },
      { role: 'user', content: 'So?' },
    ];
    const url = '/v1/responses';
    const line = { custom_id: 'one', method: 'POST', url, body: { model: 'demo', input } };
    const batch = await ended(client, (await begun(client, [line], { endpoint: url })).id);
    expect(batch.request_counts).toEqual({ total: 1, completed: 1, failed: 0 });
    expect(started_.api.engine.requests.at(-1)?.prompt).toMatchObject({
      messages: [{ role: 'assistant', reasoning: 'Secret' }, { role: 'user' }],
    });
  });

  test('writes the lines that fail to an error file of their own', async () => {
    const { client } = await started();
    const lines = [
      chatLine('good'),
      chatLine('hot', { temperature: 9 }),
      JSON.stringify(chatLine('far', { temperature: 9 })).replace('"temperature":9', '"temperature":1e999'),
      chatLine('stream', { stream: true }),
      { ...chatLine('embed'), body: { model: 'text-embed', messages: [{ role: 'user', content: 'x' }] } },
    ];
    const batch = await ended(client, (await begun(client, lines)).id);
    expect(batch).toMatchObject({
      status: 'completed',
      request_counts: { total: 5, completed: 1, failed: 4 },
    });
    const failed = await linesOf(client, batch.error_file_id);
    const codes = failed.map(
      ({ custom_id: id, response }) => `${id} ${response?.status_code} ${response?.body.error?.code}`,
    );
    expect(codes.toSorted((a, b) => a.localeCompare(b))).toEqual([
      'embed 400 wrong_model_type',
      'far 400 decimal_above_max_value',
      'hot 400 decimal_above_max_value',
      'stream 400 unsupported_parameter',
    ]);
    expect((await linesOf(client, batch.output_file_id)).map((line) => line.custom_id)).toEqual(['good']);
  });

  test.each<readonly [string, readonly (object | string)[], object]>([
    ['no line', ['', ''], { code: 'empty_file', line: null }],
    ['no JSON', [chatLine('a'), '{"custom_id":'], { code: 'invalid_json_line', line: 2 }],
    ['no object', ['[]'], { code: 'invalid_json_line', line: 1 }],
    [
      'an id twice',
      [chatLine('a'), '', chatLine('a')],
      { code: 'duplicate_custom_id', line: 3, param: 'custom_id' },
    ],
    ['no id', [{ ...chatLine('a'), custom_id: undefined }], { code: 'missing_required_parameter', line: 1 }],
    ['a long id', [chatLine('a'.repeat(513))], { code: 'string_above_max_length', line: 1 }],
    ['another method', [{ ...chatLine('a'), method: 'GET' }], { code: 'invalid_method', line: 1 }],
    ['another url', [{ ...chatLine('a'), url: '/v1/embeddings' }], { code: 'mismatched_url', line: 1 }],
    ['no body', [{ ...chatLine('a'), body: 'x' }], { code: 'missing_required_parameter', param: 'body' }],
    ['another field', [{ ...chatLine('a'), priority: 1 }], { code: 'unknown_parameter', line: 1 }],
    ['no such model', [chatLine('a', { model: 'gpt-4o' })], { code: 'model_not_found', param: 'body.model' }],
    ['a prototype', ['{"custom_id":"a","__proto__":{}}'], { code: 'invalid_json_line', line: 1 }],
    [
      'deep nesting',
      [`{"custom_id":"a","body":${'['.repeat(200)}${']'.repeat(200)}}`],
      { code: 'json_too_deep', line: 1 },
    ],
    ['a long line', [chatLine('a', { padding: 'x'.repeat(70_000) })], { code: 'line_too_long', line: 1 }],
  ])('with %s fails before a line runs', async (_what, lines, error) => {
    const { client, files: api } = await started({
      config: { limits: { ...DEFAULT_CONFIG.limits, maxBodyBytes: 65_536 } },
    });
    const batch = await ended(client, (await begun(client, lines)).id);
    expect(batch).toMatchObject({ status: 'failed', output_file_id: null, request_counts: { total: 0 } });
    expect(batch.errors?.data?.[0]).toMatchObject(error);
    expect(api.api.engine.requests).toHaveLength(0);
  });

  test('of more lines than may be fails', async () => {
    const { client } = await started({}, { limits: { fileBytes: 2 ** 26 } });
    const lines = Array.from({ length: 50_001 }, (_, i) => chatLine(String(i)));
    const batch = await ended(client, (await begun(client, lines)).id);
    expect(batch.errors?.data).toEqual([expect.objectContaining({ code: 'too_many_lines', line: null })]);
  });
});

describe('cancelled', () => {
  test('a batch keeps the lines that are answered', async () => {
    const gate = latch();
    let over = 0;
    const { client } = await started({
      engine: {
        slots: 1,
        beforeToken: async (_position, signal) => {
          if (over >= 2) await Promise.race([gate.opened, untilAborted(signal)]);
        },
        script: () => {
          over += 1;
          return ['x'];
        },
      },
      config: { files: { ...DEFAULT_CONFIG.files, batchConcurrency: 1 } },
    });
    const { id } = await begun(
      client,
      ['a', 'b', 'c', 'd'].map((each) => chatLine(each)),
    );
    while ((await client.batches.retrieve(id)).request_counts?.completed !== 1) await turn();
    expect((await client.batches.cancel(id)).status).toBe('cancelling');
    const batch = await ended(client, id);
    expect(batch.status).toBe('cancelled');
    expect(batch.cancelled_at).toBeGreaterThan(0);
    expect((await linesOf(client, batch.output_file_id)).map((line) => line.custom_id)).toEqual(['a']);
    await expect(client.batches.cancel(id)).rejects.toMatchObject({ status: 409, code: 'batch_ended' });
    gate.open();
  });
});

test('a batch that does not end in its window expires, and says which lines did not run', async () => {
  const clock = manualClock(1_700_000_000_000);
  let over = 0;
  const { client } = await started(
    {
      engine: {
        slots: 1,
        beforeToken: async (_position, signal) => {
          if (over >= 2) await untilAborted(signal);
        },
        script: () => {
          over += 1;
          return ['x'];
        },
      },
      config: { files: { ...DEFAULT_CONFIG.files, batchConcurrency: 1 } },
    },
    { clock },
  );
  const { id } = await begun(
    client,
    ['a', 'b', 'c'].map((each) => chatLine(each)),
  );
  while ((await client.batches.retrieve(id)).request_counts?.completed !== 1) await turn();
  clock.advance(86_400_000);
  const batch = await ended(client, id);
  expect(batch).toMatchObject({ status: 'expired', request_counts: { total: 3, completed: 1 } });
  expect((await linesOf(client, batch.output_file_id)).map((line) => line.custom_id)).toEqual(['a']);
  const unrun = await linesOf(client, batch.error_file_id);
  expect(unrun.map((line) => [line.custom_id, line.response, line.error?.code])).toEqual([
    ['b', null, 'batch_expired'],
    ['c', null, 'batch_expired'],
  ]);
});

describe('a key', () => {
  const keys = (limits: Partial<ReturnType<typeof apiKey>['limits']> = {}): ApiServerOptions => ({
    config: {
      auth: {
        ...DEFAULT_CONFIG.auth,
        required: true,
        keys: [
          apiKey('one', { limits: { requestsPerMinute: 0, tokensPerMinute: 0, concurrent: 0, ...limits } }),
          apiKey('two'),
          apiKey('narrow', { models: ['text-embed'] }),
        ],
      },
      files: { ...DEFAULT_CONFIG.files, maxBatchesPerKey: 2 },
    },
  });

  test('finds its own batches alone', async () => {
    files = await startFilesApi(keys());
    const [one, two] = [files.client('one'), files.client('two')];
    const { id, input_file_id } = await begun(one, [chatLine('a')]);
    await expect(two.batches.retrieve(id)).rejects.toMatchObject({ status: 404, code: 'no_such_batch' });
    await expect(two.batches.cancel(id)).rejects.toMatchObject({ status: 404, code: 'no_such_batch' });
    expect((await two.batches.list()).data).toEqual([]);
    await expect(
      two.batches.create({ input_file_id, endpoint: '/v1/chat/completions', completion_window: '24h' }),
    ).rejects.toMatchObject({ status: 404, code: 'no_such_file' });
    await ended(one, id);
  });

  test('uses its own models alone', async () => {
    files = await startFilesApi(keys());
    const client = files.client('narrow');
    const batch = await ended(client, (await begun(client, [chatLine('a')])).id);
    const [line] = await linesOf(client, batch.error_file_id);
    expect(line?.response).toMatchObject({
      status_code: 403,
      body: { error: { code: 'model_not_allowed' } },
    });
  });

  test('has as many batches as it may; another has its own', async () => {
    const gate = latch();
    const options = keys();
    files = await startFilesApi({ ...options, engine: { beforeToken: () => gate.opened } });
    const [one, two] = [files.client('one'), files.client('two')];
    const first = await begun(one, [chatLine('a')]);
    const second = await begun(one, [chatLine('a')]);
    await expect(begun(one, [chatLine('a')])).rejects.toMatchObject({
      status: 429,
      code: 'too_many_batches',
    });
    const other = await begun(two, [chatLine('a')]);
    await expect(one.files.delete(first.input_file_id)).rejects.toMatchObject({ code: 'file_in_use' });
    gate.open();
    for (const { id } of [first, second]) expect((await ended(one, id)).status).toBe('completed');
    expect((await ended(two, other.id)).status).toBe('completed');
    await one.files.delete(first.input_file_id);
  });

  test('has its limit a minute also in a batch: its lines wait, none fails', async () => {
    const clock = manualClock(1_700_000_000_000);
    files = await startFilesApi(keys({ requestsPerMinute: 3 }), { clock });
    const one = files.client('one');
    // The upload and the batch are two of the three.
    const { id } = await begun(
      one,
      ['a', 'b', 'c', 'd', 'e', 'f'].map((each) => chatLine(each)),
    );
    const statuses = (): number[] =>
      files?.api.records
        .filter(({ route }) => route === '/v1/chat/completions')
        .map(({ status }) => status) ?? [];
    while (statuses().filter((status) => status === 200).length < 6) {
      await turn();
      clock.advance(2);
    }
    expect(statuses()).toContain(429);
    const asked = (): Promise<OpenAI.Batches.Batch> => {
      clock.advance(20_000);
      return one.batches.retrieve(id);
    };
    let batch = await asked();
    while (batch.status !== 'completed') batch = await asked();
    expect(batch.request_counts).toEqual({ total: 6, completed: 6, failed: 0 });
  });
});

test('a batch of a model that was replaced does not use the other', async () => {
  const gate = latch();
  const { client, files: api } = await started({
    engine: { beforeToken: () => gate.opened },
    config: { files: { ...DEFAULT_CONFIG.files, batchConcurrency: 1 } },
  });
  const { id } = await begun(client, [chatLine('a'), chatLine('b')]);
  await api.api.begun(0);
  while (api.api.engine.requests.length === 0) await turn();
  const real = api.api.models.get.bind(api.api.models);
  (api.api.models as { get: typeof real }).get = (name) => {
    const found = real(name);
    return found === undefined ? undefined : { ...found, sha256: 'f'.repeat(64) };
  };
  gate.open();
  const batch = await ended(client, id);
  const [refused] = await linesOf(client, batch.error_file_id);
  expect(refused).toMatchObject({
    custom_id: 'b',
    response: { status_code: 409, body: { error: { code: 'attestation_stale' } } },
  });
});
