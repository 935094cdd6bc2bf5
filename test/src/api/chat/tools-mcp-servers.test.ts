// Every tool of well-known MCP servers, as an agent sends them all with each message: accepted as they are,
// by the route's own reader, one by one and together; what is written for them is an object.

import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { GenerateRequest } from '../../../../src/engine/seam/engine.ts';
import { seededRandom } from '../../../../src/engine/child/decode/sampler.ts';
import { generate, parseGbnf } from '../../../fixtures/grammar/gbnf.ts';
import { type ApiServer, post, startApi } from '../../../fixtures/http/api-server.ts';
import { MCP_SERVERS } from '../../../fixtures/mcp/list.ts';
import { haveServer, toolsOf, type McpTool } from '../../../fixtures/mcp/servers.ts';

const LEAST_TOOLS = 250;
const LEAST_SERVERS = 8;
/** Of one request. */
const MAX_TOOLS = 128;

let api: ApiServer;
beforeAll(async () => void (api = await startApi()));
afterAll(() => api.close());

async function send(tools: readonly McpTool[]): Promise<{ readonly status: number; readonly text: string }> {
  const response = await post(api, '/v1/chat/completions', {
    model: 'demo',
    messages: [{ role: 'user', content: 'Hi' }],
    tool_choice: 'required',
    tools: tools.map(({ name, description, inputSchema }) => ({
      type: 'function',
      function: { name, description, parameters: inputSchema },
    })),
  });
  return { status: response.status, text: await response.text() };
}

describe.skipIf(!MCP_SERVERS.every(haveServer))('tools of MCP servers', () => {
  const found = new Map<string, readonly McpTool[]>();

  test.each(MCP_SERVERS)('$spec', { timeout: 400_000 }, async (server) => {
    const tools = await toolsOf(server);
    found.set(server.spec, tools);
    expect(tools.length).toBeGreaterThan(0);
    for (const tool of tools) {
      const { status, text } = await send([tool]);
      expect([tool.name, status, status === 200 ? '' : text]).toEqual([tool.name, 200, '']);
      const { grammar } = api.engine.requests.at(-1) as GenerateRequest;
      const call = generate(parseGbnf(grammar?.gbnf ?? ''), seededRandom(1, 0));
      const value: unknown = JSON.parse(call.replaceAll(/^<tool_call>|<\/tool_call>.*$/gs, ''));
      expect(value).toEqual({ name: tool.name, arguments: expect.any(Object) as unknown });
    }
    expect((await send(tools.slice(0, MAX_TOOLS))).status).toBe(200);
  });

  test('all together', { timeout: 400_000 }, async () => {
    expect(found.size).toBeGreaterThanOrEqual(LEAST_SERVERS);
    const all = [...found].flatMap(([spec, tools]) =>
      tools.map((tool) => ({
        ...tool,
        name: `${spec.replaceAll(/[^a-z]/g, '').slice(-20)}_${tool.name}`.slice(0, 64),
      })),
    );
    expect(all.length).toBeGreaterThanOrEqual(LEAST_TOOLS);
    for (let from = 0; from < all.length; from += MAX_TOOLS)
      expect((await send(all.slice(from, from + MAX_TOOLS))).status).toBe(200);
  });
});
