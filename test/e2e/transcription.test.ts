// A whisper model through the whole product: registered, measured, attested, loaded into its own confined
// child, and asked through the OpenAI SDK in every form. The model has random weights, so it hears no words:
// words are in test/published. Needs libwhisper (make native).

import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import OpenAI, { toFile, type APIError } from 'openai';
import { Agent, fetch, FormData, type Response } from 'undici';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { nativeLibrary } from '../../src/base/native-library.ts';
import { oggOf } from '../fixtures/audio/ogg-file.ts';
import { CELT, SILK_HYBRID } from '../fixtures/audio/opus-sample.ts';
import { floatWav, toneWav, wavHeader } from '../fixtures/audio/sound.ts';
import { webmOf } from '../fixtures/audio/webm-file.ts';
import { headOf, randomWhisper, SMALL_SIZES } from '../fixtures/audio/whisper-file.ts';
import { childrenOf, startRealServer, type RealServer } from '../fixtures/e2e/real-server.ts';

const weights = randomWhisper();
const tone = toneWav({ seconds: 2, rate: 44_100, channels: 2 });
function blob(bytes: Uint8Array): Blob {
  return new Blob([Uint8Array.from(bytes)]);
}

/** Not 0: a model of random weights fails at each, and would try again. */
const TEMPERATURE = 0.01;

describe.skipIf(nativeLibrary('libwhisper') === undefined)('sound', () => {
  let folder: string;
  let server: RealServer;
  let client: OpenAI;
  const dispatcher = new Agent({ connect: { rejectUnauthorized: false } });

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'assay-sound-'));
    await mkdir(join(folder, 'models'));
    await writeFile(join(folder, 'models/random.bin'), weights);
    await writeFile(join(folder, 'models/cut.bin'), weights.subarray(0, weights.length - 1));
    await writeFile(join(folder, 'models/no-tensors.bin'), headOf(SMALL_SIZES, [Buffer.from(' ')]));
    await writeFile(
      join(folder, 'assay.toml'),
      `[api]\nmetrics_enabled = true\n[store]\nmodel_roots = [${JSON.stringify(join(folder, 'models'))}]\n`,
    );
    server = await startRealServer({ args: ['--config', join(folder, 'assay.toml')] });
    client = new OpenAI({
      baseURL: `${server.url}/v1`,
      apiKey: 'unused',
      maxRetries: 0,
      fetch: (url, init) =>
        // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- undici's own types of the same things
        fetch(url as string, { ...(init as object), dispatcher }) as unknown as ReturnType<
          typeof globalThis.fetch
        >,
    });
    expect(await register('random')).toMatchObject({ status: 201 });
  });
  afterAll(async () => {
    await dispatcher.destroy();
    if (server.process.exitCode === null) expect(await server.stop()).toBe(0);
    await rm(folder, { recursive: true });
  });

  async function register(name: string, more: object = {}): Promise<{ status: number; body: unknown }> {
    const response = await fetch(`${server.url}/v1/models`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ name, path: join(folder, 'models', `${name}.bin`), ...more }),
      dispatcher,
    });
    return { status: response.status, body: await response.json() };
  }

  function send(
    fields: Readonly<Record<string, string | Blob>>,
    route = 'transcriptions',
  ): Promise<Response> {
    const form = new FormData();
    for (const [name, value] of Object.entries(fields)) form.append(name, value);
    return fetch(`${server.url}/v1/audio/${route}`, { method: 'POST', body: form, dispatcher });
  }

  const file = (): ReturnType<typeof toFile> => toFile(tone, 'tone.wav');
  const asked = async () => ({ file: await file(), model: 'random', temperature: TEMPERATURE });

  test('the model is listed with its digest, type and format, and is in the evidence', async () => {
    const sha256 = createHash('sha256').update(weights).digest('hex');
    const listed = await fetch(`${server.url}/v1/models/random`, { dispatcher });
    expect(await listed.json()).toMatchObject({
      sha256,
      type: 'transcription',
      format: 'whisper',
      capabilities: ['transcription'],
    });
    const evidence = await fetch(`${server.url}/v1/attestation?nonce=${'ab'.repeat(32)}`, { dispatcher });
    expect(await evidence.text()).toContain(sha256);
  });

  test('json and verbose_json by the SDK', async () => {
    const plain = await client.audio.transcriptions.create(await asked());
    expect(plain).toMatchObject({ usage: { type: 'duration', seconds: 2 } });
    const verbose = await client.audio.transcriptions.create({
      ...(await asked()),
      response_format: 'verbose_json',
      timestamp_granularities: ['word', 'segment'],
      language: 'en',
      prompt: 'A tone.',
    });
    expect(verbose).toMatchObject({ duration: 2, language: 'english', task: 'transcribe' });
    expect(verbose.segments?.length).toBeGreaterThan(0);
    for (const { start, end, avg_logprob } of verbose.segments ?? []) {
      expect(start).toBeGreaterThanOrEqual(0);
      expect(end).toBeGreaterThanOrEqual(start);
      expect(avg_logprob).toBeLessThan(0);
    }
    expect(verbose.words?.length).toBeGreaterThan(0);
  });

  test('text, srt and vtt', async () => {
    const of = async (response_format: 'text' | 'srt' | 'vtt'): Promise<string> =>
      // The SDK gives texts back as they are.
      String(await client.audio.transcriptions.create({ ...(await asked()), response_format }));
    expect(await of('text')).toMatch(/\n$/);
    expect(await of('srt')).toMatch(/^1\n\d\d:\d\d:\d\d,\d{3} --> \d\d:\d\d:\d\d,\d{3}\n/);
    expect(await of('vtt')).toMatch(/^WEBVTT\n\n\d\d:\d\d:\d\d\.\d{3} --> /);
  });

  test.each([
    ['Ogg', 'voice.ogg', oggOf(SILK_HYBRID)],
    ['WebM', 'recording.webm', webmOf(CELT, { grouped: true })],
    ['WebM of a browser', 'blob', webmOf(CELT, { live: true })],
  ])('Opus in %s', async (_, name, bytes) => {
    const heard = await client.audio.transcriptions.create({
      ...(await asked()),
      file: await toFile(bytes, name),
      response_format: 'verbose_json',
    });
    expect(heard.duration).toBeCloseTo(1, 1);
  });

  test('a stream: deltas, then the whole text once', async () => {
    const stream = await client.audio.transcriptions.create({ ...(await asked()), stream: true });
    let [deltas, done] = ['', 0];
    for await (const event of stream) {
      if (event.type === 'transcript.text.delta') deltas += event.delta;
      else if (event.type === 'transcript.text.done') {
        done += 1;
        expect(event.text).toBe(deltas.trim());
      }
    }
    expect(done).toBe(1);
  });

  test('an English model translates nothing, and says so', async () => {
    await expect(client.audio.translations.create(await asked())).rejects.toMatchObject({
      status: 400,
      code: 'wrong_model_type',
    } satisfies Partial<APIError>);
  });

  const good = { file: blob(tone), model: 'random', temperature: '0.01' };
  test.each<readonly [string, Readonly<Record<string, string | Blob>>, string, string | null]>([
    ['no file', { model: 'random' }, 'missing_required_parameter', 'file'],
    ['a file without a filename', { ...good, file: 'words' }, 'invalid_value', 'file'],
    ['no model', { file: good.file }, 'missing_required_parameter', 'model'],
    ['another field', { ...good, frequency: '1' }, 'unknown_parameter', 'frequency'],
    ['a hot temperature', { ...good, temperature: '2' }, 'decimal_above_max_value', 'temperature'],
    ['no number', { ...good, temperature: 'warm' }, 'invalid_type', 'temperature'],
    ['a format of none', { ...good, response_format: 'ass' }, 'invalid_value', 'response_format'],
    ['a language of none', { ...good, language: 'xx' }, 'invalid_value', 'language'],
    ['another language', { ...good, language: 'de' }, 'invalid_value', 'language'],
    ['times without a place', { ...good, 'timestamp_granularities[]': 'word' }, 'invalid_value', 'timestamp_granularities'], // prettier-ignore
    ['subtitles in a stream', { ...good, stream: 'true', response_format: 'srt' }, 'invalid_value', 'stream'],
    ['log probabilities', { ...good, 'include[]': 'logprobs' }, 'unsupported_parameter', 'include'],
    ['a model that chats', { ...good, model: 'demo-chat' }, 'wrong_model_type', 'model'],
    ['no such model', { ...good, model: 'none' }, 'model_not_found', 'model'],
    ['no sound', { ...good, file: new Blob(['these are words']) }, 'invalid_audio', 'file'],
    ['an empty file', { ...good, file: new Blob([]) }, 'invalid_audio', 'file'],
    [
      'an Ogg file of nothing',
      { ...good, file: new Blob(['OggS and then nothing']) },
      'invalid_audio',
      'file',
    ],
    [
      'an Ogg file cut in its middle',
      { ...good, file: blob(oggOf(CELT).subarray(0, 900)) },
      'invalid_audio',
      'file',
    ],
    [
      'an M4A file',
      { ...good, file: blob(Buffer.from('\0\0\0\x20ftypM4A ', 'latin1')) },
      'invalid_audio',
      'file',
    ],
    ['a header alone', { ...good, file: blob(wavHeader(1 << 30, 16_000, 1)) }, 'invalid_audio', 'file'],
  ])('%s is refused', async (_, fields, code, param) => {
    const response = await send(fields);
    expect(await response.json()).toMatchObject({ error: { code, param } });
    expect(response.status).toBe(code === 'model_not_found' ? 404 : 400);
  });

  test('more bytes or more seconds than a request may bring', async () => {
    const large = await send({ ...good, file: blob(Buffer.alloc(26 * 1024 * 1024)) });
    expect(large.status).toBe(413);
    await large.body?.cancel();
    // A low rate, so that more than an hour fits.
    const samples = Buffer.alloc(3700 * 3000 * 2);
    const long = Buffer.concat([wavHeader(samples.length, 3000, 1), samples]);
    const response = await send({ ...good, file: blob(long) });
    expect(await response.json()).toMatchObject({ error: { code: 'audio_too_long', param: 'file' } });
  });

  test('floats that are no sound end neither the child nor the requests of others', async () => {
    const child = await hearingChild();
    const sounds = [Number.NaN, Infinity, 3e38].map((value) =>
      floatWav(Array.from({ length: 16_000 }, (_, i) => (i % 2 === 0 ? value : -value))),
    );
    const [others, ...hostile] = await Promise.all([
      send(good),
      ...sounds.map((sound) => send({ ...good, file: blob(sound) })),
    ]);
    expect(others.status).toBe(200);
    expect(hostile.map(({ status }) => status)).toEqual([400, 200, 200]);
    expect(await hearingChild()).toBe(child);
  });

  test('a form to another route, and another body to this one', async () => {
    for (const [path, init] of [
      ['/v1/embeddings', { body: new FormData() }],
      ['/v1/audio/transcriptions', { body: '{}', headers: { 'content-type': 'application/json' } }],
    ] as const) {
      const response = await fetch(`${server.url}${path}`, { method: 'POST', ...init, dispatcher });
      expect(response.status).toBe(415);
      await response.body?.cancel();
    }
    const chat = await fetch(`${server.url}/v1/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ model: 'random', prompt: 'x' }),
      dispatcher,
    });
    expect(await chat.json()).toMatchObject({ error: { code: 'wrong_model_type' } });
  });

  test.each([
    ['cut', {}, 'invalid_whisper_model'],
    ['no-tensors', {}, 'invalid_whisper_model'],
    ['random', { format: 'gguf', name: 'other' }, 'invalid_gguf'],
  ])('the file %s is not registered', async (name, more, code) => {
    expect(await register(name, more)).toMatchObject({ status: 400, body: { error: { code } } });
  });

  async function hearingChild(): Promise<number | undefined> {
    for (const pid of await childrenOf(server.process.pid ?? 0))
      if ((await readFile(`/proc/${pid}/cmdline`, 'latin1')).includes('audio/worker.js')) return pid;
    return undefined;
  }

  async function hearing(): Promise<string> {
    const response = await fetch(`${server.url}/metrics`, { dispatcher });
    return /^assay_model_requests_in_flight (\d+)$/m.exec(await response.text())?.[1] ?? '';
  }

  test.skipIf(process.platform !== 'linux')('the child that hears is confined', async () => {
    const statuses: string[] = [];
    for (const pid of await childrenOf(server.process.pid ?? 0))
      if ((await readFile(`/proc/${pid}/cmdline`, 'latin1')).includes('audio/worker.js'))
        statuses.push(await readFile(`/proc/${pid}/status`, 'latin1'));
    expect(statuses).toHaveLength(1);
    // A filter of system calls, on every thread; no new privileges.
    expect(statuses[0]).toMatch(/^Seccomp:\s+2$/m);
    expect(statuses[0]).toMatch(/^NoNewPrivs:\s+1$/m);
  });

  test('a client that leaves ends its work, and the next one is heard', async () => {
    const controller = new AbortController();
    const form = new FormData();
    form.append('file', blob(toneWav({ seconds: 700 })));
    form.append('model', 'random');
    const left = fetch(`${server.url}/v1/audio/transcriptions`, {
      method: 'POST',
      body: form,
      dispatcher,
      signal: controller.signal,
    });
    await expect.poll(hearing).toBe('1');
    controller.abort();
    await expect(left).rejects.toThrow();
    await expect.poll(hearing).toBe('0');
    expect((await send(good)).status).toBe(200);
  });

  test('a child that is killed is engine_crashed, and the next request has a new one', async () => {
    const before = await childrenOf(server.process.pid ?? 0);
    const pending = send({ ...good, file: blob(toneWav({ seconds: 700 })) });
    await expect.poll(hearing).toBe('1');
    for (const pid of before) process.kill(pid, 'SIGKILL');
    const response = await pending;
    expect(response.status).toBe(503);
    expect(await response.json()).toMatchObject({ error: { code: 'engine_crashed' } });
    expect((await send(good)).status).toBe(200);
  });
});
