// Measuring: the bytes hashed are the bytes used, on tmpfs and in place; whatever is not a
// plain, steady file is refused.

import { createHash, randomBytes } from 'node:crypto';
import { execFileSync } from 'node:child_process';
import {
  closeSync,
  existsSync,
  fstatSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  measureFile,
  sameFile,
  stageFile,
  stagingRoom,
  type StagedFile,
} from '../../../src/models/measure.ts';

const SHM = '/dev/shm';
const linux = process.platform === 'linux' && existsSync(SHM);
const signal = new AbortController().signal;
let folder: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'assay-measure-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function file(name: string, bytes: Uint8Array): { path: string; sha256: string } {
  const path = join(folder, name);
  writeFileSync(path, bytes);
  return { path, sha256: createHash('sha256').update(bytes).digest('hex') };
}

function contents(staged: StagedFile): Buffer {
  const buffer = Buffer.alloc(fstatSync(staged.fd).size);
  let at = 0;
  while (at < buffer.length) at += readSync(staged.fd, buffer, at, buffer.length - at, at);
  return buffer;
}

function stage(path: string, sha256: string, residency: 'memory' | 'disk', more = {}): Promise<StagedFile> {
  return stageFile(path, { residency, stagingFolder: SHM, sha256, name: 'm', signal, ...more });
}

function openDescriptors(): number {
  return readdirSync('/proc/self/fd').length;
}

describe('measureFile', () => {
  // Around the chunk size of four mebibytes, where a loop that is off by one shows.
  test.each([0, 1, 4_194_303, 4_194_304, 4_194_305, 14_000_000])(
    '%d bytes hash as sha256sum hashes them',
    async (size) => {
      const { path, sha256 } = file(`size-${size}`, randomBytes(size));
      const fractions: number[] = [];
      const measured = await measureFile(path, {
        signal,
        onProgress: (fraction) => fractions.push(fraction),
      });
      expect(measured).toMatchObject({ sha256, size });
      expect(fractions.at(-1)).toBe(size > 0 ? 1 : undefined);
      expect(fractions).toEqual(fractions.toSorted((a, b) => a - b));
    },
  );

  test('a folder, a missing file and a FIFO are refused, and none of them hangs', async () => {
    const fifo = join(folder, 'fifo');
    execFileSync('mkfifo', [fifo]);
    for (const path of [folder, join(folder, 'missing'), fifo, '/dev/zero']) {
      await expect(measureFile(path, { signal })).rejects.toMatchObject({
        status: 400,
        code: 'file_not_found',
      });
    }
  });

  test('an abort ends it', async () => {
    const { path } = file('abort', randomBytes(12_000_000));
    const abort = new AbortController();
    const measuring = measureFile(path, {
      signal: abort.signal,
      onProgress: () => abort.abort(new Error('left')),
    });
    await expect(measuring).rejects.toThrow('left');
  });

  test('a file that grows or is rewritten under the read is refused', async () => {
    const { path } = file('changing', randomBytes(12_000_000));
    let done = false;
    const growing = measureFile(path, {
      signal,
      onProgress: () => {
        if (!done) writeFileSync(path, randomBytes(9_000_000));
        done = true;
      },
    });
    await expect(growing).rejects.toMatchObject({ code: 'model_file_changed' });
    done = false;
    const rewritten = measureFile(path, {
      signal,
      onProgress: () => {
        const fd = openSync(path, 'r+');
        if (!done) writeSync(fd, Buffer.from('other'), 0, 5, 0);
        closeSync(fd);
        done = true;
      },
    });
    await expect(rewritten).rejects.toMatchObject({ code: 'model_file_changed' });
  });
});

describe.skipIf(!linux)('residency "memory"', () => {
  test('the engine gets a read-only, unnamed copy that later changes of the file do not reach', async () => {
    const bytes = randomBytes(2_500_000);
    const { path, sha256 } = file('staged', bytes);
    const staged = await stage(path, sha256, 'memory');
    writeFileSync(path, 'something else');
    expect(contents(staged).equals(bytes)).toBe(true);
    expect(fstatSync(staged.fd).nlink).toBe(0);
    expect(() => writeSync(staged.fd, 'x')).toThrow(expect.objectContaining({ code: 'EBADF' }));
    expect(staged).toMatchObject({ sha256, size: bytes.length, residency: 'memory' });
    await staged.check();
    await staged.close();
    await staged.close();
  });

  test('a child process reads the same bytes through /proc/self/fd/4', async () => {
    const bytes = randomBytes(1_300_000);
    const { path, sha256 } = file('child', bytes);
    const staged = await stage(path, sha256, 'memory');
    rmSync(path);
    const out = execFileSync('sha256sum', ['/proc/self/fd/4'], {
      stdio: ['ignore', 'pipe', 'inherit', 'ignore', staged.fd],
      encoding: 'utf8',
    });
    expect(out.slice(0, 64)).toBe(sha256);
    await staged.close();
  });

  test('other bytes than the pinned ones are not loaded, and both digests are named', async () => {
    const { path, sha256 } = file('pinned', randomBytes(100));
    const pinned = 'ab'.repeat(32);
    const refused = stage(path, pinned, 'memory');
    await expect(refused).rejects.toMatchObject({ code: 'model_digest_mismatch', shouldRetry: false });
    await expect(refused).rejects.toThrow(new RegExp(`${sha256}.*${pinned}`));
  });

  test('no room is said before anything is copied', async () => {
    const { path, sha256 } = file('room', randomBytes(10));
    await expect(
      stage(path, sha256, 'memory', { stagingFolder: join(folder, 'absent') }),
    ).rejects.toMatchObject({
      status: 503,
      code: 'model_load_failed',
    });
    expect(await stagingRoom(join(folder, 'absent'))).toBeNull();
  });

  test('refused and aborted stagings leave no memory and no descriptor behind', async () => {
    const { path, sha256 } = file('leak', randomBytes(8_000_000));
    await stage(path, sha256, 'memory').then((staged) => staged.close());
    const before = openDescriptors();
    for (let i = 0; i < 5; i++) {
      await expect(stage(path, 'ab'.repeat(32), 'memory')).rejects.toThrow('has sha256');
      const abort = new AbortController();
      await expect(
        stage(path, sha256, 'memory', {
          signal: abort.signal,
          onProgress: () => abort.abort(new Error('left')),
        }),
      ).rejects.toThrow('left');
    }
    expect(openDescriptors()).toBe(before);
  });
});

describe('residency "disk"', () => {
  test('the open file is used, and a change around the load is found', async () => {
    const bytes = randomBytes(1000);
    const { path, sha256 } = file('disk', bytes);
    const staged = await stage(path, sha256, 'disk');
    expect(contents(staged).equals(bytes)).toBe(true);
    await staged.check();
    const fd = openSync(path, 'r+');
    writeSync(fd, Buffer.from([1]), 0, 1, 500);
    closeSync(fd);
    await expect(staged.check()).rejects.toMatchObject({ code: 'model_file_changed' });
    await staged.close();
  });

  test('an unchanged file is not hashed again; one that was touched is', async () => {
    const bytes = randomBytes(3_000_000);
    const { path, sha256 } = file('again', bytes);
    const { identity } = await measureFile(path, { signal });
    let reads = 0;
    const onProgress = (): void => void (reads += 1);
    await (await stage(path, sha256, 'disk', { known: identity, onProgress })).close();
    expect(reads).toBe(0);
    writeFileSync(path, bytes);
    await (await stage(path, sha256, 'disk', { known: identity, onProgress })).close();
    expect(reads).toBeGreaterThan(0);
    writeFileSync(path, randomBytes(3_000_000));
    await expect(stage(path, sha256, 'disk', { known: identity })).rejects.toMatchObject({
      code: 'model_digest_mismatch',
    });
  });

  test('a symbolic link is the file it leads to', async () => {
    const { path, sha256 } = file('target', randomBytes(10));
    const link = join(folder, 'link');
    symlinkSync(path, link);
    const direct = await measureFile(path, { signal });
    const linked = await measureFile(link, { signal });
    expect(linked.sha256).toBe(sha256);
    expect(sameFile(direct.identity, linked.identity)).toBe(true);
  });
});

// A reader that trusts a cached digest would pass everything above but this.
test('the digest of a staged file is taken of its bytes, not of its name', async () => {
  const { path } = file('swap', Buffer.from('first'));
  const second = Buffer.from('other');
  writeFileSync(path, second);
  const sha256 = createHash('sha256').update(second).digest('hex');
  const staged = await stage(path, sha256, linux ? 'memory' : 'disk');
  expect(readFileSync(path).equals(contents(staged))).toBe(true);
  await staged.close();
});
