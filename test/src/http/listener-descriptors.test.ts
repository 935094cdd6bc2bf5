// A process that may have few open files: connections are fewer, and what the server
// itself opens always has room.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { connect as secure } from 'node:tls';
import { afterEach, describe, expect, test } from 'vitest';
import { ensureDemoModels } from '../../../scripts/demo-model/main.ts';
import { readConfig } from '../../../src/config/read.ts';
import { maxConnections, openFileLimit, serverConfig } from '../../../src/start/http.ts';

function config(text: string): ReturnType<typeof readConfig> {
  return readConfig({ file: { path: 'x.toml', text }, cwd: '/' });
}

describe('connections', () => {
  test.each<[number, string, number]>([
    [1_048_576, '', 20_000],
    [Number.POSITIVE_INFINITY, '', 20_000],
    [1024, '', 1024 - 128 - 4 * 16],
    [1024, '[models]\nmax_loaded = 10', 1024 - 128 - 10 * 16],
    [1024, '[limits]\nmax_connections = 100', 100],
    [64, '', 1],
  ])('with %s open files and %j', (files, text, expected) => {
    expect(maxConnections(config(text), files)).toBe(expected);
    expect(serverConfig(config(text), files).limits.maxConnections).toBe(expected);
  });

  test('open files are read from the kernel', () => {
    const text = (soft: string): string =>
      `Limit   Soft Limit   Hard Limit   Units\nMax open files            ${soft}                 4096                 files\n`;
    expect(openFileLimit(() => text('1024'))).toBe(1024);
    expect(openFileLimit(() => text('unlimited'))).toBe(Number.POSITIVE_INFINITY);
    expect(
      openFileLimit(() => {
        throw new Error('no /proc');
      }),
    ).toBe(Number.POSITIVE_INFINITY);
  });
});

const SOCKETS: Socket[] = [];
let child: ChildProcess | undefined;
let folder: string | undefined;
afterEach(async () => {
  for (const socket of SOCKETS.splice(0)) socket.destroy();
  if (child?.exitCode === null) {
    child.kill('SIGKILL');
    await once(child, 'exit');
  }
  if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
});

test.skipIf(process.platform !== 'linux')(
  'more idle connections than files: the server says so, loads a model, audits and goes on',
  async () => {
    const demo = await ensureDemoModels(['demo-context']);
    folder = mkdtempSync(join(tmpdir(), 'assay-files-'));
    writeFileSync(join(folder, 'assay.toml'), '[audit]\nenabled = true\n');
    const top = fileURLToPath(new URL('../../../', import.meta.url));
    const args = [
      'serve',
      '--listen',
      '127.0.0.1:0',
      '--data',
      folder,
      '--config',
      join(folder, 'assay.toml'),
      '--model',
      `m=${demo['demo-context'].path}`,
    ];
    child = spawn(
      'sh',
      ['-c', 'ulimit -n 400 && exec "$0" "$@"', process.execPath, join(top, 'dist/src/cli/main.js'), ...args],
      {
        stdio: ['ignore', 'ignore', 'pipe'],
        env: { PATH: process.env['PATH'], HOME: folder, ASSAY_TEE_MODE: 'none' },
      },
    );
    let err = '';
    child.stderr?.setEncoding('utf8').on('data', (part: string) => (err += part));
    const ended = once(child, 'exit');
    while (!err.includes('"listening"'))
      await Promise.race([once(child.stderr!, 'data'), ended.then(() => Promise.reject(new Error(err)))]);
    expect(err).toMatch(
      /"level":"?warn.*fewer connections than limits\.max_connections.*"openFiles":400,"connections":208/,
    );
    const port = Number(/"url":"https:\/\/127\.0\.0\.1:(\d+)"/.exec(err)?.[1]);
    const kept = secure({ host: '127.0.0.1', port, rejectUnauthorized: false });
    SOCKETS.push(kept);
    await once(kept, 'secureConnect');
    // Each is either kept open or dropped at once; the last ones are dropped.
    for (let i = 0; i < 500; i++) {
      const idle = connect(port, '127.0.0.1');
      SOCKETS.push(idle);
      idle.on('error', () => undefined);
      await once(idle, 'connect');
    }
    const last = SOCKETS.at(-1)!;
    if (!last.closed) await new Promise<void>((resolve) => last.once('close', () => resolve()));
    const body = JSON.stringify({ model: 'm', prompt: 'x', max_tokens: 1 });
    kept.write(
      `POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`,
    );
    const [answer] = (await once(kept, 'data')) as [Buffer];
    expect(answer.toString()).toMatch(/^HTTP\/1\.1 200 /);
    child.kill('SIGTERM');
    for (const socket of SOCKETS.splice(0)) socket.destroy();
    expect(await ended).toEqual([0, null]);
    expect(readFileSync(join(folder, 'audit', 'audit.jsonl'), 'utf8')).toContain('"/v1/completions"');
  },
);
