// The programs in examples/ as their readers run them, against a real server: what they print, that they
// refuse a server their policy does not list, and that every folder is in examples/README.md. What a machine
// lacks (python3 with openai) is skipped, loudly.

import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { build } from 'esbuild';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { TOP } from '../../scripts/closures.ts';
import { answerOf } from '../../scripts/demo-model/text.ts';
import { type RealServer, startRealServer } from '../fixtures/e2e/real-server.ts';

// Each example is a process or two of its own, which load a TypeScript compiler first.
vi.setConfig({ testTimeout: 300_000 });

const examples = join(TOP, 'examples');
const QUESTION = 'What is attestation?';
const VERIFY = join(TOP, 'attestation/bin/assay-verify.js');

interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

async function ended(
  command: string,
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<Ended> {
  const child = spawn(command, args, { cwd: TOP, env: { ...process.env, ...env } });
  let [stdout, stderr] = ['', ''];
  child.stdout.setEncoding('utf8').on('data', (part: string) => (stdout += part));
  child.stderr.setEncoding('utf8').on('data', (part: string) => (stderr += part));
  const [code] = (await once(child, 'close')) as [number | null];
  return { code, stdout, stderr };
}

let server: RealServer;
let folder: string;
/** The server's own policy with another build in place of its own. */
let otherPolicy: string;

beforeAll(async () => {
  folder = mkdtempSync(join(TOP, 'dist/examples-run-'));
  server = await startRealServer();
  otherPolicy = join(folder, 'other.json');
  writeFileSync(otherPolicy, JSON.stringify({ ...server.policy, measurements: ['00'.repeat(48)] }));
});
afterAll(async () => {
  rmSync(folder, { recursive: true, force: true });
  expect(await server.stop()).toBe(0);
});

describe.each([
  { name: 'openai-node', packages: undefined },
  { name: 'langchain', packages: 'test/node_modules' },
])('$name', ({ name, packages }) => {
  let main: string;

  beforeAll(() => {
    main = join(examples, name, 'main.ts');
    if (packages === undefined) return;
    // A project that has these packages: they are installed beside the tests only.
    const project = join(folder, name);
    cpSync(join(examples, name), project, { recursive: true });
    symlinkSync(join(TOP, packages), join(project, 'node_modules'));
    main = join(project, 'main.ts');
  });

  function run(env: Readonly<Record<string, string>>): Promise<Ended> {
    return ended(process.execPath, ['--import', 'tsx', main, QUESTION], { ASSAY_URL: server.url, ...env });
  }

  test('streams the answer', async () => {
    const { code, stdout, stderr } = await run({ ASSAY_POLICY: server.policyPath, ASSAY_SIMULATED: '1' });
    expect({ code, stdout }, stderr).toEqual({ code: 0, stdout: `${answerOf('attestation')}\n` });
  });

  test('refuses a build that is not listed, and a simulated one nobody allowed', async () => {
    const unlisted = await run({ ASSAY_POLICY: otherPolicy, ASSAY_SIMULATED: '1' });
    expect([unlisted.code, unlisted.stdout], unlisted.stderr).toEqual([1, '']);
    expect(unlisted.stderr).toContain('measurement_not_listed');
    const simulated = await run({ ASSAY_POLICY: server.policyPath });
    expect([simulated.code, simulated.stdout], simulated.stderr).toEqual([1, '']);
    expect(simulated.stderr).toContain('AttestationError');
  });
});

const HAVE_PYTHON = spawnSync('python3', ['-c', 'import openai']).status === 0;
if (!HAVE_PYTHON)
  console.warn('\n! python3 with the package openai is not installed: examples/python-proxy is not run\n');

test.skipIf(!HAVE_PYTHON)('python-proxy: the OpenAI package through the local proxy', async () => {
  const proxy = spawn(
    process.execPath,
    [
      VERIFY,
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
  const closed = once(proxy, 'close');
  try {
    const url = await new Promise<string>((resolve, reject) => {
      let said = '';
      const look = (part: Buffer): void => {
        said += part.toString();
        const found = /http:\/\/127\.0\.0\.1:\d+/.exec(said)?.[0];
        if (found !== undefined) resolve(found);
      };
      proxy.stdout.on('data', look);
      proxy.stderr.on('data', look);
      void closed.then(() => reject(new Error(said)));
    });
    const { code, stdout, stderr } = await ended(
      'python3',
      [join(examples, 'python-proxy/main.py'), QUESTION],
      { OPENAI_BASE_URL: `${url}/v1` },
    );
    expect({ code, stdout }, stderr).toEqual({ code: 0, stdout: `${answerOf('attestation')}\n` });
  } finally {
    proxy.kill('SIGTERM');
    await closed;
  }
});

describe('kept evidence', () => {
  let kept: string;
  /** The output of examples/offline-bundle. */
  let judged: Ended;

  beforeAll(async () => {
    kept = join(folder, 'kept.json');
    const run = join(examples, 'offline-bundle/run.sh');
    judged = await ended('sh', [run, server.url, kept, '--policy', server.policyPath, '--allow-simulated']);
  });

  test('offline-bundle: keeps it, and judges it without the server', () => {
    expect(judged.code, judged.stderr).toBe(0);
    expect(JSON.parse(judged.stdout)).toMatchObject({
      accepted: true,
      code: null,
      claims: { rootsReplaced: true },
    });
  });

  test('browser-verify: bundled for a browser, it judges the same file', async () => {
    const outfile = join(folder, 'verify.mjs');
    await build({
      entryPoints: [join(examples, 'browser-verify/verify.ts')],
      outfile,
      bundle: true,
      format: 'esm',
      platform: 'browser',
      logLevel: 'silent',
    });
    const { verifyText } = (await import(pathToFileURL(outfile).href)) as {
      verifyText: (text: string) => Promise<string>;
    };
    const text = readFileSync(kept, 'utf8');
    expect(await verifyText(text)).toBe(
      'accepted\nby roots the file brings itself: nothing about hardware is proven',
    );
    const archive = JSON.parse(text) as { evidence: { document: { report: string } }[] };
    const [entry] = archive.evidence;
    if (entry === undefined) throw new Error('nothing was kept');
    const report = Buffer.from(entry.document.report, 'base64');
    report.writeUInt8(report.readUInt8(0x90) ^ 1, 0x90);
    entry.document.report = report.toString('base64');
    expect(await verifyText(JSON.stringify(archive))).toMatch(/^refused: snp_signature\n/);
    expect(await verifyText('{')).toMatch(/^refused: malformed_json\n/);
  });

  test('browser-verify: the page loads what the bundle exports', () => {
    const page = readFileSync(join(examples, 'browser-verify/index.html'), 'utf8');
    expect(page).toContain("import { start } from './verify.js'");
    expect(page).toContain('id="file"');
    expect(page).toContain('id="verdict"');
  });
});

describe('policies', () => {
  const REMARKS: Readonly<Record<string, readonly RegExp[]>> = {
    'minimal.json': [
      /^minimumTcb has no entry for Genoa/,
      /^minimumTcb has no entry for Turin/,
      /^chips is absent/,
    ],
    'release.json': [/^chips is absent/],
    'strict.json': [
      /^guestPolicy refuses a guest launched with policy=0x30000: .*; launch it with policy=0x3d20000$/,
    ],
  };

  test('these are all', () => {
    expect(readdirSync(join(examples, 'policies')).filter((name) => name.endsWith('.json'))).toEqual(
      Object.keys(REMARKS),
    );
  });

  test.each(Object.entries(REMARKS))(
    '%s is read, and leaves open what README.md says',
    async (name, remarks) => {
      const { code, stdout, stderr } = await ended(process.execPath, [
        VERIFY,
        'policy',
        'lint',
        join(examples, 'policies', name),
        '--reference-values',
        join(TOP, 'image/reference-values.json'),
      ]);
      expect(code, stderr).toBe(0);
      const lines = stdout.trim() === '' ? [] : stdout.trim().split('\n');
      expect(lines).toEqual(remarks.map((remark) => expect.stringMatching(remark) as unknown));
    },
  );
});

test('examples/README.md lists every folder', () => {
  const readme = readFileSync(join(examples, 'README.md'), 'utf8');
  const folders = readdirSync(examples, { withFileTypes: true }).filter((entry) => entry.isDirectory());
  expect(folders.map(({ name }) => name).filter((name) => !readme.includes(`](${name})`))).toEqual([]);
});
