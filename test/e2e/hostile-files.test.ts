// Files that must not load: cut off, random, and well-formed enough to make llama.cpp abort. Each is
// answered in the OpenAI envelope, the server lives on and serves the next request. With the real
// process and the real engine.

import { copyFile, mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Agent, fetch } from 'undici';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ensureDemoModels } from '../../scripts/demo-model/main.ts';
import { EXPECTED } from '../../scripts/demo-model/text.ts';
import { type RealServer, startRealServer } from '../fixtures/e2e/real-server.ts';

describe('hostile model files', () => {
  let server: RealServer;
  let folder: string;
  let whole: Buffer;
  // Not the subject here: the attested client has its own tests.
  const dispatcher = new Agent({ connect: { rejectUnauthorized: false } });

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'assay-hostile-'));
    const { 'demo-context': demo } = await ensureDemoModels(['demo-context']);
    whole = await readFile(demo.path);
    await writeFile(
      join(folder, 'assay.toml'),
      `[store]\nmodel_roots = [${JSON.stringify(folder)}]\n[api]\nadmin_key = "test-admin"\n`,
    );
    server = await startRealServer({ args: ['--config', join(folder, 'assay.toml')] });
  });
  afterAll(async () => {
    await dispatcher.close();
    expect(await server.stop()).toBe(0);
    await rm(folder, { recursive: true, force: true });
  });

  const post = async (
    path: string,
    body: unknown,
  ): Promise<{
    status: number;
    body: { error?: { code: string; message: string }; choices?: { message: { content: string } }[] };
  }> => {
    const response = await fetch(`${server.url}${path}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', authorization: 'Bearer test-admin' },
      body: JSON.stringify(body),
      dispatcher,
    });
    return { status: response.status, body: (await response.json()) as never };
  };

  const stillServes = async (): Promise<void> => {
    const { status, body } = await post('/v1/chat/completions', {
      model: 'demo-chat',
      temperature: 0,
      messages: [{ role: 'user', content: EXPECTED[0]?.question }],
    });
    expect(status).toBe(200);
    expect(body.choices?.[0]?.message.content).toBe(EXPECTED[0]?.answer);
  };

  /**
   * Registers the file and, should that succeed, asks it to generate: wherever it is refused, it is
   * refused in the envelope.
   */
  const refuse = async (name: string, bytes: Uint8Array): Promise<string> => {
    const path = join(folder, `${name}.gguf`);
    await writeFile(path, bytes);
    const registered = await post('/v1/models', { name, path });
    const answer =
      registered.status === 201
        ? await post('/v1/completions', { model: name, prompt: 'x', max_tokens: 4 })
        : registered;
    expect(answer.status, JSON.stringify(answer.body)).toBeGreaterThanOrEqual(400);
    expect(answer.body.error).toMatchObject({
      message: expect.stringMatching(/\S/),
      code: expect.stringMatching(/^[a-z_]+$/),
    });
    expect(JSON.stringify(answer.body)).not.toMatch(/node:internal|at .*\.js:\d+/);
    return answer.body.error?.code ?? '';
  };

  test('a truncated GGUF', async () => {
    expect(await refuse('cut-in-data', whole.subarray(0, whole.length - 4096))).toBe('invalid_gguf');
    expect(await refuse('cut-in-header', whole.subarray(0, 1000))).toBe('invalid_gguf');
    await stillServes();
  });

  test('a random file', async () => {
    const random = new Uint8Array(65536).map((_, i) => (i * 197 + (i >> 3) * 31) & 255);
    expect(await refuse('random', random)).toBe('invalid_gguf');
    expect(await refuse('empty', new Uint8Array())).toBe('invalid_gguf');
    await stillServes();
  });

  test('a GGUF that makes llama.cpp abort: head_count = 0', async () => {
    const key = Buffer.from('llama.attention.head_count');
    const at = whole.indexOf(Buffer.concat([Buffer.from([key.length, 0, 0, 0, 0, 0, 0, 0]), key]));
    expect(at).toBeGreaterThan(0);
    const bytes = Buffer.from(whole);
    // key length u64 · key · type u32 · value u32
    bytes.writeUInt32LE(0, at + 8 + key.length + 4);
    expect(await refuse('zero-heads', bytes)).toMatch(/^(invalid_gguf|model_load_failed)$/);
    await stillServes();
  });

  test('a file changed after it was registered is not loaded under the old digest', async () => {
    const path = join(folder, 'changed.gguf');
    await copyFile((await ensureDemoModels(['demo-context']))['demo-context'].path, path);
    const { status } = await post('/v1/models', { name: 'changed', path });
    expect(status).toBe(201);
    const file = await open(path, 'r+');
    await file.write(Buffer.from([1, 2, 3, 4]), 0, 4, whole.length - 64);
    await file.close();
    const answer = await post('/v1/completions', { model: 'changed', prompt: 'x', max_tokens: 2 });
    // Registration copied the bytes into the store: either those are used (200) or the change is
    // noticed. Never the new bytes.
    if (answer.status !== 200)
      expect(answer.body.error?.code).toMatch(/^(digest_mismatch|model_digest_mismatch|model_changed)$/);
    await stillServes();
  });
});
