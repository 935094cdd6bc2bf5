// Receipts on real engines at the edges: answers that end in their first decode or before it, and which
// template rendered (docs/receipts.md [R4] [R8] [R18]).

import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { commitment, tokenListBytes } from '@assay/attestation/receipt';
import { ensureDemoModels } from '../../../scripts/demo-model/main.ts';
import { CHAT_TEMPLATE } from '../../../scripts/demo-model/text.ts';
import type { Engine } from '../../../src/engine/seam/engine.ts';
import type { ReceiptIssuer } from '../../../src/receipts/issuer.ts';
import { openEngine } from '../../../src/engine/open.ts';
import { openDemo, workerEntry } from '../../fixtures/engine/demo-engine.ts';
import { type ApiServer, post, startApi } from '../../fixtures/http/api-server.ts';
import {
  asking,
  checked,
  expectedAnswer,
  headerReceipt,
  issuer,
  sha256,
} from '../../fixtures/receipts/issued.ts';
import { madeBy } from '../../fixtures/receipts/made.ts';

let api: ApiServer;
let receipts: ReceiptIssuer;
let engines: Readonly<Record<'demo-context' | 'demo-chat' | 'bare', Engine>>;
let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'assay-bare-'));
  const own = { slots: 2, threads: 1 };
  engines = {
    'demo-context': await openDemo('demo-context', own),
    'demo-chat': await openDemo('demo-chat', own),
    bare: await openEngine({ workerEntry })(
      { path: await withoutTemplate(), ...own },
      new AbortController().signal,
    ),
  };
  receipts = issuer();
  api = await startApi({ realEngines: engines, deps: { receipts } });
});
afterAll(async () => {
  await api.close();
  for (const engine of Object.values(engines)) await engine.close();
  await rm(folder, { recursive: true, force: true });
});

/** The same model, with its template under a key that no reader knows. */
async function withoutTemplate(): Promise<string> {
  const { 'demo-context': demo } = await ensureDemoModels(['demo-context']);
  const bytes = await readFile(demo.path);
  const at = bytes.indexOf('tokenizer.chat_template');
  bytes.write('tokenizer.that_template', at, 'latin1');
  const path = join(folder, 'bare.gguf');
  await writeFile(path, bytes);
  return path;
}

const MESSAGES = [{ role: 'user', content: 'once' }];
const MODEL = 'demo-context';
const ROUTES: readonly (readonly [string, string, object])[] = [
  ['chat', '/v1/chat/completions', { model: MODEL, messages: MESSAGES }],
  ['completions', '/v1/completions', { model: MODEL, prompt: 'once' }],
];
const OTHERS: typeof ROUTES = [
  ['responses', '/v1/responses', { model: MODEL, input: 'once', max_output_tokens: 1 }],
  ['messages', '/v1/messages', { model: MODEL, messages: MESSAGES, max_tokens: 1 }],
];

describe('[R8] [R18] an answer that ends in its first decode', () => {
  const rows = ROUTES.flatMap(([name, path, body]) =>
    [false, true].flatMap((stream) => [
      [`${name}, streamed ${stream}: the end of text is the first token`, path, { ...body, stream, max_tokens: 8 }, 'stop'] as const, // prettier-ignore
      [`${name}, streamed ${stream}: one token is all it may write`, path, { ...body, stream, max_tokens: 1 }, 'length'] as const, // prettier-ignore
    ]),
  );
  const more = OTHERS.flatMap(([name, path, body]) =>
    [false, true].map(
      (stream) => [`${name}, streamed ${stream}`, path, { ...body, stream }, 'length'] as const,
    ),
  );
  test.each([...rows, ...more])('%s', async (_what, path, body, finish) => {
    const end = engines[MODEL]?.info.eosToken;
    if (end === null || end === undefined) throw new Error('the demo model has an end token');
    const bias = finish === 'stop' ? { logit_bias: { [end]: 100 } } : {};
    const asked = asking('rolling');
    const sent = JSON.stringify({ ...body, ...bias });
    const response = await post(api, path, sent, { headers: asked.headers });
    expect(response.status).toBe(200);
    expect(response.headers.get('assay-receipt-id')).toMatch(/^[0-9a-f]{32}$/);
    const salt = 'stream' in body && body.stream ? undefined : headerReceipt(response).salt;
    const { receipt } = await checked(
      response,
      expectedAnswer(receipts, { path, body: sent, nonce: asked.nonce }),
    );
    expect(receipt.outcome.end).toBe('complete');
    const [choice] = receipt.outcome.choices;
    expect(choice).toMatchObject({ finishReason: finish, tokens: 1 });
    if (finish === 'length' || salt === undefined) return;
    expect(choice?.outputTokens).toEqual(commitment(salt, 'outputTokens', sha256(tokenListBytes([end]))));
    expect(choice?.outputText).toEqual(commitment(salt, 'outputText', sha256('')));
  });
});

describe('[R4] the template is the one that rendered', () => {
  /** That of a model without one (docs/receipts.md §1). */
  const FALLBACK = `{% for m in messages %}{% if m.role == 'system' %}{{ m.content + '\\n\\n' }}{% elif m.role == 'assistant' %}{{ 'Assistant: ' + m.content + '\\n' }}{% else %}{{ 'User: ' + m.content + '\\n' }}{% endif %}{% endfor %}Assistant:`;

  test.each([
    ['of the model', 'demo-chat', CHAT_TEMPLATE],
    ['of the fallback, for a model without one', 'bare', FALLBACK],
  ])('%s', async (_what, name, source) => {
    const chat = { model: name, messages: MESSAGES, max_tokens: 1 };
    const { receipt } = await madeBy(api, receipts, '/v1/chat/completions', chat);
    expect(receipt.model.template).toEqual(sha256(source));
  });
});
