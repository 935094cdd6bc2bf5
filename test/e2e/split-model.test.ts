// A split model through the whole product: configured by its first part, pinned by clients through the
// digest of its manifest, answering over attested TLS with its keys and values as Q8_0; a list of parts
// over the API, and what is wrong with one.

import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { allowSimulated, type AppraisalPolicy } from '@assay/attestation';
import { type AttestedFetch, attestedFetch } from '@assay/attestation/node';
import { ensureDemoModels } from '../../scripts/demo-model/main.ts';
import { EXPECTED } from '../../scripts/demo-model/text.ts';
import { spawnAssay } from '../fixtures/e2e/assay.ts';
import { type RealServer, startRealServer } from '../fixtures/e2e/real-server.ts';
import { splitGguf } from '../fixtures/models/gguf-split.ts';
import { tinyGguf } from '../fixtures/models/gguf-tiny.ts';

describe('a split model', () => {
  let folder: string;
  let server: RealServer;
  let fetch: AttestedFetch;
  let paths: readonly string[];

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'assay-split-'));
    const { 'demo-chat': demo } = await ensureDemoModels(['demo-chat']);
    const parts = await splitGguf(await readFile(demo.path), 3);
    paths = parts.map((_, i) => join(folder, `M-0000${i + 1}-of-00003.gguf`));
    for (const [i, bytes] of parts.entries()) await writeFile(paths[i]!, bytes);
    await writeFile(join(folder, 'tiny.gguf'), tinyGguf());
    await writeFile(
      join(folder, 'assay.toml'),
      [
        '[store]',
        `model_roots = [${JSON.stringify(folder)}]`,
        '[api.models.split]',
        'path = "M-00001-of-00003.gguf"',
        'kv_type = "q8_0"',
      ].join('\n'),
    );
    server = await startRealServer({ args: ['--config', join(folder, 'assay.toml')] });
    fetch = attestedFetch({ policy: { ...(server.policy as AppraisalPolicy), [allowSimulated]: true } });
  });
  afterAll(async () => {
    await fetch.close();
    expect(await server.stop()).toBe(0);
    await rm(folder, { recursive: true });
  });

  async function call(path: string, body?: object): Promise<{ status: number; body: unknown }> {
    const response = await fetch(`${server.url}${path}`, {
      method: body === undefined ? 'GET' : 'POST',
      headers: { 'content-type': 'application/json' },
      body: body === undefined ? null : JSON.stringify(body),
    });
    return { status: response.status, body: await response.json() };
  }

  test('is what the policy pins, and answers as the whole file does', async () => {
    const { body } = await call('/v1/models/split');
    expect(body).toMatchObject({
      kind: 'manifest',
      sha256: server.policy.models['split'],
      residency: 'memory',
      kv_type: 'q8_0',
    });
    const { question, answer } = EXPECTED[0]!;
    const answered = await call('/v1/chat/completions', {
      model: 'split',
      temperature: 0,
      messages: [{ role: 'user', content: question }],
    });
    expect(answered.body).toMatchObject({ choices: [{ message: { content: answer } }] });
  });

  const KV_TYPE = 'default_parameters.kv_type';
  test.each([
    [
      'parts out of order',
      () => ({ path: paths.toReversed() }),
      /part 1 of 3 \(M-00003/,
      'invalid_gguf',
      null,
    ],
    ['a part less', () => ({ path: paths.slice(0, 2) }), /split\.count 3, expected 2/, 'invalid_gguf', null],
    ['no part', () => ({ path: [] }), /at least 1/, 'empty_array', 'path'],
    ['a number', () => ({ path: 7 }), /path/, 'invalid_type', 'path'],
    [
      'an unknown kv_type',
      () => ({ path: paths, default_parameters: { kv_type: 'q4_0' } }),
      /kv_type/,
      'invalid_value',
      KV_TYPE,
    ],
    [
      'heads that q8_0 does not fit',
      () => ({ path: join(folder, 'tiny.gguf'), default_parameters: { kv_type: 'q8_0' } }),
      /width of 16, expected a multiple of 32/,
      'invalid_value',
      KV_TYPE,
    ],
  ])('%s: a typed 400 that says it', async (_, body, message, ...refusal) => {
    const [code, param] = refusal;
    expect(await call('/v1/models', { name: 'm', ...body() })).toMatchObject({
      status: 400,
      body: { error: { code, param, message: expect.stringMatching(message) as string } },
    });
  });

  test('a configured kv_type that the model cannot have ends the start, and names the key', async () => {
    const config = join(folder, 'wrong.toml');
    await writeFile(config, '[api.models.tiny]\npath = "tiny.gguf"\nkv_type = "q8_0"\n');
    const started = spawnAssay(['serve', '--tee', 'none', '--config', config, '--data', join(folder, 'd')], {
      cwd: folder,
    });
    expect((await started.ended)[0]).toBe(2);
    expect(started.err()).toMatch(/wrong\.toml:3: api\.models\.tiny\.kv_type "q8_0": .*width of 16/);
  });
});
