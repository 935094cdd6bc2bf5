// docs/workshop.md, "From safetensors to attested serving", is run as it is written; then the server that
// takes models by their records refuses everything else: no record, another file, an altered record,
// records of another boot, evidence of another record, another kind.

import { execFile } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { ASSAY, spawnAssay, type Spawned } from '../fixtures/e2e/assay.ts';
import { HF_FOLDERS, writeFolder } from '../fixtures/models/hf-folder.ts';

const TOP = fileURLToPath(new URL('../..', import.meta.url));
const VERIFY = join(TOP, 'attestation/bin/assay-verify.js');
const PAGE = readFileSync(join(TOP, 'docs/workshop.md'), 'utf8');
const SECTION = /\n## From safetensors to attested serving\n([\s\S]*?)\n## /.exec(PAGE)?.[1] ?? '';
let folder: string;
let workshop: Spawned | undefined;
let server: Spawned | undefined;

function blocks(language: string): readonly string[] {
  return [...SECTION.matchAll(new RegExp(`\`\`\`${language}\\n([\\s\\S]*?)\`\`\``, 'g'))].map(
    (match) => match[1] ?? '',
  );
}

interface Ended {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

function shell(command: string): Promise<Ended> {
  const env = { PATH: `${join(folder, 'bin')}:${process.env['PATH']}`, HOME: folder };
  return new Promise((resolve) => {
    execFile(
      '/bin/sh',
      ['-e', '-c', command],
      { cwd: folder, env, encoding: 'utf8' },
      (error, stdout, stderr) => resolve({ code: error === null ? 0 : Number(error.code), stdout, stderr }),
    );
  });
}

async function startWorkshop(): Promise<void> {
  workshop = spawnAssay(['workshop', '--config', 'workshop.toml'], { cwd: folder });
  await workshop.said(/"msg":"listening"/);
}

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'assay-workshop-page-'));
  mkdirSync(join(folder, 'models', 'tiny'), { recursive: true });
  writeFolder(join(folder, 'models', 'tiny'), HF_FOLDERS.mistral());
  mkdirSync(join(folder, 'bin'));
  for (const [name, entry] of [['assay', ASSAY], ['assay-verify', VERIFY]] as const)
    writeFileSync(join(folder, 'bin', name), `#!/bin/sh\nexec '${process.execPath}' '${entry}' "$@"\n`, { mode: 0o755 }); // prettier-ignore
  writeFileSync(join(folder, 'workshop.toml'), blocks('toml')[0] ?? '');
  await startWorkshop();
}, 120_000);

afterAll(async () => {
  for (const each of [server, workshop]) {
    each?.child.kill('SIGTERM');
    await each?.ended;
  }
  rmSync(folder, { recursive: true, force: true });
});

test('the page, from a folder to a server that serves it', async () => {
  const [make = '', judge = '', configure = ''] = blocks('sh');
  const made = await shell(make);
  expect(made.stderr).toMatch(/^(?:job-[0-9a-f]{32} \d{1,3} % [\w -]+\n)+$/);
  expect(made.stdout).toMatch(/^job-[0-9a-f]{32} done\n[0-9a-f]{64} {2}job-[0-9a-f]{32}\/tiny-q8\.gguf\n/);
  expect(made.stdout).toMatch(/evidence\.json\nrecord\.cose\ntiny-q8\.gguf\n$/);
  const judged = await shell(judge);
  expect(judged.stdout, judged.stderr).toContain('ACCEPTED, SIMULATED');
  expect(judged.code).toBe(0);
  expect(await shell(configure)).toMatchObject({ code: 0 });
  const text = readFileSync(join(folder, 'server.toml'), 'utf8');
  writeFileSync(
    join(folder, 'server.toml'),
    `[tee]\nmode = "simulated"\nsimulated_folder = "data/simulated"\n${text}`,
  );
  server = spawnAssay(['serve', '--config', 'server.toml', '--listen', '127.0.0.1:0'], { cwd: folder });
  const [, url = ''] = await server.said(/"msg":"listening","url":"([^"]+)"/);
  const { stdout } = await shell(`assay models show tiny --url ${url}`);
  const digest = /^([0-9a-f]{64}) {2}/m.exec(made.stdout)?.[1];
  expect(JSON.parse(stdout)).toMatchObject({
    sha256: digest,
    job: { kind: 'gguf/quantize', by: 'evidence', id: /^job-\w+/.exec(made.stdout)?.[0] },
  });
}, 180_000);

test('refuses what no trusted job made, and keeps what one made over a restart', async () => {
  const url = /"msg":"listening","url":"([^"]+)"/.exec(server?.err() ?? '')?.[1] ?? '';
  const add = (name: string, file: string, options = ''): Promise<Ended> =>
    shell(`assay models add ${name} ${file} ${options} --url ${url}`);
  const good = '--job-record made/record.cose --job-evidence made/evidence.json';
  const refused = async (
    options: string,
    why: RegExp,
    file = join(folder, 'made/tiny-q8.gguf'),
  ): Promise<void> => {
    const { code, stderr } = await add('other', file, options);
    expect(stderr).toMatch(why);
    expect(code).toBe(1);
  };
  await refused('', /job_record_required/);
  await refused('--job-record made/record.cose', /no evidence came .*job_record_refused/);
  // The converted file is of another job.
  const [, converted = ''] =
    /^\S+ {2}(job-[0-9a-f]{32})\//m.exec(readFileSync(join(folder, 'converted'), 'utf8')) ?? [];
  expect(await shell(`assay workshop fetch ${converted} --out half`)).toMatchObject({ code: 0 });
  copyFileSync(join(folder, 'half/tiny.gguf'), join(folder, 'made/half.gguf'));
  await refused(good, /made no file with the sha256/, join(folder, 'made/half.gguf'));
  const half = '--job-record half/record.cose --job-evidence half/evidence.json';
  await refused(
    half,
    /kind gguf\/convert are not trusted .*job_record_refused/,
    join(folder, 'made/half.gguf'),
  );
  const bytes = readFileSync(join(folder, 'made/record.cose'));
  bytes[bytes.length - 80] = (bytes.at(-80) ?? 0) ^ 1;
  writeFileSync(join(folder, 'altered.cose'), bytes);
  await refused('--job-record altered.cose --job-evidence made/evidence.json', /job_record_refused/);
  // Another boot of the same workshop signs with another key, which its evidence binds.
  workshop?.child.kill('SIGTERM');
  await workshop?.ended;
  await startWorkshop();
  expect(await shell('assay workshop convert tiny f16 --out later')).toMatchObject({ code: 0 });
  await refused(
    '--job-record made/record.cose --job-evidence later/evidence.json',
    /record_key.*job_record_refused/,
  );
  expect(await add('other', join(folder, 'made/tiny-q8.gguf'), good)).toMatchObject({ code: 0 });

  server?.child.kill('SIGTERM');
  await server?.ended;
  server = spawnAssay(['serve', '--config', 'server.toml', '--listen', '127.0.0.1:0'], { cwd: folder });
  const [, again = ''] = await server.said(/"msg":"listening","url":"([^"]+)"/);
  const { stdout } = await shell(`assay models show other --url ${again}`);
  expect(JSON.parse(stdout)).toMatchObject({ job: { by: 'evidence' } });
}, 300_000);
