// An adapter that the workshop's tool trained is loaded by the real server over /v1/lora/load, and the
// answer changes to what it was trained to write. Needs `make convert-oracle`.

import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Agent, fetch } from 'undici';
import { describe, expect, test } from 'vitest';
import { startRealServer } from '../fixtures/e2e/real-server.ts';
import { HF_FOLDERS } from '../fixtures/models/hf-folder.ts';
import { HAVE_PYTHON, MINUTES, useTools } from '../fixtures/workshop/python-tools.ts';

const PROMPT = 'the model';
const LEARNED = 'eeeeeeeeeeee';

describe.skipIf(!HAVE_PYTHON)('an adapter of the workshop', () => {
  const { work, run } = useTools();

  test(
    'changes the answer as it was trained',
    async () => {
      const model = join(work, 'model');
      await mkdir(model);
      for (const [name, bytes] of HF_FOLDERS.mistral()) await writeFile(join(model, name), bytes);
      const dataset = join(work, 'data.jsonl');
      await writeFile(dataset, `${JSON.stringify({ prompt: PROMPT, completion: LEARNED })}\n`.repeat(8));
      const trained = await run('finetune', {
        parameters: {
          model_name: 'tiny',
          learning_rate: '0.05',
          max_steps: 60,
          batch_size: 8,
          gradient_accumulation_steps: 1,
          exports: 'gguf_adapter',
        },
        inputs: { model, dataset },
        builtin: true,
      });
      expect(trained.refused).toBeUndefined();
      const { first_loss: before, last_loss: after } = trained.result ?? {};
      console.log(`loss ${String(before)} to ${String(after)}`);
      expect(Number(after)).toBeLessThan(Number(before));

      const config = join(work, 'assay.toml');
      await writeFile(config, `[store]\nmodel_roots = [${JSON.stringify(work)}]\n`);
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
        await call('/v1/models', { name: 'base', path: model });
        const plain = await textOf('base');
        await call('/v1/lora/load', {
          model: 'base',
          lora_name: 'learned',
          lora_path: join(trained.output, 'adapter.gguf'),
        });
        const changed = await textOf('learned');
        console.log(JSON.stringify({ plain, changed }));
        expect(plain).not.toContain('eeee');
        expect(changed).toBe('eeeeeeee');
        expect(await textOf('base')).toBe(plain);
      } finally {
        await dispatcher.close();
        expect(await server.stop()).toBe(0);
        await rm(join(work, 'data'), { recursive: true, force: true });
      }
    },
    20 * MINUTES,
  );
});
