// Publications to a local hub with faults: each ends with exactly the same bytes there, or with a typed
// error.

import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, readdir, rm, symlink, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { systemClock } from '../../../../src/base/clock.ts';
import { filesOfFolder } from '../../../../src/workshop/hub/files.ts';
import {
  openPublisher,
  type EgressLine,
  type Published,
  type Publisher,
  type PublishRequest,
} from '../../../../src/workshop/hub/publish.ts';
import {
  startUploadHub,
  STEPS,
  TOKEN,
  type Moment,
  type Step,
  type UploadHub,
} from '../../../fixtures/workshop/upload-hub.ts';

let hub: UploadHub;
let folder: string;
let journals: string;
let lines: EgressLine[];
let publishers: Publisher[];
let contents: ReadonlyMap<string, Buffer>;

beforeEach(async () => {
  hub = await startUploadHub();
  const top = await mkdtemp(join(tmpdir(), 'assay-publish-'));
  folder = join(top, 'files');
  journals = join(top, 'journals');
  await mkdir(join(folder, 'sub'), { recursive: true });
  await mkdir(journals);
  contents = new Map([
    ['config.json', Buffer.from('{"a":1}')],
    ['large.gguf', randomBytes(150_001)],
    ['small.bin', randomBytes(5000)],
    ['sub/empty.bin', Buffer.alloc(0)],
  ]);
  for (const [path, bytes] of contents) await writeFile(join(folder, path), bytes);
  lines = [];
  publishers = [];
});

afterEach(async () => {
  for (const each of publishers) await each.close();
  await hub.close();
  await rm(join(folder, '..'), { recursive: true });
});

/** Other bytes: a hub keeps objects, and would not ask for the same again. */
async function renewContents(): Promise<void> {
  contents = new Map(
    [...contents].map(([path, bytes]) => [path, bytes.length > 1000 ? randomBytes(bytes.length) : bytes]),
  );
  for (const [path, bytes] of contents) await writeFile(join(folder, path), bytes);
}

async function publish(
  changes: Partial<PublishRequest> = {},
  options: { readonly enabled?: boolean; readonly allowPrivate?: boolean; readonly endpoint?: string } = {},
): Promise<Published> {
  const publisher = openPublisher({
    enabled: true,
    endpoint: hub.endpoint,
    allowPrivate: true,
    folder: journals,
    clock: systemClock,
    random: () => 0,
    firstPauseMs: 1,
    maxFailures: 3,
    egress: (line) => Promise.resolve(void lines.push(line)),
    ...options,
  });
  publishers.push(publisher);
  return publisher.publish({
    kind: 'model',
    repo: 'owner/model',
    files: await filesOfFolder(folder),
    card: { title: 'A model', license: 'Apache-2.0' },
    token: TOKEN,
    signal: new AbortController().signal,
    ...changes,
  });
}

function expectAllThere(repo = 'owner/model'): void {
  expect(hub.pathsOf(repo)).toEqual([...contents.keys(), 'README.md'].toSorted());
  for (const [path, bytes] of contents) expect(hub.bytesOf(repo, path)?.equals(bytes), path).toBe(true);
}

/** One fault, at the nth request of a step. */
function once1(
  step: Step,
  act: (moment: Moment) => void,
  nth = 1,
  when: 'before' | 'after' = 'before',
): void {
  hub.fault = (moment) => {
    if (moment.step !== step || moment.nth !== nth || moment.when !== when) return false;
    act(moment);
    return true;
  };
}

function answer(status: number, headers: Record<string, string> = {}): (moment: Moment) => void {
  return ({ request, response }) => {
    request.resume();
    response.writeHead(status, headers).end();
  };
}

describe('a publication', () => {
  test.each(['model', 'dataset'] as const)('of a %s: the bytes, a card, an egress line', async (kind) => {
    const progress: number[] = [];
    const published = await publish({ kind, onProgress: (done) => void progress.push(done) });
    expectAllThere();
    expect(published.files.map(({ path }) => path).toSorted()).toEqual(
      [...contents.keys(), 'README.md'].toSorted(),
    );
    expect(published.url).toBe(`${hub.endpoint}/${kind === 'dataset' ? 'datasets/' : ''}owner/model`);
    const card = hub.bytesOf('owner/model', 'README.md')?.toString() ?? '';
    expect(card).toContain('license: "Apache-2.0"');
    for (const { path, sha256 } of published.files) if (path !== 'README.md') expect(card).toContain(sha256);
    expect(lines.map(({ phase }) => phase)).toEqual(['begin', 'done']);
    expect(lines[0]).toMatchObject({ repo: 'owner/model', kind, host: new URL(hub.endpoint).host });
    expect(lines[0]?.files.map(({ sha256 }) => sha256).toSorted()).toEqual(
      published.files.map(({ sha256 }) => sha256).toSorted(),
    );
    expect(JSON.stringify(lines)).not.toContain('config.json');
    expect(progress.at(-1)).toBe(155_001);
    expect(hub.partsTaken).toEqual([1, 2, 3, 4]);
    // No journal stays.
    expect(await readdir(journals)).toEqual([]);
  });

  test('the token goes to the hub alone', async () => {
    await publish();
    const storage = hub.authorizations.filter(({ host }) => host === 'storage');
    expect(storage.length).toBeGreaterThan(0);
    expect(storage.every(({ value }) => value === undefined)).toBe(true);
  });

  test("a folder's own card stays, and one of the hub is not replaced", async () => {
    await publish();
    hub.commitOther('owner/model', 'README.md', Buffer.from('theirs'));
    await publish();
    expect(hub.bytesOf('owner/model', 'README.md')?.toString()).toBe('theirs');
    await writeFile(join(folder, 'README.md'), 'mine');
    await publish();
    expect(hub.bytesOf('owner/model', 'README.md')?.toString()).toBe('mine');
  });

  test('again: nothing is sent, and no commit made', async () => {
    const first = await publish();
    const before = { ...hub.counts };
    const second = await publish();
    expect(second.commit).toBe(first.commit);
    expect(hub.counts.commit).toBe(before.commit);
    expect(hub.counts.part).toBe(before.part);
  });

  test('off: nothing is sent', async () => {
    await expect(publish({}, { enabled: false })).rejects.toMatchObject({ code: 'publish_disabled' });
    expect(hub.authorizations).toEqual([]);
    expect(lines).toEqual([]);
  });

  test('an audit log that cannot be written: nothing is sent', async () => {
    const publisher = openPublisher({
      enabled: true,
      endpoint: hub.endpoint,
      allowPrivate: true,
      folder: journals,
      clock: systemClock,
      egress: () => Promise.reject(new Error('the audit log is full')),
    });
    publishers.push(publisher);
    const files = await filesOfFolder(folder);
    const rest = { card: { title: 'x' }, token: TOKEN, signal: new AbortController().signal };
    await expect(publisher.publish({ kind: 'model', repo: 'owner/model', files, ...rest })).rejects.toThrow(
      'the audit log is full',
    );
    expect(hub.authorizations).toEqual([]);
  });
});

describe('faults that pass', () => {
  const broken = ({ request, response }: Moment): void => {
    request.socket.destroy();
    response.destroy();
  };
  test.each(
    STEPS.flatMap((step) => [
      [step, 'reset', 'before', broken] as const,
      [step, 'reset', 'after', broken] as const,
      [step, '500', 'before', answer(500)] as const,
      [step, '429', 'before', answer(429, { 'retry-after': '0' })] as const,
    ]),
  )('%s: %s %s', async (step, _, when, act) => {
    once1(step, act, 1, when);
    await publish();
    expectAllThere();
    expect(lines.at(-1)?.phase).toBe('done');
  });

  test('a reset in the middle of a part: only that part is sent again', async () => {
    once1(
      'part',
      ({ request }) => {
        request.once('data', () => request.socket.destroy());
      },
      2,
    );
    await publish();
    expectAllThere();
    expect(hub.partsTaken).toEqual([1, 2, 3, 4]);
  });

  test('addresses that have expired are asked for anew', async () => {
    hub.fault = ({ step, nth, when }) => {
      if (step === 'part' && nth === 3 && when === 'before') hub.expireAddresses();
      return false;
    };
    await publish();
    expectAllThere();
  });
});

describe('faults that stay', () => {
  const always =
    (step: Step, act: (moment: Moment) => void) =>
    (moment: Moment): boolean => {
      if (moment.step !== step || moment.when !== 'before') return false;
      act(moment);
      return true;
    };
  test.each([
    ['create', 403, 'hub_forbidden', 1],
    ['create', 401, 'hub_unauthorized', 1],
    ['revision', 404, 'hub_not_found', 1],
    ['preupload', 400, 'hub_error', 1],
    ['batch', 403, 'hub_forbidden', 1],
    ['put', 400, 'hub_error', 1],
    ['part', 403, 'hub_forbidden', 4],
    ['verify', 500, 'hub_unavailable', 3],
    ['verify', 422, 'hub_error', 1],
    ['commit', 412, 'hub_conflict', 1],
    ['commit', 403, 'hub_forbidden', 1],
    ['commit', 503, 'hub_unavailable', 3],
    ['paths-info', 500, 'hub_unavailable', 3],
  ] as const)('%s answers %i: %s', async (step, status, code, requests) => {
    hub.fault = always(step, answer(status));
    await expect(publish()).rejects.toMatchObject({ code });
    expect(hub.counts[step]).toBe(requests);
    expect(lines.at(-1)).toMatchObject({ phase: 'failed', error: code });
  });

  test.each(['create', 'preupload', 'part', 'put', 'complete', 'commit'] as const)(
    '%s redirects to another host: refused, and nothing is sent there',
    async (step) => {
      hub.fault = always(step, answer(307, { location: 'http://127.0.0.2:9/elsewhere' }));
      await expect(publish()).rejects.toMatchObject({ code: 'address_refused' });
      expect(hub.counts[step]).toBe(1);
    },
  );

  test('a repository with another name now', async () => {
    hub.fault = always('preupload', answer(307, { location: '/api/models/other/name/preupload/main' }));
    await expect(publish()).rejects.toMatchObject({ code: 'hub_error' });
  });

  const lies: readonly (readonly [string, (object: Record<string, unknown>) => void])[] = [
    ['another size', (object) => (object['size'] = 7)],
    ['another object', (object) => (object['oid'] = '0'.repeat(64))],
    ['no action for an upload address', (object) => (object['actions'] = { upload: { href: 7 } })],
    [
      'parts that do not make the file',
      (object) =>
        (object['actions'] = {
          upload: {
            href: 'http://127.0.0.1:9/',
            header: { chunk_size: '10', '00001': 'http://127.0.0.1:9/' },
          },
        }),
    ],
    ['an address that is none', (object) => (object['actions'] = { upload: { href: 'no address' } })],
  ];
  test.each(lies)('a batch that lies: %s', async (_, lie) => {
    hub.tamperBatch = lie;
    await expect(publish()).rejects.toMatchObject({ code: 'hub_error' });
  });

  test('an object that the hub says it has, and does not: the commit fails', async () => {
    hub.tamperBatch = (object) => delete object['actions'];
    await expect(publish()).rejects.toMatchObject({ code: 'hub_error' });
    expect(hub.pathsOf('owner/model')).toEqual([]);
  });

  test('a hub that lists other bytes than were sent', async () => {
    hub.fault = ({ step, when, request, response }) => {
      if (step !== 'paths-info' || when !== 'before') return false;
      request.resume();
      response.end(JSON.stringify([{ type: 'file', path: 'config.json', oid: '1'.repeat(40), size: 7 }]));
      return true;
    };
    await expect(publish()).rejects.toThrow('lists other bytes for 5 files');
  });

  test('somebody else commits meanwhile', async () => {
    hub.fault = ({ step, when }) => {
      if (step === 'commit' && when === 'before')
        hub.commitOther('owner/model', 'other.txt', Buffer.from('x'));
      return false;
    };
    await expect(publish()).rejects.toMatchObject({ code: 'hub_conflict' });
    expect(hub.pathsOf('owner/model')).toEqual(['other.txt']);
    hub.fault = () => false;
    await publish();
    expect(hub.bytesOf('owner/model', 'large.gguf')?.equals(contents.get('large.gguf')!)).toBe(true);
  });

  test('files that the repository ignores', async () => {
    hub.ignored = new Set(['small.bin']);
    await expect(publish()).rejects.toThrow('leaves out 1 of the files');
  });

  test('a file that changes while it is sent', async () => {
    hub.fault = ({ step, nth, when, response }) => {
      if (step !== 'part' || nth !== 2 || when !== 'after') return false;
      void utimes(join(folder, 'large.gguf'), 1, 1).then(() =>
        response.writeHead(200, { etag: '"x"' }).end(),
      );
      return true;
    };
    await expect(publish()).rejects.toMatchObject({ code: 'model_file_changed' });
    expect(hub.pathsOf('owner/model')).toEqual([]);
  });

  test('no error repeats the token or a signed address', async () => {
    for (const step of STEPS) {
      await renewContents();
      hub.fault = always(step, answer(400));
      const error = await publish({ repo: `owner/${step}` }).catch((reason: unknown) => reason);
      const seen = JSON.stringify(error, Object.getOwnPropertyNames(error)) + JSON.stringify(lines);
      expect(error).toBeInstanceOf(Error);
      expect(seen).not.toContain(TOKEN);
      expect(seen).not.toContain('sekret');
    }
  });

  test.each([
    [{ repo: 'owner' }, 'invalid_model_name'],
    [{ repo: 'owner/../x' }, 'invalid_model_name'],
    [{ revision: '../main' }, 'invalid_model_name'],
    [{ token: 'two words' }, 'invalid_value'],
    [{ files: [] }, 'file_not_found'],
    [{ files: [{ path: '../up', file: '/etc/hostname' }] }, 'path_not_allowed'],
    [{ files: [{ path: '.git/config', file: '/etc/hostname' }] }, 'path_not_allowed'],
    [{ files: [{ path: 'a', file: '/dev/zero' }] }, 'path_not_allowed'],
  ] as const)('refused before anything is sent: %j', async (changes, code) => {
    await expect(publish(changes)).rejects.toMatchObject({ code });
    expect(hub.authorizations).toEqual([]);
  });

  test('a link in the folder', async () => {
    await symlink('/etc/passwd', join(folder, 'passwd'));
    await expect(publish()).rejects.toMatchObject({ code: 'path_not_allowed' });
  });

  test('a hub on a private address, unless told', async () => {
    const publishing = publish({}, { allowPrivate: false, endpoint: 'https://127.0.0.1:9' });
    await expect(publishing).rejects.toMatchObject({ code: 'address_refused' });
  });
});
