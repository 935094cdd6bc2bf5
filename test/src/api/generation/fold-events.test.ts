// Transcripts of streams and error bodies, byte for byte: what clients parse must not change unseen.

import { afterEach, expect, test } from 'vitest';
import { ApiError } from '../../../../src/base/errors.ts';
import { type ApiServer, type ApiServerOptions, post, startApi } from '../../../fixtures/http/api-server.ts';

let api: ApiServer;
afterEach(() => api.close());

async function start(options: ApiServerOptions = {}): Promise<void> {
  let call = 0;
  api = await startApi({
    ...options,
    deps: {
      now: () => 1_700_000_000_000,
      randomHex: (bytes) => (bytes === 12 ? String((call += 1)).padStart(24, '0') : '0'.repeat(2 * bytes)),
    },
  });
}
const CHAT = { model: 'demo', messages: [{ role: 'user', content: 'Hi' }], stream: true };
const PLAIN = { include_obfuscation: false };
const WEATHER = {
  type: 'function',
  function: {
    name: 'weather',
    parameters: {
      type: 'object',
      properties: { city: { type: 'string' } },
      required: ['city'],
      additionalProperties: false,
    },
  },
};
const TOOL_SCRIPT = [
  'Let me',
  ' see. ',
  '<tool',
  '_call>\n{"name": "wea',
  'ther", "arguments": ',
  '{"city"',
  ': "Paris"}',
  '}\n</tool_call>',
  '\n<tool_call>\n',
  '{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>',
];

const cases: [string, ApiServerOptions, string, object][] = [
  ['chat', {}, '/v1/chat/completions', { ...CHAT, stream_options: PLAIN }],
  ['chat-padded', {}, '/v1/chat/completions', CHAT],
  ['chat-usage', {}, '/v1/chat/completions', { ...CHAT, stream_options: { ...PLAIN, include_usage: true } }],
  ['chat-two-choices', {}, '/v1/chat/completions', { ...CHAT, n: 2, max_tokens: 2, stream_options: PLAIN }],
  [
    'chat-logprobs',
    {},
    '/v1/chat/completions',
    { ...CHAT, max_tokens: 2, logprobs: true, top_logprobs: 1, stream_options: PLAIN },
  ],
  ['chat-stop', {}, '/v1/chat/completions', { ...CHAT, stop: ' wor', stream_options: PLAIN }],
  [
    'chat-tools',
    { engine: { script: () => TOOL_SCRIPT } },
    '/v1/chat/completions',
    { ...CHAT, tools: [WEATHER], stream_options: PLAIN },
  ],
  [
    'chat-one-tool',
    { engine: { script: () => TOOL_SCRIPT } },
    '/v1/chat/completions',
    { ...CHAT, tools: [WEATHER], parallel_tool_calls: false, stream_options: PLAIN },
  ],
  [
    'chat-tools-length',
    { engine: { script: () => TOOL_SCRIPT } },
    '/v1/chat/completions',
    { ...CHAT, tools: [WEATHER], max_tokens: 6, stream_options: PLAIN },
  ],
  [
    'chat-error',
    {
      engine: {
        failAt: {
          position: 2,
          error: new ApiError('engine_crashed', 'the engine ended unexpectedly', {
            retryAfterSeconds: 1,
          }),
        },
      },
    },
    '/v1/chat/completions',
    { ...CHAT, stream_options: PLAIN },
  ],
  [
    'completion',
    {},
    '/v1/completions',
    { model: 'demo', prompt: 'Once', stream: true, stream_options: { ...PLAIN, include_usage: true } },
  ],
  [
    'completion-logprobs-echo',
    {},
    '/v1/completions',
    {
      model: 'demo',
      prompt: 'Once',
      echo: true,
      max_tokens: 2,
      logprobs: 1,
      stream: true,
      stream_options: PLAIN,
    },
  ],
  ['pull', {}, '/v1/models/pull', { name: 'owner/repo:Q4_K_M' }],
];

test.each(cases)('stream %s', async (name, options, path, body) => {
  await start(options);
  const text = await (await post(api, path, body)).text();
  await expect(
    text.replaceAll(
      /"obfuscation":"([^"]*)"/g,
      (_all, filler: string) => `"obfuscation":"<${filler.length}>"`,
    ),
  ).toMatchFileSnapshot(`../../../golden/sse-${name}.txt`);
});

test('bodies that do not stream', async () => {
  await start({ engine: { script: () => TOOL_SCRIPT } });
  const bodies: Record<string, unknown> = {};
  const ask = async (path: string, body: object): Promise<unknown> => (await post(api, path, body)).json();
  bodies['chat'] = await ask('/v1/chat/completions', { ...CHAT, stream: false, max_tokens: 2 });
  bodies['chat tools'] = await ask('/v1/chat/completions', { ...CHAT, stream: false, tools: [WEATHER] });
  bodies['chat logprobs'] = await ask('/v1/chat/completions', {
    ...CHAT,
    stream: false,
    logprobs: true,
    top_logprobs: 1,
    max_tokens: 1,
  });
  bodies['completion'] = await ask('/v1/completions', {
    model: 'demo',
    prompt: 'Once',
    max_tokens: 1,
    logprobs: 1,
  });
  bodies['embeddings'] = await ask('/v1/embeddings', {
    model: 'text-embed',
    input: 'a',
    encoding_format: 'base64',
  });
  bodies['rerank'] = await ask('/v1/rerank', {
    model: 'reranker',
    query: 'a',
    documents: ['b', 'a'],
    return_documents: true,
  });
  bodies['tokenize'] = await ask('/v1/tokenize', { model: 'demo', content: 'hi' });
  bodies['models'] = await (await fetch(`${api.url}/v1/models/demo`)).json();
  await expect(`${JSON.stringify(bodies, null, 2)}\n`).toMatchFileSnapshot('../../../golden/bodies.json.txt');
});

test('error bodies', async () => {
  await start();
  const lines: string[] = [];
  const note = async (what: string, response: Response): Promise<void> => {
    const retry = ['retry-after', 'x-should-retry', 'allow', 'www-authenticate'].flatMap((name) =>
      response.headers.has(name) ? [`${name}: ${response.headers.get(name)}`] : [],
    );
    lines.push(`${what} → ${[response.status, ...retry].join(', ')}`, `  ${await response.text()}`);
  };
  await note('unknown route', await fetch(`${api.url}/v1/nothing`));
  await note('another method', await fetch(`${api.url}/v1/chat/completions`));
  await note('not JSON', await post(api, '/v1/chat/completions', '{'));
  await note(
    'text',
    await post(api, '/v1/chat/completions', 'x', { headers: { 'content-type': 'text/plain' } }),
  );
  await note('no model', await post(api, '/v1/chat/completions', { messages: CHAT.messages }));
  await note('unknown model', await post(api, '/v1/chat/completions', { ...CHAT, model: 'none' }));
  await note('unknown parameter', await post(api, '/v1/chat/completions', { ...CHAT, tempreature: 1 }));
  await note('unsupported parameter', await post(api, '/v1/chat/completions', { ...CHAT, audio: {} }));
  await note('out of range', await post(api, '/v1/chat/completions', { ...CHAT, temperature: 3 }));
  await note(
    'wrong type',
    await post(api, '/v1/chat/completions', { ...CHAT, messages: [{ role: 'user', content: 5 }] }),
  );
  await note(
    'wrong kind of model',
    await post(api, '/v1/chat/completions', { ...CHAT, model: 'text-embed' }),
  );
  await note(
    'context',
    await post(api, '/v1/chat/completions', {
      ...CHAT,
      messages: [{ role: 'user', content: 'x'.repeat(9000) }],
    }),
  );
  await note(
    'schema',
    await post(api, '/v1/chat/completions', {
      ...CHAT,
      response_format: {
        type: 'json_schema',
        json_schema: { name: 'x', schema: { type: 'object', dependentSchemas: {} } },
      },
    }),
  );
  await note('no TEE', await fetch(`${api.url}/v1/attestation`));
  await note('taken name', await post(api, '/v1/models', { name: 'demo', path: '/m' }));
  await expect(`${lines.join('\n')}\n`).toMatchFileSnapshot('../../../golden/errors.txt');
});
