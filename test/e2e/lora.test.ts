// LoRA adapters through the whole product: loaded at run time, pinned by clients through the digest of base,
// adapter and scale, answering over attested TLS what a model with the same deltas in its weights answers;
// many at once, taken back while they write, made of a PEFT folder, and there after a restart.

import { createHash } from 'node:crypto';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Agent, fetch as plainFetch } from 'undici';
import { afterAll, describe, expect, test } from 'vitest';
import { allowSimulated, attestedModel, toHex, type AppraisalPolicy } from '@assay/attestation';
import { type AttestedFetch, attestedFetch } from '@assay/attestation/node';
import { EXPECTED } from '../../scripts/demo-model/text.ts';
import { ASKED, base, FILES, red, useLoraServer, type Answer } from '../fixtures/e2e/lora-server.ts';
import type { Pair } from '../fixtures/models/gguf-adapter.ts';
import { peftConfig, peftWeights } from '../fixtures/models/peft-folder.ts';

function digestOf(bytes: Uint8Array): Uint8Array {
  return new Uint8Array(createHash('sha256').update(bytes).digest());
}

/** As a client computes it that has the files. */
function composed(adapter: Buffer, scale: string): string {
  const text = Buffer.from(scale);
  return toHex(
    attestedModel('any', [
      { role: 'weights', sha256: digestOf(base), size: base.length },
      { role: 'adapter', sha256: digestOf(adapter), size: adapter.length },
      { role: 'scale', sha256: digestOf(text), size: text.length },
    ]).sha256,
  );
}

/** Bans the control tokens, which come first in the vocabulary: every answer has its full length. */
const ENDLESS = Object.fromEntries(Array.from({ length: 16 }, (_, token) => [`${token}`, -100]));

const RED = composed(FILES['red.gguf'], '1');
const BLUE = composed(FILES['blue.gguf'], '0.5');

describe('adapters', () => {
  const fixture = useLoraServer();
  const { call, load, textOf } = fixture;
  const closing: AttestedFetch[] = [];
  afterAll(() => Promise.all(closing.map((each) => each.close())));

  function client(pins: Readonly<Record<string, string>>): AttestedFetch {
    const policy: AppraisalPolicy = {
      ...(fixture.server.policy as AppraisalPolicy),
      models: { ...fixture.server.policy.models, ...pins },
      [allowSimulated]: true,
    };
    const made = attestedFetch({ policy });
    closing.push(made);
    return made;
  }

  function digestsOf(names: readonly string[]): Record<string, string> {
    return Object.fromEntries(
      names.map((name) => [name, toHex(digestOf(FILES[`${name}.gguf` as keyof typeof FILES]))]),
    );
  }
  const REGISTERED = digestsOf(['base', 'folded-red', 'folded-blue']);

  async function asked(by: AttestedFetch, model: string): Promise<Answer> {
    const response = await by(`${fixture.server.url}/v1/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ model, ...ASKED }),
    });
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- each field is compared where it is used
    return { status: response.status, body: (await response.json()) as Answer['body'] };
  }

  test('are loaded, listed below their base, and attested with base, file and scale together', async () => {
    expect(await load('red.gguf')).toMatchObject({
      status: 200,
      body: { status: 'loaded', model: 'red', parent: 'base', sha256: RED },
    });
    expect(await load('blue.gguf', { scale: 0.5 })).toMatchObject({ status: 200, body: { sha256: BLUE } });
    // Again, without a change. Another scale is another model.
    expect(await load('red.gguf')).toMatchObject({ status: 200, body: { status: 'already_loaded' } });
    expect(await load('red.gguf', { scale: 2 })).toMatchObject({
      status: 409,
      body: { error: { code: 'model_already_exists', param: 'lora_name' } },
    });
    expect(await call('GET', '/v1/models/blue')).toMatchObject({
      body: { parent: 'base', kind: 'manifest', sha256: BLUE, type: 'completion', loaded: true },
    });
    // A connection that was shown evidence serves what it showed, so it gets one of its own.
    const apart = new Agent({ connect: { rejectUnauthorized: false } });
    const evidence = await call(
      'GET',
      `/v1/attestation?model=blue&nonce=${'ab'.repeat(16)}`,
      undefined,
      apart,
    );
    await apart.close();
    expect(String(evidence.body['report_data']).slice(64)).toBe(BLUE);
  });

  test('write what a model with the deltas in its weights writes, to clients that pin the composed digest', async () => {
    const by = client({ ...REGISTERED, red: RED, blue: BLUE });
    const texts = await Promise.all(['base', 'folded-red', 'folded-blue'].map(textOf));
    expect(new Set(texts).size).toBe(3);
    for (const [i, name] of ['base', 'red', 'blue'].entries())
      expect((await asked(by, name)).body.choices?.[0]?.text, name).toBe(texts[i]);
    // The scale is part of what is pinned.
    const other = client({ ...REGISTERED, red: RED, blue: composed(FILES['blue.gguf'], '1') });
    await expect(asked(other, 'blue')).rejects.toMatchObject({ code: 'model_digest_mismatch' });
    // Loading one cuts off clients whose policy lists models, until it lists the adapter.
    await expect(asked(client(REGISTERED), 'base')).rejects.toMatchObject({ code: 'model_not_listed' });
  });

  test('of one base share its process, and do not disturb each other', async () => {
    const names = ['base', 'red', 'blue'];
    const alone: string[] = [];
    for (const name of names) alone.push(await textOf(name));
    const mixed = Array.from({ length: 24 }, (_, i) => names[i % 3]!);
    const texts = await Promise.all(mixed.map(textOf));
    expect(texts).toEqual(mixed.map((name) => alone[names.indexOf(name)]));
    const { body } = await call('GET', '/v1/models/status');
    expect(body['models']).toEqual(
      expect.arrayContaining(names.map((name) => expect.objectContaining({ name }) as object)),
    );
  });

  test('keep their base: it is not deleted under them', async () => {
    expect(await call('DELETE', '/v1/models/base')).toMatchObject({
      status: 409,
      body: { error: { code: 'model_has_adapters' } },
    });
    // Unloading ends the process of all; the next request of any starts it again.
    expect((await call('POST', '/v1/models/unload', { model: 'base' })).status).toBe(200);
    expect(await call('GET', '/v1/models/red')).toMatchObject({ body: { loaded: false } });
    expect(await textOf('red')).toBe(await textOf('folded-red'));
  });

  test('one taken back finishes what it writes, and is not there for the next', async () => {
    expect((await load('blue.gguf', { lora_name: 'brief' })).status).toBe(200);
    const response = await plainFetch(`${fixture.server.url}/v1/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ model: 'brief', ...ASKED, max_tokens: 80, logit_bias: ENDLESS, stream: true }),
      dispatcher: fixture.dispatcher,
    });
    const reader = response.body!.getReader();
    await reader.read();
    const unloaded = call('POST', '/v1/lora/unload', { lora_name: 'brief' });
    let text = '';
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      text += new TextDecoder().decode(value as Uint8Array);
    }
    expect(text).toContain('"finish_reason":"length"');
    expect(text.trimEnd()).toMatch(/data: \[DONE\]$/);
    expect(await unloaded).toMatchObject({ status: 200, body: { status: 'unloaded', model: 'brief' } });
    expect(await call('POST', '/v1/completions', { model: 'brief', ...ASKED })).toMatchObject({
      status: 404,
      body: { error: { code: 'model_not_found' } },
    });
    expect(await call('POST', '/v1/lora/unload', { lora_name: 'base' })).toMatchObject({
      status: 400,
      body: { error: { code: 'wrong_model_type', param: 'lora_name' } },
    });
  });

  test('a PEFT folder is converted: it writes what its deltas say, and outlives the folder', async () => {
    const peft = join(fixture.models, 'peft');
    await mkdir(peft);
    await writeFile(join(peft, 'adapter_config.json'), peftConfig({ r: 4, lora_alpha: 8 }));
    const rowsOf = (tensor: Pair['a']): number[][] =>
      Array.from({ length: tensor.shape[1]! }, (_, row) => [
        ...tensor.values.subarray(row * tensor.shape[0]!, (row + 1) * tensor.shape[0]!),
      ]);
    const [query, up] = red;
    // llama.cpp has the rows of a head as pairs, a folder as halves.
    const b = rowsOf(query!.b);
    const halves = b.map((_, row) => b[(row & 16) + 2 * (row & 7) + ((row >> 3) & 1)]!);
    await writeFile(
      join(peft, 'adapter_model.safetensors'),
      peftWeights({
        'layers.0.self_attn.q_proj': { a: rowsOf(query!.a), b: halves },
        'layers.0.mlp.up_proj': { a: rowsOf(up!.a), b: rowsOf(up!.b) },
      }),
    );
    const loaded = await load('peft');
    expect(loaded).toMatchObject({ status: 200, body: { status: 'loaded', parent: 'base' } });
    expect(await load('peft')).toMatchObject({ status: 200, body: { status: 'already_loaded' } });
    expect(await textOf('peft')).toBe(await textOf('folded-red'));
    await rm(peft, { recursive: true });
    expect((await call('POST', '/v1/models/unload', { model: 'base' })).status).toBe(200);
    expect(await textOf('peft')).toBe(await textOf('folded-red'));
  });

  test('are there after a restart; one whose file is another is refused, and takes nothing else down', async () => {
    await fixture.stop();
    await fixture.start();
    expect(await call('GET', '/v1/models/red')).toMatchObject({ body: { sha256: RED, loaded: false } });
    expect(await textOf('red')).toBe(await textOf('folded-red'));
    // Its file is another: every load enforces the digest, and the base goes on without it.
    const texts = [await textOf('base'), await textOf('blue')];
    await fixture.stop();
    await writeFile(join(fixture.models, 'red.gguf'), FILES['blue.gguf']);
    await fixture.start();
    const refused = { status: 500, body: { error: { code: 'model_digest_mismatch' } } };
    expect(await call('POST', '/v1/completions', { model: 'red', ...ASKED })).toMatchObject(refused);
    expect([await textOf('base'), await textOf('blue')]).toEqual(texts);
    // Asking for it again does not load the base again.
    const loads = (): number =>
      fixture.server.stderr().split('"msg":"model loaded","model":"base"').length - 1;
    expect(loads()).toBe(1);
    expect(await call('POST', '/v1/completions', { model: 'red', ...ASKED })).toMatchObject(refused);
    expect(await textOf('base')).toBe(texts[0]);
    expect(loads()).toBe(1);
    expect(await call('GET', '/v1/models/red')).toMatchObject({ body: { loaded: false } });
    expect(await call('GET', '/v1/models/blue')).toMatchObject({ body: { loaded: true } });
    const { question, answer } = EXPECTED[0]!;
    const chat = { model: 'demo-chat', temperature: 0, messages: [{ role: 'user', content: question }] };
    expect((await call('POST', '/v1/chat/completions', chat)).body.choices?.[0]?.message?.content).toBe(
      answer,
    );
  });
});
