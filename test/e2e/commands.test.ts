// The commands a person pastes: assay-verify with its exit codes, the proxy with curl's kind of
// HTTP, `make demo`'s script.

import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import OpenAI from 'openai';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { EXPECTED } from '../../scripts/demo-model/text.ts';
import { type RealServer, startRealServer } from '../fixtures/e2e/real-server.ts';

const top = fileURLToPath(new URL('../..', import.meta.url));
const verifyCli = join(top, 'attestation/dist/node/cli/main.js');
const question = EXPECTED[0]?.question ?? '';
const answer = EXPECTED[0]?.answer ?? '';

interface Ran {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

function run(args: readonly string[]): Promise<Ran> {
  return new Promise((resolve) => {
    execFile(
      process.execPath,
      [...args],
      { cwd: top, encoding: 'utf8', maxBuffer: 16 * 1024 * 1024 },
      (error, stdout, stderr) => {
        resolve({ code: error === null ? 0 : Number(error.code ?? -1), stdout, stderr });
      },
    );
  });
}

/** As a person pastes it. */
async function shell(line: string, cwd: string): Promise<Ran> {
  return new Promise((resolve) => {
    execFile('/bin/sh', ['-c', line], { cwd, encoding: 'utf8' }, (error, stdout, stderr) =>
      resolve({ code: error === null ? 0 : Number(error.code ?? -1), stdout, stderr }),
    );
  });
}

describe('commands', () => {
  let server: RealServer;
  const proxies: ChildProcess[] = [];

  beforeAll(async () => {
    server = await startRealServer();
  });
  afterAll(async () => {
    for (const child of proxies) {
      const ended = once(child, 'exit');
      child.kill('SIGTERM');
      await ended;
    }
    expect(await server.stop()).toBe(0);
  });

  test('assay-verify prints the verdict as a table, exit 0', async () => {
    const { code, stdout } = await run([
      verifyCli,
      server.url,
      '--policy',
      server.policyPath,
      '--allow-simulated',
    ]);
    expect(code, stdout).toBe(0);
    expect(stdout).toContain(`MEASUREMENT ${server.policy.measurements[0]?.measurement.slice(0, 8)}`);
    expect(stdout).toContain('ACCEPTED');
    expect(stdout.toLowerCase()).toContain('simulated');
    expect(stdout).toContain('demo-chat');
  });

  test.each([
    ['accepted', ['--allow-simulated']],
    ['refused', []],
  ])('a reader that has gone, as of `| head`, changes nothing: %s', async (_, flags) => {
    const args = [verifyCli, server.url, '--policy', server.policyPath, ...flags];
    const expected = (await run(args)).code;
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    child.stdout.destroy();
    let stderr = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
    const [code] = (await once(child, 'close')) as [number | null];
    expect(stderr).not.toContain('EPIPE');
    expect(code, stderr).toBe(expected);
  });

  test('score: what the real server fails is that it is simulated, and what it does not offer', async () => {
    const policy = ['--policy', server.policyPath, '--allow-simulated'];
    const { code, stdout, stderr } = await run([verifyCli, 'score', server.url, ...policy, '--json']);
    expect(code, stderr).toBe(10);
    const { factors } = JSON.parse(stdout) as { factors: { id: string; grade: string }[] };
    const graded = (grade: string): string[] =>
      factors.filter((factor) => factor.grade === grade).map(({ id }) => id);
    const offers = ['receipts-offered', 'sealed-offered'];
    expect(graded('fail').filter((id) => !offers.includes(id))).toEqual(['genuine-hardware']);
    expect(graded('pass')).toEqual(
      expect.arrayContaining(['no-resumption', 'tls-1-3-only', 'plain-http-refused', 'weights-pinned']),
    );
  });

  test('--json has every check with id, spec, status and detail [M18]', async () => {
    const { code, stdout } = await run([
      verifyCli,
      server.url,
      '--policy',
      server.policyPath,
      '--allow-simulated',
      '--json',
    ]);
    expect(code).toBe(0);
    const verdict = JSON.parse(stdout) as {
      accepted: boolean;
      checks: { id: string; spec: string; status: string; detail: string }[];
    };
    expect(verdict.accepted).toBe(true);
    expect(verdict.checks.length).toBeGreaterThan(30);
    for (const check of verdict.checks)
      expect(check).toMatchObject({
        id: expect.any(String),
        spec: expect.any(String),
        status: expect.stringMatching(/^(pass|skip)$/),
        detail: expect.any(String),
      });
  });

  test('refused: exit 10, and it says which check and why', async () => {
    const without = await run([verifyCli, server.url, '--policy', server.policyPath, '--json']);
    expect(without.code).toBe(10);
    expect(JSON.parse(without.stdout)).toMatchObject({ accepted: false, code: 'simulated_refused' });
    const policy = JSON.parse(await readFile(server.policyPath, 'utf8')) as { measurements: unknown };
    policy.measurements = ['ab'.repeat(48)];
    const other = join(server.dataFolder, 'other-policy.json');
    await writeFile(other, JSON.stringify(policy));
    const wrong = await run([verifyCli, server.url, '--policy', other, '--allow-simulated', '--json']);
    expect(wrong.code).toBe(10);
    expect(JSON.parse(wrong.stdout)).toMatchObject({ accepted: false, code: 'snp_measurement' });
  });

  test('bad input: exit 30 for a policy with an unknown key [M19], danger in JSON is not a key [M20]', async () => {
    const policy = JSON.parse(await readFile(server.policyPath, 'utf8')) as Record<string, unknown>;
    for (const key of ['measurementz', 'allowSimulated', 'danger', 'debug']) {
      const path = join(server.dataFolder, `${key}.json`);
      await writeFile(path, JSON.stringify({ ...policy, [key]: true }));
      const { code, stdout, stderr } = await run([verifyCli, server.url, '--policy', path, '--json']);
      expect(code, stdout + stderr).toBe(30);
    }
  });

  test('the proxy verifies first, then serves plain HTTP on loopback: any client works unchanged', async () => {
    const child = spawn(
      process.execPath,
      [
        verifyCli,
        'proxy',
        server.url,
        '--policy',
        server.policyPath,
        '--allow-simulated',
        '--listen',
        '127.0.0.1:0',
      ],
      { stdio: ['ignore', 'pipe', 'pipe'] },
    );
    proxies.push(child);
    let said = '';
    let url: string | undefined;
    for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8');
    const listening = new Promise<string>((resolve) => {
      const look = (chunk: string): void => {
        said += chunk;
        const match = /http:\/\/127\.0\.0\.1:\d+/.exec(said);
        if (match) resolve(match[0]);
      };
      child.stdout.on('data', look);
      child.stderr.on('data', look);
    });
    url = await listening;
    const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'unused', maxRetries: 0 });
    const completion = await client.chat.completions.create({
      model: 'demo-chat',
      temperature: 0,
      messages: [{ role: 'user', content: question }],
    });
    expect(completion.choices[0]?.message.content).toBe(answer);
    const stream = await client.chat.completions.create({
      model: 'demo-chat',
      temperature: 0,
      messages: [{ role: 'user', content: question }],
      stream: true,
    });
    let text = '';
    for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? '';
    expect(text).toBe(answer);
    const refusal = await fetch(`${url}/v1/nothing`);
    expect(refusal.status).toBe(404);
    expect(await refusal.json()).toMatchObject({ error: { code: 'unknown_url' } });
  });

  test('a policy names a release; the reference values beside it say which builds that is', async () => {
    const path = join(server.dataFolder, 'release.json');
    const values = join(top, 'image/reference-values.json');
    const [name = ''] = Object.keys(
      (JSON.parse(await readFile(values, 'utf8')) as { releases: object }).releases,
    );
    await writeFile(
      path,
      JSON.stringify({ measurements: [{ release: name }], models: server.policy.models }),
    );
    const printed = await run([verifyCli, 'policy', 'print', path, '--reference-values', values]);
    expect(printed.code, printed.stderr).toBe(0);
    expect((JSON.parse(printed.stdout) as { measurements: unknown[] }).measurements.length).toBeGreaterThan(
      300,
    );
    expect((await run([verifyCli, 'policy', 'print', path])).code).toBe(30);
    // This server is not that release.
    const refused = await run([
      verifyCli,
      server.url,
      '--policy',
      path,
      '--reference-values',
      values,
      '--allow-simulated',
      '--json',
    ]);
    expect(refused.code).toBe(10);
    expect(JSON.parse(refused.stdout)).toMatchObject({ accepted: false, code: 'snp_measurement' });
  });

  test('the proxy refuses to listen on anything but loopback without a flag', async () => {
    const { code, stderr, stdout } = await run([
      verifyCli,
      'proxy',
      server.url,
      '--policy',
      server.policyPath,
      '--allow-simulated',
      '--listen',
      '0.0.0.0:0',
    ]);
    expect(code).toBe(30);
    expect(stdout + stderr).toMatch(/loopback/);
  });

  test('the lines the server prints for the OpenAI SDK work as they are pasted', async () => {
    const lines = server.stdout().split('\n');
    const pasted = lines.slice(lines.findIndex((line) => line.startsWith('OpenAI SDK')) + 1).join('\n');
    const script = `${pasted}
      const { choices } = await client.chat.completions.create({ model: 'demo-chat', temperature: 0, messages: [{ role: 'user', content: ${JSON.stringify(question)} }] });
      process.stdout.write(choices[0].message.content); process.exit(0);`;
    const { code, stdout, stderr } = await run(['--input-type=module', '-e', script]);
    expect(code, stderr).toBe(0);
    expect(stdout).toBe(answer);
  });

  test('the verify command the server prints works as it is pasted', async () => {
    const lines = server.stdout().split('\n');
    const line = lines[lines.indexOf('Verify:') + 1] ?? '';
    // From a folder outside of the checkout.
    const { code, stdout } = await shell(line, tmpdir());
    expect(code, stdout).toBe(0);
  });

  test('the demo: server up, client verifies, streams an answer, prints the verdict, exit 0', async () => {
    const { code, stdout, stderr } = await run(['--import', 'tsx', 'scripts/demo.ts']);
    expect(code, stderr).toBe(0);
    expect(stdout).toContain(answer);
    expect(stdout).toMatch(/S27\s+ok/);
    expect(stdout).toContain('ACCEPTED');
  });
});
