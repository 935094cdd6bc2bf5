// Parameters of other servers and gateways: honoured where they are another name for what is here, accepted
// where they ask for what happens anyway, and refused by name where they would change the answer. And the
// paths some clients ask without `/v1`.

import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { type ApiServer, post, startApi } from '../../../fixtures/http/api-server.ts';
import { askedOf, CHAT } from '../../../fixtures/http/asked.ts';

let api: ApiServer;
beforeAll(async () => void (api = await startApi({ engines: { vectors: { type: 'embedding' } } })));
afterAll(() => api.close());
beforeEach(() => void (api.engine.requests.length = 0));

const { seenBy, refusal } = askedOf(() => api);
const COMPLETION = { model: 'demo', prompt: 'Once' };
const BOTH = [
  [CHAT, '/v1/chat/completions'],
  [COMPLETION, '/v1/completions'],
] as const;

const AS_USUAL: readonly object[] = [
  { ignore_eos: false },
  { min_tokens: 0 },
  { skip_special_tokens: true, spaces_between_special_tokens: true },
  { include_stop_str_in_output: false, stop_token_ids: [] },
  { cache_prompt: true, n_keep: 0, n_probs: 0 },
  { mirostat: 0, mirostat_tau: 5, mirostat_eta: 0.1 },
  { typical_p: 1, tfs_z: 1, top_a: 0, top_n_sigma: -1 },
  { dynatemp_range: 0, dynatemp_exponent: 1, xtc_probability: 0, xtc_threshold: 0.1 },
  { dry_multiplier: 0, dry_base: 1.75, dry_allowed_length: 2, dry_penalty_last_n: -1 },
  { dry_sequence_breakers: ['\n', ':'] },
  { use_beam_search: false, length_penalty: 1, prompt_logprobs: null },
  { transforms: [], plugins: [], models: [], provider: {} },
  { n_predict: -1, id_slot: -1, priority: 0, samplers: [], top_n_sigma: 0 },
  { guided_json: null, guided_choice: [], grammar: '', random_seed: null, truncate_prompt_tokens: null },
  { options: {}, safe_prompt: false, usage: { include: true } },
  { repetition_penalty: 1 },
  { repetition_penalty: 1, repeat_penalty: 1 },
];

describe.each(BOTH)('what happens anyway, of %j', (body, path) => {
  test.each(AS_USUAL)('%j', async (given) => {
    const plain = await seenBy(body, path);
    expect(await seenBy({ ...body, ...given }, path)).toEqual(plain);
  });

  test.each(AS_USUAL.flatMap((each) => Object.keys(each)))('%s as null', async (name) => {
    const plain = await seenBy(body, path);
    expect(await seenBy({ ...body, [name]: null }, path)).toEqual(plain);
  });

  test.each<[string, unknown]>([
    ['ignore_eos', true],
    ['min_tokens', 5],
    ['skip_special_tokens', false],
    ['mirostat', 2],
    ['typical_p', 0.9],
    ['xtc_probability', 0.5],
    ['dry_multiplier', 0.8],
    ['cache_prompt', false],
    ['stop_token_ids', [7]],
    ['provider', { order: ['other'] }],
    ['models', ['other']],
    ['guided_json', { type: 'other' }],
    ['grammar', 'root ::= "other"'],
    ['random_seed', 7],
    ['n_predict', 5],
  ])('%s: %j would change the answer', async (name, value) => {
    const error = await refusal({ ...body, [name]: value }, path);
    expect(error).toMatchObject({ code: 'unsupported_parameter', param: name });
    expect(error.message).not.toContain('other');
  });

  test('repetition_penalty is repeat_penalty', async () => {
    expect(await seenBy({ ...body, repetition_penalty: 1.3 }, path)).toEqual(
      await seenBy({ ...body, repeat_penalty: 1.3 }, path),
    );
    expect(await seenBy({ ...body, repetition_penalty: 1.3 }, path)).toMatchObject({
      sampling: { repeatPenalty: 1.3 },
    });
    api.engine.requests.length = 0;
    expect(await refusal({ ...body, repetition_penalty: 1.3, repeat_penalty: 1.1 }, path)).toMatchObject({
      code: 'invalid_value',
      param: 'repetition_penalty',
    });
    expect(await refusal({ ...body, repetition_penalty: 0 }, path)).toMatchObject({
      param: 'repetition_penalty',
    });
  });
});

test.each<object>([
  { best_of: 1 },
  { echo: false },
  { add_generation_prompt: true, continue_final_message: false },
  { include_reasoning: true },
  { reasoning_format: 'auto', add_special_tokens: false, documents: [] },
  { reasoning: {} },
  { reasoning: { exclude: false } },
  { thinking: {} },
])('a chat: %j', async (given) => {
  const plain = await seenBy(CHAT);
  expect(await seenBy({ ...CHAT, ...given })).toEqual(plain);
});

test.each<[object, string]>([
  [{ best_of: 2 }, 'best_of'],
  [{ echo: true }, 'echo'],
  [{ include_reasoning: false }, 'include_reasoning'],
  [{ reasoning: { exclude: true } }, 'reasoning.exclude'],
  [{ reasoning: { effort: 'high' } }, 'reasoning.effort'],
])('a chat is refused: %j', async (given, param) => {
  expect(await refusal({ ...CHAT, ...given })).toMatchObject({ code: 'unsupported_parameter', param });
});

describe('thinking, by any of its names', () => {
  test.each<[object, boolean]>([
    [{ thinking: { type: 'disabled' } }, false],
    [{ thinking: { type: 'enabled' } }, true],
    [{ think: false }, false],
    [{ think: true }, true],
    [{ reasoning: { effort: 'none' } }, false],
    [{ reasoning: { enabled: false } }, false],
    [{ reasoning: { enabled: true } }, true],
    [{ think: false, enable_thinking: false, reasoning_effort: 'none' }, false],
  ])('%j', async (given, on) => {
    expect(await seenBy({ ...CHAT, ...given })).toEqual(await seenBy({ ...CHAT, enable_thinking: on }));
  });

  test.each<[object, string, string]>([
    [{ think: true, enable_thinking: false }, 'think', 'enable_thinking and think differ'],
    [{ thinking: { type: 'enabled' }, reasoning_effort: 'none' }, 'thinking', 'reasoning_effort'],
    [{ reasoning: { effort: 'none', enabled: true } }, 'reasoning.enabled', 'reasoning.effort'],
    [{ think: false, chat_template_kwargs: { thinking: true } }, 'chat_template_kwargs.thinking', 'think'],
  ])('%j says two things', async (given, param, message) => {
    const error = await refusal({ ...CHAT, ...given });
    expect(error).toMatchObject({ code: 'invalid_value', param });
    expect(error.message).toContain(message);
  });
});

test('a tool without arguments, as PHP writes it', async () => {
  const tool = (parameters: unknown): object => ({
    ...CHAT,
    tools: [{ type: 'function', function: { name: 'now', parameters } }],
    tool_choice: 'required',
  });
  const none = await seenBy(tool({ type: 'object', properties: {} }));
  expect((await seenBy(tool({ type: 'object', properties: [] }))).grammar).toEqual(none.grammar);
  expect((await seenBy(tool([]))).grammar).toEqual(none.grammar);
});

test.each([
  ['/chat/completions', CHAT],
  ['/completions', COMPLETION],
  ['/embeddings', { model: 'vectors', input: 'a' }],
])('%s is /v1%s', async (path, body) => {
  const response = await post(api, path, body);
  expect([response.status, typeof (await response.json())]).toEqual([200, 'object']);
  expect((await fetch(`${api.url}${path}`)).headers.get('allow')).toBe('POST');
});

test('/models/ID is /v1/models/ID', async () => {
  const answers = await Promise.all(
    ['/models/demo', '/v1/models/demo'].map((path) => fetch(`${api.url}${path}`)),
  );
  expect(answers.map(({ status }) => status)).toEqual([200, 200]);
  const [short, long] = await Promise.all(answers.map((each) => each.json()));
  expect(short).toEqual(long);
});

test('/models is /v1/models', async () => {
  const [short, long] = await Promise.all(
    ['/models', '/v1/models'].map((path) => fetch(`${api.url}${path}`)),
  );
  expect(short?.status).toBe(200);
  expect(await short?.json()).toEqual(await long?.json());
});
