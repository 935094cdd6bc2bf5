// A connection proves a model at one moment and is used for minutes after it. Real server, real engine:
// other bytes are put under a proven id while an attested connection is open, and no prompt on that
// connection ever reaches them ([M23]).

import { copyFile, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import OpenAI, { APIError } from 'openai';
import { Agent, fetch as plainFetch } from 'undici';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { allowAnyModel, allowSimulated, type AppraisalPolicy, AttestationError } from '@assay/attestation';
import { type AttestedFetch, attestedFetch, startProxy } from '@assay/attestation/node';
import { ensureDemoModels } from '../../scripts/demo-model/main.ts';
import { type RealServer, startRealServer } from '../fixtures/e2e/real-server.ts';

const dispatcher = new Agent({ connect: { rejectUnauthorized: false } });
const demo = await ensureDemoModels(['demo-chat', 'demo-context']);

describe('other bytes under a proven id', () => {
  let folder: string;
  let server: RealServer;
  const closing: (() => Promise<void>)[] = [];

  /** The operator's side: no evidence asked for, no client's policy. */
  const admin = async (method: string, path: string, body?: object): Promise<Record<string, unknown>> => {
    const response = await plainFetch(`${server.url}${path}`, {
      method,
      ...(body === undefined
        ? {}
        : { headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) }),
      dispatcher,
    });
    const answer = (await response.json()) as Record<string, unknown>;
    expect(response.ok, JSON.stringify(answer)).toBe(true);
    return answer;
  };
  const registerAs = (file: string): Promise<Record<string, unknown>> =>
    admin('POST', '/v1/models', { name: 'swap', path: join(folder, 'models', file) });
  const replace = async (): Promise<void> => {
    await admin('DELETE', '/v1/models/swap');
    await registerAs('second.gguf');
  };

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'assay-replaced-'));
    await mkdir(join(folder, 'models'));
    await copyFile(demo['demo-chat'].path, join(folder, 'models/first.gguf'));
    await copyFile(demo['demo-context'].path, join(folder, 'models/second.gguf'));
    await writeFile(join(folder, 'assay.toml'), `[store]\nmodel_roots = ["${join(folder, 'models')}"]\n`);
    server = await startRealServer({
      dataFolder: join(folder, 'data'),
      args: ['--config', join(folder, 'assay.toml')],
    });
  });
  afterAll(async () => {
    await dispatcher.close();
    await server.stop();
    await rm(folder, { recursive: true, force: true });
  });
  let firstSha: string;
  beforeEach(async () => {
    firstSha = String((await registerAs('first.gguf'))['sha256']);
  });
  afterEach(async () => {
    for (const close of closing.splice(0)) await close();
    await admin('DELETE', '/v1/models/swap');
  });

  const policy = (): AppraisalPolicy => ({
    ...(server.policy as AppraisalPolicy),
    models: { ...server.policy.models, swap: firstSha },
    [allowSimulated]: true,
  });
  const attested = (given: AppraisalPolicy): { fetch: AttestedFetch; digests: string[] } => {
    const digests: string[] = [];
    const fetch = attestedFetch({
      policy: given,
      onResult: ({ models }) => digests.push(models.get('swap') ?? 'absent'),
    });
    closing.push(() => fetch.close());
    return { fetch, digests };
  };
  const ask = (fetch: AttestedFetch, maxRetries: number): Promise<{ system_fingerprint?: string }> =>
    new OpenAI({
      baseURL: `${server.url}/v1`,
      apiKey: 'any',
      fetch: fetch as unknown as typeof globalThis.fetch,
      maxRetries,
    }).completions.create({
      model: 'swap',
      prompt: 'secret',
      max_tokens: 2,
    });

  test('the open connection is refused by the server, the next one by the policy', async () => {
    const { fetch, digests } = attested(policy());
    expect((await ask(fetch, 0)).system_fingerprint).toBe(`fp_${firstSha.slice(0, 12)}`);
    await replace();
    const refused: unknown = await ask(fetch, 0).catch((error: unknown) => error);
    expect(refused).toBeInstanceOf(APIError);
    expect(refused).toMatchObject({ status: 409, code: 'attestation_stale' });
    // One connection so far, which is gone now: an SDK that retries comes back on a new one, and
    // there the policy decides.
    expect(digests).toEqual([firstSha]);
    const again: unknown = await ask(fetch, 0).catch((error: unknown) => error);
    let cause = again;
    while (cause instanceof Error && !(cause instanceof AttestationError)) cause = cause.cause;
    expect(cause).toMatchObject({ code: 'model_digest_mismatch' });
    expect(digests).toEqual([firstSha]);
  });

  test('a policy that leaves the models open: the SDK retries by itself, on a connection that proves the new model', async () => {
    const { models: _, ...open } = policy();
    const { fetch, digests } = attested({ ...open, [allowAnyModel]: true });
    await ask(fetch, 0);
    await replace();
    const answer = await ask(fetch, 1);
    expect(digests).toHaveLength(2);
    expect(digests[0]).toBe(firstSha);
    expect(digests[1]).not.toBe(firstSha);
    expect(answer.system_fingerprint).toBe(`fp_${digests[1]?.slice(0, 12)}`);
  });

  test('through the proxy: evidence a local client asks for does not widen what the proxy accepted', async () => {
    const proxy = await startProxy({
      upstream: server.url,
      policy: policy(),
      host: '127.0.0.1',
      port: 0,
      connections: 1,
    });
    closing.push(proxy.close);
    const post = (): Promise<Response> =>
      fetch(`${proxy.url}/v1/completions`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ model: 'swap', prompt: 'secret', max_tokens: 2 }),
      });
    expect((await post()).status).toBe(200);
    await replace();
    expect((await fetch(`${proxy.url}/v1/attestation?nonce=${'ab'.repeat(16)}`)).status).toBe(200);
    const refused = await post();
    expect([refused.status, refused.headers.get('x-should-retry')]).toEqual([409, 'true']);
    expect(((await refused.json()) as { error: { code: string } }).error.code).toBe('attestation_stale');
    const again = await post();
    expect([again.status, ((await again.json()) as { error: { code: string } }).error.code]).toEqual([
      502,
      'model_digest_mismatch',
    ]);
  });
});
