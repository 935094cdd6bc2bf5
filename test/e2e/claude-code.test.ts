// The Claude Code CLI through the verifying proxy: it reads a file, edits it and answers. The model is a
// script behind the engine's seam, or a small real one, which only has to be spoken to without an error; the
// server, its API and the proxy are the real ones.

import { mkdtemp, readFile, mkdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { Engine, GenerateRequest } from '../../src/engine/seam/engine.ts';
import { MODEL_ID } from '../fixtures/attestation/attested-server.ts';
import { startBoth } from '../fixtures/attestation/local-proxy.ts';
import { relayTo } from '../fixtures/attestation/api-relay.ts';
import { openDemo } from '../fixtures/engine/demo-engine.ts';
import { type ApiServer, startApi } from '../fixtures/http/api-server.ts';
import { haveClaudeCode, runClaudeCode } from '../fixtures/agents/claude-code.ts';

let api: ApiServer;
let folder: string;
let file: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'assay-claude-'));
  file = join(folder, 'work', 'greeting.txt');
  await mkdir(join(folder, 'work'));
  await writeFile(file, 'good morning\n');
});
afterEach(async () => {
  await api.close();
  await rm(folder, { recursive: true, force: true });
});

function call(name: string, given: object): readonly string[] {
  const whole = `<tool_call>\n${JSON.stringify({ name, arguments: given })}\n</tool_call>`;
  return ['I will look. ', ...(whole.match(/.{1,12}/gs) ?? [])];
}

/** The words of the model, by the results of tools it was given so far. */
function script({ prompt }: GenerateRequest): readonly string[] {
  const results = prompt.kind === 'chat' ? prompt.messages.filter(({ role }) => role === 'tool') : [];
  if (results.length === 0) return call('Read', { file_path: file });
  if (results.length === 1)
    return call('Edit', { file_path: file, old_string: 'good morning', new_string: 'good evening' });
  return ['The file was ', results[0]?.content.includes('good morning') === true ? 'good' : '?', '.'];
}

async function run(...flags: readonly string[]): ReturnType<typeof runClaudeCode> {
  const { proxy } = await startBoth({ respond: relayTo(() => api.url) });
  return runClaudeCode('Make greeting.txt say good evening.', {
    baseUrl: proxy.url,
    model: MODEL_ID,
    folder,
    flags,
  });
}

describe.skipIf(!haveClaudeCode)('Claude Code', () => {
  test('reads a file, edits it, answers', { timeout: 120_000 }, async () => {
    api = await startApi({ engines: { [MODEL_ID]: { script, contextLength: 100_000 } } });
    const { code, log, events } = await run();
    expect([code, log]).toEqual([0, log]);
    expect(await readFile(file, 'utf8')).toBe('good evening\n');
    expect(events.at(-1)).toMatchObject({ type: 'result', is_error: false, result: 'The file was good.' });
    // Every request was answered, and none was tried again.
    expect(api.records.map(({ route, status, aborted }) => [route, status, aborted])).toEqual(
      Array.from({ length: 3 }, () => ['/v1/messages', 200, false]),
    );
  });

  describe('on a small model', () => {
    let engine: Engine;
    beforeEach(async () => {
      engine = await openDemo('demo-chat', { slots: 1 });
      api = await startApi({ realEngines: { [MODEL_ID]: engine } });
    });
    afterEach(() => engine.close());

    test('is answered without an error of the protocol', { timeout: 120_000 }, async () => {
      const { code, events } = await run('--bare', '--system-prompt', 'You answer.');
      expect([code, events.at(-1)]).toMatchObject([
        0,
        { type: 'result', is_error: false, api_error_status: null },
      ]);
      expect(api.records.map(({ status, aborted }) => [status, aborted])).toEqual([[200, false]]);
    });

    test('understands that its prompt does not fit', { timeout: 120_000 }, async () => {
      const { events } = await run();
      expect(events.at(-1)).toMatchObject({ type: 'result', terminal_reason: 'prompt_too_long' });
      for (const { status } of api.records) expect(status).toBe(400);
    });
  });
});
