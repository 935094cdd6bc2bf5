// Schemas on real engines: the answer always fits, or the request is refused before it begins.

import type OpenAI from 'openai';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type ApiServer, type ErrorAnswer, post } from '../../fixtures/http/api-server.ts';
import { type DemoApi, startDemoApi, user } from '../../fixtures/http/demo-api.ts';

let demo: DemoApi;
let api: ApiServer;
let client: OpenAI;
beforeAll(async () => {
  demo = await startDemoApi(['demo-chat', 'demo-context']);
  ({ api, client } = demo);
});
afterAll(() => demo.close());

describe('structured output', () => {
  const schema = {
    type: 'object',
    properties: {
      name: { type: 'string', maxLength: 12 },
      age: { type: 'integer', minimum: 0, maximum: 150 },
      tags: { type: 'array', items: { enum: ['a', 'b'] }, maxItems: 3 },
    },
    required: ['name', 'age', 'tags'],
    additionalProperties: false,
  };

  test.each([true, false])('json_schema (strict: %s) always fits', async (strict) => {
    const got = await client.chat.completions.create({
      model: 'demo-context',
      messages: user('Someone'),
      response_format: { type: 'json_schema', json_schema: { name: 'person', strict, schema } },
      temperature: 1,
      seed: 3,
      max_tokens: 200,
      n: 3,
    });
    for (const choice of got.choices) {
      const value = JSON.parse(choice.message.content ?? '') as { name: string; age: number; tags: string[] };
      expect(Object.keys(value).sort()).toEqual(['age', 'name', 'tags']);
      expect(Number.isInteger(value.age) && value.age >= 0 && value.age <= 150).toBe(true);
      expect(value.tags.every((tag) => tag === 'a' || tag === 'b')).toBe(true);
      expect(value.name.length).toBeLessThanOrEqual(12);
    }
  });

  test('json_object gives an object', async () => {
    const got = await client.chat.completions.create({
      model: 'demo-chat',
      messages: user('Hello!'),
      response_format: { type: 'json_object' },
      temperature: 0,
      max_tokens: 60,
    });
    expect(got.choices[0]?.message.content?.trimStart().startsWith('{')).toBe(true);
  });

  test('a keyword that cannot be held: 400 naming it, before a stream', async () => {
    const response = await post(api, '/v1/chat/completions', {
      model: 'demo-chat',
      messages: user('x'),
      stream: true,
      response_format: {
        type: 'json_schema',
        json_schema: { name: 'x', schema: { type: 'object', patternProperties: {} } },
      },
    });
    expect(response.status).toBe(400);
    expect(((await response.json()) as ErrorAnswer).error).toMatchObject({
      code: 'invalid_schema',
      param: 'response_format.json_schema.schema.patternProperties',
    });
  });
});
