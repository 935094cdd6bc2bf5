// Folders and disks of servers, as an operator meets them: a folder has one server, whatever it is used for;
// a message names what was configured; a full disk keeps no server down. Real processes, from dist/.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { ensureDemoModels } from '../../scripts/demo-model/main.ts';
import { startRealServer, type RealServer } from '../fixtures/e2e/real-server.ts';
import { startHub, type Hub } from '../fixtures/models/hub.ts';
import { canMount, mountSmallDisk, type SmallDisk } from '../fixtures/small-disk.ts';
import { verifyAudit } from '../../src/audit/write.ts';

const cli = fileURLToPath(new URL('../../dist/src/cli/main.js', import.meta.url));
let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'assay-folders-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** A start that is expected to end by itself. */
async function refused(
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<{ readonly code: number; readonly err: string }> {
  const child = spawn(process.execPath, [cli, 'serve', '--listen', '127.0.0.1:0', ...args], {
    stdio: ['ignore', 'ignore', 'pipe'],
    env: { ...process.env, ...env },
  });
  let err = '';
  child.stderr.setEncoding('utf8').on('data', (part: string) => (err += part));
  const [code] = (await once(child, 'close')) as [number];
  return { code, err: err.split('\n').findLast((line) => line.startsWith('assay: ')) ?? err };
}

function auditIn(audit: string): Readonly<Record<string, string>> {
  return { ASSAY_AUDIT_ENABLED: 'true', ASSAY_AUDIT_FOLDER: audit };
}

describe('two servers', { timeout: 400_000 }, () => {
  let first: RealServer;
  const audit = (): string => join(folder, 'audit');
  beforeEach(async () => {
    first = await startRealServer({ dataFolder: join(folder, 'first'), env: auditIn(audit()) });
  });
  afterEach(async () => void (await first.stop()));

  test('with one audit folder: the second does not start, says whose it is, and harms nothing', async () => {
    const second = await refused(['--tee', 'none', '--data', join(folder, 'second')], auditIn(audit()));
    expect(second).toEqual({
      code: 2,
      err: `assay: the audit folder ${audit()} is in use by process ${first.process.pid}`,
    });
    expect(await first.stop()).toBe(0);
    expect(await verifyAudit(audit())).toMatchObject({ ok: true });
    // Its folder is free again.
    first = await startRealServer({ dataFolder: join(folder, 'second'), env: auditIn(audit()) });
    expect(await first.stop()).toBe(0);
    expect(await verifyAudit(audit())).toMatchObject({ ok: true, runs: [{}, {}] });
  });

  test('after kill -9 the next server takes the audit folder over', async () => {
    const ended = once(first.process, 'exit');
    first.process.kill('SIGKILL');
    await ended;
    first = await startRealServer({ dataFolder: join(folder, 'second'), env: auditIn(audit()) });
    expect(await first.stop()).toBe(0);
    expect(await verifyAudit(audit())).toMatchObject({ ok: true, runs: [{}, {}] });
  });
});

describe('what cannot be used is named as it was configured', () => {
  test.each([
    [
      'the audit folder',
      (path: string) => auditIn(path),
      'data',
      'environment variable ASSAY_AUDIT_FOLDER: audit.folder',
    ],
    ['the data folder', () => ({}), 'file', '--data: store.data_dir'],
  ])('%s is a file', async (_what, env, data, named) => {
    const path = join(folder, 'file');
    writeFileSync(path, '');
    const { code, err } = await refused(['--tee', 'none', '--data', join(folder, data)], env(path));
    expect([code, err]).toEqual([2, `assay: ${named} "${path}": is not a folder (ENOTDIR)`]);
  });

  test.each([
    ['is missing', undefined, /no such file or directory \(ENOENT\) \(file_not_found\)$/],
    ['is a folder without one', 'folder', /the folder has no model in a \.gguf file \(file_not_found\)$/],
    ['is no model', 'text', /\(invalid_gguf\)$/],
  ] as const)('a model path that %s', async (_, kind, why) => {
    const path = join(folder, 'some', 'model.gguf');
    mkdirSync(kind === 'folder' ? path : join(folder, 'some'), { recursive: true });
    if (kind === 'text') writeFileSync(path, 'no model');
    const args = ['--tee', 'none', '--data', join(folder, 'data'), '--model', `my-model=${path}`];
    const { code, err } = await refused(args);
    expect(code).not.toBe(0);
    expect(err).toContain(`assay: --model my-model: api.models.my-model.path "${path}": `);
    expect(err).toMatch(why);
  });
});

describe.skipIf(!canMount())('a server on a disk of 24 MiB', { timeout: 500_000 }, () => {
  let disk: SmallDisk;
  let hub: Hub;
  let server: RealServer | undefined;
  beforeEach(async () => {
    disk = mountSmallDisk(24)!;
    const { 'demo-chat': chat } = await ensureDemoModels(['demo-chat']);
    const bytes = readFileSync(chat.path);
    // Four models of one size and different bytes: the name in the header differs.
    hub = await startHub(
      ['0', '1', '2', '3'].map((digit) => ({
        name: `m${digit}-Q8_0.gguf`,
        bytes: withOtherName(bytes, digit),
      })),
    );
  });
  afterEach(async () => {
    await server?.stop();
    server = undefined;
    await hub.close();
    disk.remove();
  });

  function withOtherName(bytes: Buffer, digit: string): Buffer {
    const copy = Buffer.from(bytes);
    // The last byte of a tensor's data: any value is a weight.
    copy[copy.length - 1] = digit.charCodeAt(0);
    return copy;
  }

  function start(): Promise<RealServer> {
    const env = { HF_ENDPOINT: hub.endpoint, ASSAY_MODELS_HUB_PRIVATE: 'true' };
    const dataFolder = join(disk.folder, 'data');
    return startRealServer({ dataFolder, env: { ...env, ...auditIn(join(dataFolder, 'audit')) } });
  }

  test('four pulls at once: two succeed, and the server and its audit log go on, also after a restart', async () => {
    server = await start();
    const pull = async (digit: number): Promise<string> => {
      const args = ['models', 'pull', `o/r/m${digit}-Q8_0.gguf`, '--url', server!.url];
      const child = spawn(process.execPath, [cli, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
      let out = '';
      for (const stream of [child.stdout, child.stderr])
        stream.setEncoding('utf8').on('data', (part: string) => (out += part));
      await once(child, 'close');
      return /storage_full|pulled/.exec(out)?.[0] ?? out;
    };
    const ends = await Promise.all([0, 1, 2, 3].map(pull));
    expect(ends.toSorted()).toEqual(['pulled', 'pulled', 'storage_full', 'storage_full']);
    expect(await server.stop()).toBe(0);
    expect(await verifyAudit(join(disk.folder, 'data', 'audit'))).toMatchObject({ ok: true });
    server = await start();
    expect(await server.stop()).toBe(0);
  });

  function fill(name: string): void {
    const { bavail, bsize } = statfsSync(disk.folder);
    // Some pages more than there are: what fits is written.
    expect(() => writeFileSync(join(disk.folder, name), Buffer.alloc((bavail + 8) * bsize))).toThrow(
      'ENOSPC',
    );
    expect(statfsSync(disk.folder).bavail).toBe(0);
  }

  test('filled to the last byte: it starts, and serves; one that must keep an audit log says what is full', async () => {
    const data = join(disk.folder, 'data');
    server = await startRealServer({ dataFolder: data });
    expect(await server.stop()).toBe(0);
    fill('filler');
    server = await startRealServer({ dataFolder: data });
    expect(await server.stop()).toBe(0);
    fill('what its own files had taken');
    const audit = join(data, 'audit');
    expect(await refused(['--demo', '--data', data], auditIn(audit))).toEqual({
      code: 1,
      err: `assay: no space left for ${audit} (storage_full)`,
    });
  });
});
