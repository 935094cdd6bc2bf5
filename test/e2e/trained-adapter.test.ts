// LoRA really trained by the workshop's tool on a tiny model: the loss falls, the same request gives the same
// adapter, every export is there, and the real server loads the adapter over /v1/lora/load: its answer
// changes to what it was trained to write. Needs `make convert-oracle`.

import { createHash } from 'node:crypto';
import { closeSync, mkdirSync, openSync, readdirSync, readFileSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { Agent, fetch } from 'undici';
import { beforeAll, describe, expect, test } from 'vitest';
import { convertFolder } from '../../src/models/convert/convert.ts';
import { startRealServer } from '../fixtures/e2e/real-server.ts';
import { HF_FOLDERS, inMemory } from '../fixtures/models/hf-folder.ts';
import { HAVE_PYTHON, MINUTES, useTools, type Said } from '../fixtures/workshop/python-tools.ts';

const PROMPT = 'the model';
const LEARNED = 'eeeeeeeeeeee';
const STEPS = 60;
const PARAMETERS = {
  model_name: 'tiny',
  learning_rate: '0.05',
  max_steps: STEPS,
  batch_size: 4,
  gradient_accumulation_steps: 1,
  max_seq_length: 64,
};

describe.skipIf(!HAVE_PYTHON)('an adapter of the workshop', () => {
  const { work, run } = useTools();
  const model = join(work, 'model');
  const base = join(work, 'base.gguf');
  let inputs: { readonly model: string; readonly dataset: string };
  let trained: Said;

  beforeAll(async () => {
    mkdirSync(model);
    for (const [name, bytes] of HF_FOLDERS.mistral()) writeFileSync(join(model, name), bytes);
    const fd = openSync(base, 'wx');
    convertFolder(
      inMemory(HF_FOLDERS.mistral()),
      { write: (bytes) => void writeSync(fd, bytes) },
      { type: 'auto' },
    );
    closeSync(fd);
    inputs = { model, dataset: join(work, 'data.jsonl') };
    const row = (prompt: string): string => `${JSON.stringify({ prompt, completion: LEARNED })}\r\n`;
    // As an editor of Windows writes it, and with a row whose answer lies beyond max_seq_length.
    writeFileSync(inputs.dataset, `\uFEFF${row(PROMPT).repeat(8)}${row(PROMPT.repeat(200))}`);
    // Sampling that is given and not used: saving a model holds against it, and published ones have it.
    writeFileSync(
      join(model, 'generation_config.json'),
      JSON.stringify({ do_sample: false, temperature: 0.5 }),
    );
    const exports = ['lora', 'safetensors', 'gguf', 'gguf_adapter'];
    trained = await run('finetune', { parameters: { ...PARAMETERS, exports }, inputs, builtin: true });
  }, 15 * MINUTES);

  test('the loss falls, and every export is there', () => {
    expect(trained.refused).toBeUndefined();
    expect(trained.result).toMatchObject({
      steps: STEPS,
      rows: 8,
      form: 'prompt_completion',
      device: 'cpu',
      use_4bit: false,
    });
    const losses = trained.result?.['losses'] as readonly number[];
    console.log(`loss ${losses[0]} to ${losses.at(-1)}`);
    expect(losses.at(-1)!).toBeLessThan(losses[0]! - 0.5);
    expect(trained.logs.join('\n')).toMatch(/use_4bit: fell to false/);
    expect(trained.logs.join('\n')).toMatch(/1 of 9 rows have nothing to learn within max_seq_length/);
    expect(readdirSync(trained.output).toSorted()).toEqual(['adapter.gguf', 'lora', 'merged', 'model.gguf']);
    for (const name of ['adapter.gguf', 'model.gguf'])
      expect(readFileSync(join(trained.output, name)).toString('latin1', 0, 4)).toBe('GGUF');
  });

  test(
    'the same request gives the same adapter',
    async () => {
      const again = await run('finetune', { parameters: PARAMETERS, inputs });
      const digests = (folder: string): readonly string[] =>
        ['adapter_config.json', 'adapter_model.safetensors'].map((name) =>
          createHash('sha256')
            .update(readFileSync(join(folder, 'lora', name)))
            .digest('hex'),
        );
      expect(digests(again.output)).toEqual(digests(trained.output));
      expect(readdirSync(again.output)).toEqual(['lora']);
    },
    15 * MINUTES,
  );

  test('changes the answer of the real server as it was trained, and the base answers as before', async () => {
    const config = join(work, 'assay.toml');
    writeFileSync(config, `[store]\nmodel_roots = [${JSON.stringify(work)}]\n`);
    const server = await startRealServer({ dataFolder: join(work, 'data'), args: ['--config', config] });
    const dispatcher = new Agent({ connect: { rejectUnauthorized: false } });
    const call = async (path: string, body: object): Promise<Record<string, unknown>> => {
      const response = await fetch(`${server.url}${path}`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(body),
        dispatcher,
      });
      const answer = (await response.json()) as Record<string, unknown>;
      expect(response.ok, JSON.stringify(answer)).toBe(true);
      return answer;
    };
    const textOf = async (name: string): Promise<string> => {
      const asked = { model: name, prompt: PROMPT, max_tokens: 8, temperature: 0 };
      const { choices } = await call('/v1/completions', asked);
      return (choices as readonly { readonly text: string }[])[0]!.text;
    };
    try {
      await call('/v1/models', { name: 'base', path: base });
      await call('/v1/models', { name: 'merged', path: join(trained.output, 'model.gguf') });
      const plain = await textOf('base');
      await call('/v1/lora/load', {
        model: 'base',
        lora_name: 'learned',
        lora_path: join(trained.output, 'adapter.gguf'),
      });
      const changed = await textOf('learned');
      console.log(JSON.stringify({ plain, changed }));
      expect(plain).not.toContain('eeee');
      expect(changed).toBe(LEARNED.slice(0, 8));
      expect(await textOf('merged')).toBe(changed);
      expect(await textOf('base')).toBe(plain);
    } finally {
      await dispatcher.close();
      expect(await server.stop()).toBe(0);
    }
  });
});
