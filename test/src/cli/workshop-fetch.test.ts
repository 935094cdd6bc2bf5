// `assay workshop fetch`: what a job made arrives under its names, whole, and nowhere else.

import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { workshopJobCommand } from '../../../src/cli/workshop-jobs.ts';

const JOB = `job-${'0'.repeat(32)}`;
let folder: string;
let server: Server;
beforeEach(() => (folder = mkdtempSync(join(tmpdir(), 'assay-fetch-'))));
afterEach(async () => {
  server.close();
  await once(server, 'close');
  rmSync(folder, { recursive: true });
});

/** A workshop with one job, whose outputs are these. */
async function fetchOf(
  outputs: Readonly<Record<string, string>>,
  digestOf = (text: string): string => createHash('sha256').update(text).digest('hex'),
): Promise<number> {
  server = createServer((request, response) => {
    const below = (request.url ?? '').slice(`/api/jobs/${JOB}`.length);
    const text = outputs[below.replace(/^\/output\//, '')];
    if (below === '')
      response.end(
        JSON.stringify({
          id: JOB,
          outputs: Object.entries(outputs).map(([name, each]) => ({ name, sha256: digestOf(each) })),
        }),
      );
    else if (text !== undefined) response.end(text);
    else response.writeHead(404).end('{}');
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  return workshopJobCommand([
    'fetch',
    JOB,
    '--out',
    join(folder, 'out'),
    '--url',
    `http://127.0.0.1:${port}`,
  ]);
}

test('files of one name in two folders both arrive', async () => {
  expect(await fetchOf({ 'adapter/config.json': 'a', 'merged/config.json': 'm', 'x.gguf': 'x' })).toBe(0);
  const read = (name: string): string => readFileSync(join(folder, 'out', name), 'utf8');
  expect(['adapter/config.json', 'merged/config.json', 'x.gguf'].map(read)).toEqual(['a', 'm', 'x']);
});

test.each(['../x', '/x', 'a/../../x', '.x', 'a//x', 'a\u0000'])('the name %j is refused', async (name) => {
  await expect(fetchOf({ [name]: 'x' })).rejects.toThrow('names an output that no job has');
  expect(readdirSync(folder)).toEqual(['out']);
  expect(readdirSync(join(folder, 'out'))).toEqual([]);
});

test('other bytes than the job made are an error', async () => {
  await expect(fetchOf({ 'x.gguf': 'x' }, () => '0'.repeat(64))).rejects.toThrow('x.gguf is not what');
});
