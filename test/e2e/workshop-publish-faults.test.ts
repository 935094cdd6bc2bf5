// The built `assay workshop` publishes to a local hub with faults, through its routes: what arrives is what
// was given, the audit log has a line before the first byte leaves, stops and leaving clients cost no byte,
// and neither the token nor a byte of the files is in anything the workshop writes.

import { randomBytes } from 'node:crypto';
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import type { ClientRequest } from 'node:http';
import { request } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { type Spawned, spawnAssay } from '../fixtures/e2e/assay.ts';
import {
  type Moment,
  startUploadHub,
  type Step,
  TOKEN,
  type UploadHub,
} from '../fixtures/workshop/upload-hub.ts';

const [MINE, YOURS] = ['key-of-mine', 'key-of-yours'];
const CANARY = 'canary-of-data-7f21';
const PUBLISH = '/api/finetune/publish';
let folder: string;
let hub: UploadHub;
let workshop: Spawned;
let said = '';
let port: number;

interface Answer {
  readonly status: number;
  readonly json: Readonly<Record<string, unknown>>;
}

interface Ask {
  readonly method?: string;
  readonly body?: string;
  readonly type?: string;
  readonly key?: string;
  readonly headers?: Readonly<Record<string, string>>;
}

function sending(path: string, ask: Ask): { readonly sent: ClientRequest; readonly answer: Promise<Answer> } {
  const { method = 'POST', body, type = 'application/json', key = MINE, headers: more = {} } = ask;
  const content = body === undefined ? {} : { 'content-type': type };
  const headers = { authorization: `Bearer ${key}`, ...content, ...more };
  const options = { host: '127.0.0.1', port, method, path, headers, rejectUnauthorized: false, agent: false };
  const sent = request(options);
  const answer = new Promise<Answer>((resolve, reject) => {
    sent.on('error', reject);
    sent.on('response', (response) => {
      const pieces: Buffer[] = [];
      response.on('data', (piece: Buffer) => pieces.push(piece));
      response.on('error', reject);
      response.on('end', () => {
        const json = JSON.parse(Buffer.concat(pieces).toString()) as Answer['json'];
        resolve({ status: response.statusCode ?? 0, json });
      });
    });
  });
  sent.end(body);
  return { sent, answer };
}

function post(path: string, body: object, ask: Ask = {}): Promise<Answer> {
  return sending(PUBLISH + path, { body: JSON.stringify({ token: TOKEN, ...body }), ...ask }).answer;
}

function get(path: string, key = MINE): Promise<Answer> {
  return sending(PUBLISH + path, { method: 'GET', key }).answer;
}

async function start(config = 'workshop.toml'): Promise<void> {
  workshop = spawnAssay(['workshop', '--config', join(folder, config), '--listen', '127.0.0.1:0'], {
    cwd: folder,
  });
  const [, given] = await workshop.said(/"msg":"listening","url":"https:\/\/127\.0\.0\.1:(\d+)"/);
  port = Number(given);
}

async function stop(signal: 'SIGTERM' | 'SIGKILL'): Promise<number | null> {
  workshop.child.kill(signal);
  const [code] = await workshop.ended;
  said += workshop.out() + workshop.err();
  return code;
}

/** A model of one file that goes in parts, with bytes no hub has. */
function writeModel(name: string): Buffer {
  const path = join(folder, 'models', name);
  mkdirSync(path, { recursive: true });
  const bytes = Buffer.concat([Buffer.from(CANARY), randomBytes(150_000)]);
  writeFileSync(join(path, 'model.safetensors'), bytes);
  writeFileSync(join(path, 'config.json'), JSON.stringify({ note: CANARY }));
  writeFileSync(join(path, '.env'), CANARY);
  return bytes;
}

interface Line {
  readonly event: string;
  readonly phase: string;
  readonly repository: string;
  readonly sha256: readonly string[];
  readonly sizes: readonly number[];
  readonly commit: string | null;
  readonly error: string | null;
}

function egress(repo: string): readonly Line[] {
  const audit = join(folder, 'data', 'workshop-audit');
  return readdirSync(audit)
    .filter((name) => name.endsWith('.jsonl') || name.endsWith('.log'))
    .toSorted()
    .flatMap((name) => readFileSync(join(audit, name), 'utf8').split('\n'))
    .filter((line) => line.includes('"egress"'))
    .map((line) => JSON.parse(line) as Line)
    .filter((line) => line.event === 'egress' && line.repository.endsWith(`:${repo}`));
}

async function auditVerified(): Promise<void> {
  const verify = spawnAssay(['audit', 'verify', join(folder, 'data', 'workshop-audit')], { cwd: folder });
  expect((await verify.ended)[0], verify.out() + verify.err()).toBe(0);
}

/** Does not answer the nth request of a step; resolves once it is there. */
function holding(step: Step, nth: number): Promise<Moment> {
  return new Promise((resolve) => {
    const from = hub.counts[step];
    hub.fault = (moment) => {
      if (moment.step !== step || moment.nth !== from + nth || moment.when !== 'before') return false;
      moment.request.resume();
      resolve(moment);
      return true;
    };
  });
}

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'assay-e2e-publish-'));
  hub = await startUploadHub();
  mkdirSync(join(folder, 'models'));
  const config = (publish: boolean): string =>
    `[api]\napi_keys = ["${MINE}", "${YOURS}"]\n[store]\ndata_dir = "${folder}/data"\n[tee]\nmode = "simulated"\n[files]\nfolder = "${folder}/files"\n` +
    `[models]\nhub = "${hub.endpoint}"\nhub_private = true\n[audit]\nenabled = true\n[workshop]\nroots = ["${folder}/models"]\nallow_weaker_jail = true\npublish = ${publish}\n`;
  writeFileSync(join(folder, 'workshop.toml'), config(true));
  writeFileSync(join(folder, 'off.toml'), config(false));
  await start();
}, 60_000);

beforeEach(() => {
  hub.fault = () => false;
});

afterAll(async () => {
  await stop('SIGTERM');
  await hub.close();
  rmSync(folder, { recursive: true, force: true });
});

test('a folder: the same bytes on the hub, and a line in the audit log before the first of them leaves', async () => {
  const bytes = writeModel('whole');
  const before: string[] = [];
  hub.fault = ({ step, when }) => {
    if (step === 'create' && when === 'before')
      before.push(...egress('owner/whole').map(({ phase }) => phase));
    return false;
  };
  const { status, json } = await post('/model', {
    model_dir: 'whole',
    repo_id: 'owner/whole',
    base_model: 'a/b',
  });
  expect(status, JSON.stringify(json)).toBe(200);
  expect(json).toMatchObject({
    success: true,
    repo_id: 'owner/whole',
    url: `${hub.endpoint}/owner/whole`,
    commit: expect.stringMatching(/^[0-9a-f]{40}$/),
  });
  expect(hub.pathsOf('owner/whole')).toEqual(['README.md', 'config.json', 'model.safetensors']);
  expect(hub.bytesOf('owner/whole', 'model.safetensors')?.equals(bytes)).toBe(true);
  expect(hub.bytesOf('owner/whole', 'README.md')?.toString()).toContain('base_model: ');
  expect(before).toEqual(['begin']);
  const files = json['files'] as readonly { readonly sha256: string; readonly bytes: number }[];
  const shared = { sha256: files.map(({ sha256 }) => sha256), sizes: files.map(({ bytes: size }) => size) };
  expect(egress('owner/whole')).toMatchObject([
    { phase: 'begin', repository: 'model:owner/whole', ...shared, error: null },
    { phase: 'done', ...shared, commit: json['commit'] },
  ]);
});

test('a GGUF file from a form, by its header; an own stored file as a data set', async () => {
  writeFileSync(join(folder, 'models', 'small.gguf'), `GGUF${CANARY}`);
  const form = new URLSearchParams({
    gguf_path: 'small.gguf',
    repo_id: 'owner/gguf',
    generate_card: 'false',
  });
  const type = 'application/x-www-form-urlencoded';
  const headers = { 'x-hub-token': TOKEN };
  const { status } = await sending(`${PUBLISH}/gguf`, { body: form.toString(), type, headers }).answer;
  expect(status).toBe(200);
  expect(hub.pathsOf('owner/gguf')).toEqual(['small.gguf']);

  const boundary = 'xyz';
  const part = (name: string, value: string, extra = ''): string =>
    `--${boundary}\r\ncontent-disposition: form-data; name="${name}"${extra}\r\n\r\n${value}\r\n`;
  const lines = JSON.stringify({ text: CANARY });
  const body = `${part('purpose', 'user_data')}${part('file', lines, '; filename="mine.jsonl"')}--${boundary}--\r\n`;
  const multipart = `multipart/form-data; boundary=${boundary}`;
  const stored = await sending('/v1/files', { body, type: multipart }).answer;
  const data_dir = String(stored.json['id']);
  expect((await post('/dataset', { data_dir, repo_id: 'owner/set' })).status).toBe(200);
  expect(hub.bytesOf('owner/set', 'mine.jsonl')?.toString()).toBe(lines);
  const theirs = await post('/dataset', { data_dir, repo_id: 'owner/stolen' }, { key: YOURS });
  expect(theirs).toMatchObject({ status: 404 });
  expect(hub.pathsOf('owner/stolen')).toEqual([]);
});

test('refusals: nothing leaves', async () => {
  writeModel('refused');
  mkdirSync(join(folder, 'models', 'linked'));
  symlinkSync('/etc/hostname', join(folder, 'models', 'linked', 'model.safetensors'));
  const before = hub.authorizations.length;
  const given = { model_dir: 'refused', repo_id: 'owner/refused' };
  const cases = [
    [{ ...given, model_dir: '../workshop.toml' }, 400, 'path_not_allowed'],
    [{ ...given, model_dir: '/etc' }, 400, 'path_not_allowed'],
    [{ ...given, model_dir: 'linked' }, 400, 'path_not_allowed'],
    [{ ...given, model_dir: 'refused/config.json' }, 400, 'invalid_value'],
    [{ ...given, model_dir: 'missing' }, 400, null],
    [{ ...given, model_dir: undefined }, 400, 'missing_required_parameter'],
    [{ ...given, model_path: 'refused' }, 400, 'invalid_value'],
    [{ ...given, token: undefined }, 400, 'missing_required_parameter'],
    [{ ...given, token: `${TOKEN}\r\nx: y` }, 400, 'invalid_value'],
    [{ ...given, repo_id: 'owner/../x' }, 400, 'invalid_model_name'],
    [{ ...given, revision: 'a b' }, 400, 'invalid_model_name'],
    [{ ...given, extra: 1 }, 400, null],
  ] as const;
  for (const [body, status, code] of cases) {
    const answer = await post('/model', body);
    const told = JSON.stringify(answer.json);
    expect(answer.status, told).toBe(status);
    if (code !== null) expect(answer.json).toMatchObject({ error: { code }, detail: expect.anything() });
    expect(told).not.toContain(TOKEN);
  }
  expect(hub.authorizations.length).toBe(before);
  const wrong = await post('/model', { ...given, token: 'hf_another_token_of_nobody' });
  expect(wrong).toMatchObject({ status: 502, json: { error: { code: 'hub_unauthorized' } } });
  expect(egress('owner/refused').map(({ phase, error }) => [phase, error])).toEqual([
    ['begin', null],
    ['failed', 'hub_unauthorized'],
  ]);
});

test('a reset in a part and an error of the commit pass', async () => {
  const bytes = writeModel('faults');
  const [part, commit] = [hub.counts.part, hub.counts.commit];
  hub.fault = ({ step, nth, when, request: asked, response }) => {
    const isReset = step === 'part' && nth === part + 2 && when === 'before';
    const isError = step === 'commit' && nth === commit + 1 && when === 'after';
    if (isReset) asked.socket.destroy();
    if (isError) response.writeHead(503, { 'retry-after': '0' }).end();
    return isReset || isError;
  };
  expect((await post('/model', { model_dir: 'faults', repo_id: 'owner/faults' })).status).toBe(200);
  expect(hub.bytesOf('owner/faults', 'model.safetensors')?.equals(bytes)).toBe(true);
}, 60_000);

test('?wait=false: its state by its id, for its key alone; cancel ends it, and the same request goes on', async () => {
  const bytes = writeModel('asked');
  const held = holding('part', 3);
  const body = { model_dir: 'asked', repo_id: 'owner/asked' };
  const { status, json } = await post('/model?wait=false', body);
  expect(status).toBe(202);
  const id = String(json['publication_id']);
  await held;
  const running = await get(`/${id}`);
  expect(running.json).toMatchObject({ status: 'running', repo_id: 'owner/asked', url: null });
  expect(running.json['progress']).toBeGreaterThan(0);
  expect((await get(`/${id}`, YOURS)).status).toBe(404);
  expect((await get('', YOURS)).json['data']).toEqual([]);
  const cancelled = await post(`/${id}/cancel`, {}, { body: '' });
  expect(cancelled.json).toMatchObject({ status: 'cancelled', error: { code: 'job_cancelled' } });
  expect(egress('owner/asked').at(-1)).toMatchObject({ phase: 'failed', error: 'job_cancelled' });
  await expectRest(body, bytes);
  const listed = (await get('')).json['data'] as readonly { readonly id: string }[];
  expect(listed.map((each) => each.id)).toContain(id);
});

/** The parts before the held one are not sent again. */
async function expectRest(body: { readonly repo_id: string }, bytes: Buffer): Promise<void> {
  hub.fault = () => false;
  const taken = hub.partsTaken.length;
  expect((await post('/model', body)).status).toBe(200);
  expect(new Set(hub.partsTaken.slice(taken))).toEqual(new Set([3, 4]));
  expect(hub.partsTaken.length).toBe(taken + 2);
  expect(hub.bytesOf(body.repo_id, 'model.safetensors')?.equals(bytes)).toBe(true);
}

test('a client that leaves ends its publication; the same request goes on', async () => {
  const bytes = writeModel('left');
  const body = { model_dir: 'left', repo_id: 'owner/left' };
  const held = holding('part', 3);
  const asked = sending(`${PUBLISH}/model`, { body: JSON.stringify({ token: TOKEN, ...body }) });
  const { response } = await held;
  const broken = new Promise((resolve) => response.once('close', resolve));
  asked.sent.destroy();
  await expect(asked.answer).rejects.toThrow();
  await broken;
  const [last] = (await get('')).json['data'] as readonly { readonly id: string }[];
  expect((await get(`/${last?.id}?wait=true`)).json).toMatchObject({ status: 'cancelled' });
  await expectRest(body, bytes);
});

test('a caller has its share of the queue, and another key still gets in', async () => {
  writeModel('many');
  hub.fault = ({ step, request: asked }) => {
    asked.resume();
    return step === 'create';
  };
  const answers: Answer[] = [];
  for (let n = 0; n < 11; n++)
    answers.push(await post('/model?wait=0', { model_dir: 'many', repo_id: `owner/many-${n}` }));
  expect(answers.map(({ status }) => status)).toEqual([...Array.from({ length: 10 }, () => 202), 429]);
  expect(answers.at(-1)?.json).toMatchObject({ error: { code: 'too_many_jobs' } });
  const theirs = await post('/model?wait=0', { model_dir: 'many', repo_id: 'owner/other' }, { key: YOURS });
  expect(theirs.status).toBe(202);
  expect((await get(`/${String(theirs.json['publication_id'])}`, YOURS)).json['status']).toBe('running');
  const ids = answers.slice(0, 10).map(({ json }) => String(json['publication_id']));
  for (const id of ids.toReversed()) await post(`/${id}/cancel`, {}, { body: '' });
  await post(`/${String(theirs.json['publication_id'])}/cancel`, {}, { body: '', key: YOURS });
});

describe.each(['SIGTERM', 'SIGKILL'] as const)('%s in the middle', (signal) => {
  test('the next workshop goes on where it was, and the audit log is whole', async () => {
    const name = signal.toLowerCase();
    const bytes = writeModel(name);
    const body = { model_dir: name, repo_id: `owner/${name}` };
    const held = holding('part', 3);
    const { answer } = sending(`${PUBLISH}/model`, { body: JSON.stringify({ token: TOKEN, ...body }) });
    const ended = answer.then(
      ({ status, json }) => [status, (json['error'] as { code: string }).code],
      () => ['gone'],
    );
    await held;
    const code = await stop(signal);
    expect(await ended).toEqual(signal === 'SIGTERM' ? [503, 'job_interrupted'] : ['gone']);
    if (signal === 'SIGTERM') {
      expect(code).toBe(0);
      expect(egress(body.repo_id).at(-1)).toMatchObject({ phase: 'failed', error: 'job_interrupted' });
    }
    await start();
    await expectRest(body, bytes);
    await auditVerified();
  }, 60_000);
});

test('off: refused, and nothing leaves', async () => {
  await stop('SIGTERM');
  const before = hub.authorizations.length;
  await start('off.toml');
  const answer = await post('/model', { model_dir: 'whole', repo_id: 'owner/off' });
  expect(answer).toMatchObject({ status: 403, json: { error: { code: 'publish_disabled' } } });
  expect(hub.authorizations.length).toBe(before);
}, 60_000);

test('neither the token nor a byte of the files is in what the workshop wrote', () => {
  said += workshop.out() + workshop.err();
  const kept = readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && !entry.parentPath.startsWith(join(folder, 'models')))
    .map((entry) => readFileSync(join(entry.parentPath, entry.name)));
  expect(kept.length).toBeGreaterThan(5);
  for (const sink of [Buffer.from(said), ...kept]) {
    expect(sink.includes(TOKEN)).toBe(false);
    expect(sink.includes(CANARY)).toBe(false);
  }
  expect(said).toContain('"msg":"egress"');
});
