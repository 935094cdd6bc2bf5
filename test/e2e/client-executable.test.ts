// `make client`: one file that is the whole command. It is the same bytes wherever it is built, and in a root
// with glibc and libstdc++ alone it goes from its copy to a verified answer. Needs the locked inputs, and
// the right to change the root of a process.

import { spawn, spawnSync } from 'node:child_process';
import { copyFile, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fetch } from 'undici';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { lockedSources } from '../../image/build.ts';
import { buildClient, bundleClient } from '../../image/client.ts';
import { openInputs } from '../../image/mirror.ts';
import { copySources } from '../../image/reproduce.ts';
import { EXPECTED } from '../../scripts/demo-model/text.ts';
import { watched } from '../fixtures/e2e/assay.ts';
import { startRealServer } from '../fixtures/e2e/real-server.ts';
import { haveInputs, inputsFolder } from '../fixtures/image/guest.ts';

const ready = haveInputs('image') && process.platform === 'linux' && process.arch === 'x64';
const mayChangeRoot = ready && spawnSync('chroot', ['/', 'true']).status === 0;
if (!ready)
  console.warn(
    '\n! the inputs of the image are not in the cache: the executable is not built (make image-inputs)\n',
  );
else if (!mayChangeRoot)
  console.warn('\n! this process may not change its root: the executable is not run in an empty one\n');

/** Node's program is linked with these alone. */
const LIBRARIES = {
  libc6: ['ld-linux-x86-64.so.2', 'libc.so.6', 'libm.so.6', 'libdl.so.2', 'libpthread.so.0'],
  'libstdc++6': ['libstdc++.so.6'],
  'libgcc-s1': ['libgcc_s.so.1'],
};
const inputs = openInputs(inputsFolder, () => {
  throw new Error('a test fetches nothing');
});

describe.skipIf(!ready)('the executable of one file', () => {
  let folder = '';
  let program = '';
  let digest = '';

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'assay-client-'));
    ({ path: program, digest } = await buildClient({
      platform: 'linux-x64',
      inputs,
      out: join(folder, 'out'),
    }));
  }, 300_000);
  afterAll(() => rm(folder, { recursive: true, force: true }));

  test('the same sources in another folder give the same bytes', { timeout: 300_000 }, async () => {
    const top = join(folder, 'another folder/sources');
    copySources(join(import.meta.dirname, '../..'), top);
    const second = await buildClient({ platform: 'linux-x64', inputs, out: join(folder, 'second'), top });
    expect(second.digest).toBe(digest);
    expect(await readdir(join(folder, 'second'))).toEqual(['assay-verify-linux-x64']);
    const script = Buffer.from(await bundleClient(top)).toString();
    expect(script).not.toContain(folder);
    const source = join(top, 'attestation/node/cli/version.ts');
    await writeFile(source, `${await readFile(source, 'utf8')}\nconsole.log('another');\n`);
    expect(Buffer.from(await bundleClient(top)).toString()).not.toBe(script);
  });

  test('it is the command: version, help, exit codes', () => {
    const run = (...args: readonly string[]): { status: number | null; text: string } => {
      const { status, stdout, stderr } = spawnSync(program, args, { env: {}, encoding: 'utf8' });
      return { status, text: stdout + stderr };
    };
    expect(run('--version')).toEqual({ status: 0, text: 'assay-verify 0.1.0\n' });
    expect(run('--help').text).toContain('assay-verify proxy https://HOST');
    expect(run('--unknown').status).toBe(30);
    const evidence = spawnSync(program, ['evidence'], { env: {}, encoding: 'utf8', input: '{}' });
    expect(evidence.stdout).toContain('"code":"malformed_evidence"');
  });

  test.skipIf(!mayChangeRoot)(
    'in a root with glibc and libstdc++ alone, its proxy finds the policy and a model answers',
    { timeout: 120_000 },
    async () => {
      const root = join(folder, 'root');
      const sources = await lockedSources(inputsFolder);
      for (const [name, files] of Object.entries(LIBRARIES))
        for (const file of files) {
          const path = join(root, file.startsWith('ld-') ? 'lib64' : 'usr/lib/x86_64-linux-gnu', file);
          await mkdir(dirname(path), { recursive: true });
          await writeFile(path, sources.debian(name, `usr/lib/x86_64-linux-gnu/${file}`), { mode: 0o755 });
        }
      const server = await startRealServer();
      await mkdir(join(root, '.assay'));
      await copyFile(server.policyPath, join(root, '.assay/policy.json'));
      const started = performance.now();
      await copyFile(program, join(root, 'assay-verify'));
      const proxy = watched(
        spawn(
          'chroot',
          [root, '/assay-verify', 'proxy', server.url, '--allow-simulated', '--listen', '127.0.0.1:0'],
          {
            env: { PATH: process.env['PATH'] },
          },
        ),
      );
      const [, url] = await proxy.said(/listening on (\S+)/);
      const { question, answer } = EXPECTED[0] ?? { question: '', answer: '' };
      const response = await fetch(`${url}/v1/chat/completions`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({
          model: 'demo-chat',
          temperature: 0,
          messages: [{ role: 'user', content: question }],
        }),
      });
      const body = (await response.json()) as { choices: { message: { content: string } }[] };
      console.info(
        `from copy to the verified answer: ${((performance.now() - started) / 1000).toFixed(1)} s`,
      );
      expect(body.choices[0]?.message.content).toBe(answer);
      expect(proxy.err()).toContain('policy: .assay/policy.json, found in this folder');
      // It carries the console, and the one of the server is the same.
      const check = ['console', '--check', server.url];
      const page = watched(spawn('chroot', [root, '/assay-verify', ...check], { env: { PATH: process.env['PATH'] } })); // prettier-ignore
      expect(await page.ended).toEqual([0, null]);
      proxy.child.kill('SIGTERM');
      expect(await proxy.ended).toEqual([0, null]);
      expect(await server.stop()).toBe(0);
    },
  );
});
