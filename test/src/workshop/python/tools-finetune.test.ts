// A data set that is none is refused by line and field, and none of its text is said; a parameter out of its
// bounds is refused by its name. Training itself: test/e2e/trained-adapter.test.ts. Needs `make
// convert-oracle`.

import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { HF_FOLDERS } from '../../../fixtures/models/hf-folder.ts';
import { HAVE_PYTHON, MINUTES, useTools } from '../../../fixtures/workshop/python-tools.ts';

const CANARY = 'canary-7f3a';

describe.skipIf(!HAVE_PYTHON)('training', () => {
  const { work, run } = useTools();
  const model = join(work, 'model');
  beforeAll(() => {
    mkdirSync(model);
    for (const [name, bytes] of HF_FOLDERS.mistral()) writeFileSync(join(model, name), bytes);
  });

  function dataset(name: string, text: string | Buffer): string {
    const path = join(work, name);
    writeFileSync(path, text);
    return path;
  }

  const PARAMETERS = { model_name: 'tiny', learning_rate: '0.05', max_steps: 12, batch_size: 4 };

  test.each<[string, string | Buffer, RegExp]>([
    ['nothing', '\n\n', /has no line/],
    ['no JSON', `{"text":"a"}\n{${CANARY}\n`, /^line 2: it is no JSON$/],
    ['a byte that is no JSON', '\u0000', /^line 1: it is no JSON$/],
    ['no UTF-8', Buffer.from(`{"text":"caf\u00e9 ${CANARY}"}`, 'latin1'), /^line 1: it is not UTF-8$/],
    ['UTF-16', Buffer.from(`\uFEFF{"text":"${CANARY}"}`, 'utf16le'), /^line 1: it is not UTF-8$/],
    ['a list that is cut', `[{"text":"${CANARY}"}`, /begins as a list and is no JSON/],
    ['columns of other names', `title,label\n${CANARY},1\n`, /^line 1: it is no JSON$/],
    ['a text of another depth', `{"text":{"text":"${CANARY}"}}`, /^line 1: `text` is missing or no text/],
    ['200 000 brackets', `{"text":${'['.repeat(200_000)}`, /^line 1: it is no JSON$/],
    [
      'half of a surrogate pair',
      `{"text":"${CANARY} \\ud800"}`,
      /^line 1: `text` has half of a surrogate pair$/,
    ],
    [
      'half of a pair in a message',
      `{"messages":[{"role":"assistant","content":"${CANARY} \\udc00"}]}`,
      /^line 1: `messages\[0\]\.content` has half of a surrogate pair$/,
    ],
    ['no object', `["${CANARY}"]`, /^line 1: it is no object/],
    ['no known field', `{"${CANARY}":1}`, /^line 1: it has none of `text`/],
    [
      'another form than before',
      `{"text":"${CANARY}"}\n{"prompt":"a","completion":"b"}`,
      /^line 2: it has the form `prompt_completion`/,
    ],
    ['a text that is none', `{"text":7,"x":"${CANARY}"}`, /^line 1: `text` is missing or no text/],
    ['an empty text', '{"text":"  "}', /^line 1: `text` is empty/],
    ['half a pair', `{"prompt":"${CANARY}"}`, /^line 1: `completion` is missing/],
    ['an instruction without output', `{"instruction":"${CANARY}"}`, /^line 1: `output` is missing/],
    [
      'a role that is none',
      `{"messages":[{"role":"${CANARY}","content":""}]}`,
      /^line 1: `messages\[0\]\.role`/,
    ],
    [
      'none of the assistant',
      `{"messages":[{"role":"user","content":"${CANARY}"}]}`,
      /none of the assistant/,
    ],
    ['a line of 2 MB', `{"text":"${'x'.repeat(2_000_000)}"}`, /^line 1: it has more than 1048576 bytes/],
    ['200 001 lines', '{"text":"a"}\n'.repeat(200_001), /more than 200000 lines/],
  ])(
    'a data set with %s is refused',
    async (_what, text, message) => {
      const inputs = { model, dataset: dataset('bad.jsonl', text) };
      const said = await run('finetune', { parameters: PARAMETERS, inputs });
      expect(said.refused).toMatchObject({ code: 'invalid_value', param: 'dataset_source' });
      expect(said.refused?.message).toMatch(message);
      expect(JSON.stringify(said)).not.toContain(CANARY);
    },
    MINUTES,
  );

  test.each<[string, unknown]>([
    ['learning_rate', 'fast'],
    ['learning_rate', '2'],
    ['lora_r', 0],
    ['lora_r', true],
    ['max_seq_length', 1],
    ['exports', ['pickle']],
    ['num_epochs', '-1'],
  ])(
    '%s of %s is refused by its name',
    async (param, value) => {
      const inputs = { model, dataset: dataset('any.jsonl', '{"text":"a"}') };
      const { refused } = await run('finetune', { parameters: { [param]: value }, inputs });
      expect(refused).toMatchObject({ code: 'invalid_value', param });
    },
    MINUTES,
  );
});
