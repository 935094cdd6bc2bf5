// The Codex CLI through the verifying proxy: it reads a file, edits it and answers. The model is a script
// behind the engine's seam; the server, its API and the proxy are the real ones.

import { mkdtemp, readFile, mkdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { GenerateRequest } from '../../src/engine/seam/engine.ts';
import { MODEL_ID } from '../fixtures/attestation/attested-server.ts';
import { startBoth } from '../fixtures/attestation/local-proxy.ts';
import { relayTo } from '../fixtures/attestation/api-relay.ts';
import { type ApiServer, startApi } from '../fixtures/http/api-server.ts';
import { haveCodex, protocolWarnings, runCodex } from '../fixtures/agents/codex.ts';

let api: ApiServer;
let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'assay-codex-'));
});
afterEach(async () => {
  await api.close();
  await rm(folder, { recursive: true, force: true });
});

function command(cmd: string): readonly string[] {
  const call = `<tool_call>\n${JSON.stringify({ name: 'exec_command', arguments: { cmd } })}\n</tool_call>`;
  return ['I will look. ', ...(call.match(/.{1,12}/gs) ?? [])];
}

/** The words of the model, by the results of commands it was given so far. */
function script({ prompt }: GenerateRequest): readonly string[] {
  const results = prompt.kind === 'chat' ? prompt.messages.filter(({ role }) => role === 'tool') : [];
  if (results.length === 0) return command('cat greeting.txt');
  if (results.length === 1) return command('printf "good evening\\n" > greeting.txt && cat greeting.txt');
  return [
    'The file says ',
    results.at(-1)?.content.includes('good evening') === true ? 'good evening' : '?',
    '.',
  ];
}

test.skipIf(!haveCodex)('reads a file, edits it, answers', { timeout: 60_000 }, async () => {
  api = await startApi({ engines: { [MODEL_ID]: { script, contextLength: 100_000 } } });
  const { proxy } = await startBoth({ respond: relayTo(() => api.url) });
  await mkdir(join(folder, 'work'));
  await writeFile(join(folder, 'work', 'greeting.txt'), 'good morning\n');
  const run = await runCodex('Make greeting.txt say good evening.', {
    baseUrl: `${proxy.url}/v1`,
    model: MODEL_ID,
    folder,
  });
  expect([run.code, run.log]).toEqual([0, run.log]);
  expect(await readFile(join(folder, 'work', 'greeting.txt'), 'utf8')).toBe('good evening\n');
  const said = run.events.map((event) => JSON.stringify(event));
  expect(said.filter((event) => event.includes('agent_message')).at(-1)).toContain(
    'The file says good evening.',
  );
  expect(
    said.filter((event) => event.includes('command_execution') && event.includes('"exit_code":0')),
  ).toHaveLength(2);
  // No protocol error on either side.
  expect(protocolWarnings(run)).toEqual([]);
  expect(run.events.filter(({ type }) => type === 'turn.failed')).toEqual([]);
  expect(api.records.map(({ route, status, aborted }) => [route, status, aborted])).toEqual(
    Array.from({ length: 3 }, () => ['/v1/responses', 200, false]),
  );
});
