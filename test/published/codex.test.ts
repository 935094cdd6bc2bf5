// The Codex CLI through the verifying proxy on published weights. What so small a model says to so long a
// prompt is not judged: the turn ends, and no side logs an error of the protocol. Skipped where either is
// missing.

import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { allowSimulated, type AppraisalPolicy } from '@assay/attestation';
import { startProxy } from '@assay/attestation/node';
import { haveCodex, protocolWarnings, runCodex } from '../fixtures/agents/codex.ts';
import { type RealServer, startRealServer } from '../fixtures/e2e/real-server.ts';
import { publishedWeights } from '../fixtures/models/published.ts';

interface Turn {
  readonly model: 'smollm2' | 'gemma3-270m';
  /** Whether the instructions and tools of Codex, 8,500 tokens, fit in its context. */
  readonly fits: boolean;
}

const TURNS: readonly (Turn & { readonly path: string | undefined })[] = [
  { model: 'smollm2', fits: false, path: await publishedWeights('smollm2') },
  { model: 'gemma3-270m', fits: true, path: await publishedWeights('gemma3-270m') },
];
const HERE = TURNS.filter(({ path }) => path !== undefined);
/** How Codex ends a turn that the limit of tokens or the context ended. */
const ENDS = {
  cut: 'Incomplete response returned, reason: max_output_tokens',
  full: "Codex ran out of room in the model's context window",
};

describe.skipIf(!haveCodex || HERE.length === 0)('Codex', () => {
  let folder: string;
  let server: RealServer;
  let proxy: Awaited<ReturnType<typeof startProxy>>;

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'assay-codex-'));
    const config = join(folder, 'assay.toml');
    const entries = HERE.map(
      ({ model, path }) =>
        `[api.models.${model}]\npath = "${path}"\ntype = "chat"\ncontext_length = 32768\ndefault_max_tokens = 32\n`,
    );
    await writeFile(config, entries.join('\n'));
    server = await startRealServer({ args: ['--config', config] });
    const policy = { ...(server.policy as AppraisalPolicy), [allowSimulated]: true as const };
    proxy = await startProxy({ upstream: server.url, policy, host: '127.0.0.1', port: 0 });
  });
  afterAll(async () => {
    await proxy.close();
    expect(await server.stop()).toBe(0);
    await rm(folder, { recursive: true, force: true });
  });

  test.each(HERE)('a turn with $model', { timeout: 900_000 }, async ({ model, fits }) => {
    const run = await runCodex('Say hello.', { baseUrl: `${proxy.url}/v1`, model, folder });
    expect(protocolWarnings(run)).toEqual([]);
    const failures = run.events.flatMap(({ type, ...event }) =>
      type === 'error' || type === 'turn.failed' ? [JSON.stringify(event)] : [],
    );
    // A base model seldom ends by itself: the limit does, and Codex says so.
    const failed = fits ? ENDS.cut : ENDS.full;
    expect(failures.filter((failure) => !failure.includes(failed))).toEqual([]);
    expect(failures.length).toBe(run.code === 0 ? 0 : 2);
    if (!fits) expect(run.code).toBe(1);
    const told = run.events.filter((event) => JSON.stringify(event).includes('"agent_message"'));
    if (fits) expect(told.length).toBe(1);
    const [status, code] = fits ? [200, undefined] : [400, 'context_length_exceeded'];
    const logged = await server.logged(
      (line) => line['route'] === '/v1/responses' && line['status'] === status && line['msg'] === 'request',
    );
    expect(logged['code']).toBe(code);
  });
});
