// The root part's socket: what tsm.ts needs goes through, everything else is refused, and
// errors keep the kernel's code.

import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { createConnection, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { attestdFs, serveAttestd } from '../../../src/attestd/serve.ts';
import { createTsm, probeTsm, type TsmFs } from '../../../src/attestd/tsm.ts';
import { sendBytes } from '../../fixtures/http/raw.ts';

const FOLDER = '/kernel/tsm/report';
const REPORT = `${FOLDER}/assay-${'a'.repeat(16)}`;

function fault(code: string): Error {
  return Object.assign(new Error(code), { code });
}

/**
 * configfs-tsm in memory, as far as one request goes: stores at close, generation
 * advances, outputs echo the input.
 */
function memoryTsm(log: string[]): TsmFs {
  const reports = new Map<string, { generation: number; inblob: Uint8Array | undefined }>();
  const find = (path: string) => {
    const at = path.lastIndexOf('/');
    const report = reports.get(path.slice(0, at));
    if (report === undefined) throw fault('ENOENT');
    return [report, path.slice(at + 1)] as const;
  };
  return {
    async mkdir(path) {
      log.push(`mkdir ${path}`);
      if (reports.has(path)) throw fault('EEXIST');
      reports.set(path, { generation: 0, inblob: undefined });
    },
    async rmdir(path) {
      log.push(`rmdir ${path}`);
      if (!reports.delete(path)) throw fault('ENOENT');
    },
    async read(path) {
      log.push(`read ${path}`);
      const [report, attribute] = find(path);
      if (attribute === 'provider') return Buffer.from('sev_guest\n');
      if (attribute === 'generation') return Buffer.from(`${report.generation}\n`);
      if (report.inblob === undefined) throw fault('EINVAL');
      if (attribute === 'auxblob') return new Uint8Array(0);
      const blob = new Uint8Array(1184);
      blob.set(report.inblob, 0x50);
      return blob;
    },
    async write(path, bytes) {
      log.push(`write ${path}`);
      const [report, attribute] = find(path);
      report.generation += 1;
      if (attribute === 'inblob') report.inblob = bytes;
    },
  };
}

let folder = '';
let socket = '';
let server: Server | undefined;
const LOG: string[] = [];
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'assay-attestd-'));
  socket = join(folder, 'attestd.sock');
  server = await serveAttestd({ socket, gid: process.getgid!(), folder: FOLDER, fs: memoryTsm(LOG) });
});
afterAll(() => {
  server?.close();
  rmSync(folder, { recursive: true, force: true });
});

async function codeOf(promise: Promise<unknown>): Promise<string> {
  return promise.then(
    () => 'no error',
    (error: NodeJS.ErrnoException) => error.code ?? 'no code',
  );
}

/** One raw request; the raw answer, or `closed`. */
async function raw(text: string): Promise<string> {
  return (await sendBytes(createConnection(socket), text, { end: true })) || 'closed';
}

describe('attestd', () => {
  test('a report is collected through the socket as it is from the kernel', async () => {
    const fs = attestdFs(socket, FOLDER);
    expect(await probeTsm(fs, FOLDER)).toBe('sev_guest');
    const tsm = createTsm({ fs, folder: FOLDER, provider: 'sev_guest', maxQueue: 4 });
    const reportData = new Uint8Array(64).fill(7);
    const { outblob } = await tsm.report(reportData, AbortSignal.timeout(60_000));
    expect(outblob.subarray(0x50, 0x90)).toEqual(reportData);
    expect(LOG.filter((line) => line.startsWith('mkdir')).length).toBe(
      LOG.filter((line) => line.startsWith('rmdir')).length,
    );
  });

  test('only the owner and one group may connect', () => {
    expect(statSync(socket).mode & 0o777).toBe(0o660);
  });

  test('errors keep the code of the kernel', async () => {
    const fs = attestdFs(socket, FOLDER);
    await fs.mkdir(REPORT);
    expect(await codeOf(fs.mkdir(REPORT))).toBe('EEXIST');
    expect(await codeOf(fs.read(`${REPORT}/outblob`, 32768))).toBe('EINVAL');
    await fs.rmdir(REPORT);
    expect(await codeOf(fs.read(`${REPORT}/provider`, 100))).toBe('ENOENT');
    expect(await codeOf(attestdFs(join(folder, 'nothing'), FOLDER).mkdir(REPORT))).toBe('ENOENT');
  });

  test.each([
    ['another folder', 'mkdir', '/etc/assay'],
    ['a climbing path', 'mkdir', `${FOLDER}/../x`],
    ['a name of our shape with more behind', 'mkdir', `${REPORT}x`],
    ['a path below an attribute', 'read', `${REPORT}/outblob/x`],
    ['an attribute that is not for reading', 'read', `${REPORT}/inblob`],
    ['a service attribute', 'write', `${REPORT}/service_provider`],
    ['the generation', 'write', `${REPORT}/generation`],
  ])('refuses %s', async (_name, op, path) => {
    const before = LOG.length;
    const fs = attestdFs(socket, FOLDER);
    const calls: Readonly<Record<string, () => Promise<unknown>>> = {
      mkdir: () => fs.mkdir(path),
      read: () => fs.read(path, 100),
      write: () => fs.write(path, new Uint8Array(64)),
    };
    expect(await codeOf(calls[op]!())).toBe('EPERM');
    expect(LOG.length).toBe(before);
  });

  test('refuses report data of another length and privilege levels that are none', async () => {
    const fs = attestdFs(socket, FOLDER);
    expect(await codeOf(fs.write(`${REPORT}/inblob`, new Uint8Array(63)))).toBe('EPERM');
    expect(await codeOf(fs.write(`${REPORT}/privlevel`, Buffer.from('4\n')))).toBe('EPERM');
  });

  test('nonsense is answered or dropped, and the next request works', async () => {
    const before = LOG.length;
    await fc.assert(
      fc.asyncProperty(
        fc.oneof(
          fc.string({ maxLength: 200 }),
          fc.json().map((text) => `${text.slice(0, 500)}\n`),
        ),
        async (text) => {
          expect(['closed', '{"code":"EINVAL"}\n', '{"code":"EPERM"}\n']).toContain(await raw(text));
        },
      ),
      { numRuns: 40 },
    );
    expect(await raw('x'.repeat(5000))).toBe('closed');
    expect(LOG.length).toBe(before);
    expect(await codeOf(attestdFs(socket, FOLDER).mkdir(REPORT))).toBe('no error');
  });
});
