// Engines that are aborted, crash, or are given files they cannot load. Tests wait for events, never for a
// delay.

import { readFileSync, writeFileSync, mkdtempSync, rmSync, openSync, closeSync, unlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ensureDemoModels } from '../../../scripts/demo-model/main.ts';
import { ApiError } from '../../../src/base/errors.ts';
import type { GenerateEvent } from '../../../src/engine/seam/engine.ts';
import { openEngine } from '../../../src/engine/open.ts';
import { request, run, tokensOf, workerEntry } from '../../fixtures/engine/demo-engine.ts';
import { apiRefusal as refusal } from '../../fixtures/refusal.ts';
import { useEngines } from '../../fixtures/engine/opened-engines.ts';

const fixture = useEngines();
const { open } = fixture;

async function aborted(
  events: AsyncIterable<GenerateEvent>,
  onEvent: (event: GenerateEvent) => void,
): Promise<unknown> {
  try {
    for await (const event of events) onEvent(event);
  } catch (error) {
    return error;
  }
  return null;
}

describe('aborts', () => {
  const reason = new Error('gone');

  test('before it began', async () => {
    await expect(run(fixture.context, {}, AbortSignal.abort(reason))).rejects.toBe(reason);
  });

  test('while queued, reading and writing: the reason comes back and the slot is free for the next', async () => {
    const engine = await open('demo-context', { slots: 1 }, { maxChunk: 1 });
    const [writing, queued, reading] = [new AbortController(), new AbortController(), new AbortController()];
    const long = { prompt: { kind: 'tokens', tokens: tokensOf(1, 1900, engine.info.vocabSize) } } as const;
    let deltas = 0;
    const first = aborted(engine.generate(request({ maxTokens: 2000 }), writing.signal), (event) => {
      if (event.kind !== 'delta') return;
      deltas += 1;
      if (deltas === 1) queued.abort(reason);
      if (deltas === 5) writing.abort(reason);
    });
    const second = aborted(engine.generate(request({ maxTokens: 2000 }), queued.signal), () => {});
    expect(await second).toBe(reason);
    expect(await first).toBe(reason);
    expect(deltas).toBe(5);
    // `start` tells that the prompt has a slot; 1900 tokens, one at a step, are far from read.
    const third = aborted(engine.generate(request({ ...long, maxTokens: 2000 }), reading.signal), (event) => {
      if (event.kind === 'start') reading.abort(reason);
    });
    expect(await third).toBe(reason);
    const before = engine.stats().decodeSteps;
    expect((await run(engine, { maxTokens: 3, cacheScope: 'next' })).finish).toBe('length');
    // The cancelled prompt would have taken 1900 steps. (That it is two at most is shown by the
    // step in scheduler.test.)
    expect(engine.stats().decodeSteps - before).toBeLessThan(1500);
    expect(engine.stats()).toMatchObject({ active: 0, queued: 0 });
  });

  test('leaving the loop is an abort', async () => {
    for await (const event of fixture.context.generate(
      request({ maxTokens: 2000 }),
      new AbortController().signal,
    ))
      if (event.kind === 'delta') break;
    await run(fixture.context, { maxTokens: 1 });
    expect(fixture.context.stats().active).toBe(0);
  });
});

describe('crashes', () => {
  test('kill -9 in mid-stream: that stream ends with 503, closed tells, later calls fail the same way', async () => {
    const engine = await open('demo-context', { slots: 2 });
    let seen = 0;
    const error = await refusal(
      (async () => {
        for await (const event of engine.generate(
          request({ maxTokens: 2000 }),
          new AbortController().signal,
        )) {
          if (event.kind === 'delta' && (seen += 1) === 3) process.kill(engine.pid ?? 0, 'SIGKILL');
        }
      })(),
    );
    expect([error.status, error.code, error.shouldRetry]).toEqual([503, 'engine_crashed', true]);
    expect((await engine.closed)?.message).toContain('SIGKILL');
    expect((await refusal(run(engine))).code).toBe('engine_crashed');
    expect((await refusal(engine.tokenize({ text: 'a' }))).code).toBe('engine_crashed');
  });

  test('close ends streams and settles closed with null', async () => {
    const engine = await open('demo-context');
    const running = refusal(run(engine, { maxTokens: 2000 }));
    await engine.tokenize({ text: 'a' });
    await engine.close();
    expect((await running).code).toBe('engine_crashed');
    expect(await engine.closed).toBeNull();
    await engine.close();
  });

  test('a child that hangs is ended by the watchdog', async () => {
    const engine = await open('demo-context', {}, { watchdogMs: 300 });
    process.kill(engine.pid ?? 0, 'SIGSTOP');
    expect((await refusal(run(engine))).code).toBe('engine_crashed');
    expect((await engine.closed)?.message).toContain('stopped answering');
  });

  test('the child has no environment of ours, no core dumps, no new privileges, and dies with its parent', () => {
    const status = readFileSync(`/proc/${fixture.context.pid}/status`, 'utf8');
    expect(status).toMatch(/NoNewPrivs:\s+1/);
    expect(readFileSync(`/proc/${fixture.context.pid}/limits`, 'utf8')).toMatch(/Max core file size\s+0\s+0/);
    const environment = readFileSync(`/proc/${fixture.context.pid}/environ`, 'utf8');
    expect(
      environment
        .split('\0')
        .filter(Boolean)
        .map((each) => each.split('=')[0] ?? '')
        .toSorted((a, b) => (a < b ? -1 : 1)),
    ).toEqual(['GGML_NO_BACKTRACE', 'NODE_OPTIONS', 'UV_THREADPOOL_SIZE']);
  });
});

describe('loading', () => {
  let folder: string;
  let good: Buffer;
  const attempt = async (name: string, bytes: Uint8Array): Promise<ApiError> => {
    const path = join(folder, name);
    writeFileSync(path, bytes);
    return refusal(openEngine({ workerEntry })({ path }, new AbortController().signal));
  };
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'assay-engine-'));
    good = readFileSync((await ensureDemoModels(['demo-context']))['demo-context'].path);
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  /** The file with a u32 metadata value replaced. */
  const patched = (key: string, value: number): Buffer => {
    const bytes = Buffer.from(good);
    bytes.writeUInt32LE(value, bytes.indexOf(key) + key.length + 4);
    return bytes;
  };

  test.each([
    ['a text file', () => Buffer.from('this is no model'), /GGUF/],
    ['an empty file', () => Buffer.alloc(0), /./],
    ['random bytes', () => Buffer.from(tokensOf(1, 50_000, 256)), /GGUF/],
    ['a truncated model', () => good.subarray(0, good.length >> 1), /./],
    ['a truncated header', () => good.subarray(0, 200), /./],
    [
      'one that makes llama.cpp abort: no layers',
      () => patched('llama.block_count', 0),
      /SIGABRT|GGML_ASSERT/,
    ],
    ['one that makes llama.cpp abort: no heads', () => patched('llama.attention.head_count', 0), /./],
    ['a wrong dimension', () => patched('llama.embedding_length', 96), /./],
  ] as const)(
    '%s is model_load_failed with a reason, and this process goes on',
    async (name, bytes, reason) => {
      const error = await attempt(name.replace(/\W/g, '-'), bytes());
      expect([error.status, error.code]).toEqual([500, 'model_load_failed']);
      expect(error.message).toMatch(reason);
      expect(error.message).not.toContain(folder);
    },
  );

  test('mutated files load or are refused, and nothing else happens', async () => {
    // The header holds counts, lengths, types and offsets; each file has a few bytes of it changed.
    const header = good.indexOf('token_embd.weight') + 4000;
    const outcomes = await Promise.all(
      Array.from({ length: 12 }, async (_, i) => {
        const bytes = Buffer.from(good);
        for (const [k, at] of tokensOf(i + 1, 3, header).entries())
          bytes[k === 0 ? at % 2000 : at] = (i * 37 + k * 101) & 0xff;
        const path = join(folder, `mutated-${i}`);
        writeFileSync(path, bytes);
        try {
          const engine = await openEngine({ workerEntry, loadTimeoutMs: 150_000 })(
            { path },
            new AbortController().signal,
          );
          await engine.close();
          return 'loaded';
        } catch (error) {
          return error instanceof ApiError ? error.code : String(error);
        }
      }),
    );
    expect(outcomes.filter((outcome) => outcome !== 'loaded' && outcome !== 'model_load_failed')).toEqual([]);
    expect(outcomes).toContain('model_load_failed');
  });

  test('a file that is not there, an abort and a time limit', async () => {
    expect(
      (
        await refusal(
          openEngine({ workerEntry })({ path: join(folder, 'nothing') }, new AbortController().signal),
        )
      ).code,
    ).toBe('model_load_failed');
    const path = join(folder, 'good');
    writeFileSync(path, good);
    const controller = new AbortController();
    const opening = openEngine({ workerEntry })({ path }, controller.signal);
    controller.abort(new Error('changed my mind'));
    await expect(opening).rejects.toThrow('changed my mind');
    expect(
      (await refusal(openEngine({ workerEntry, loadTimeoutMs: 1 })({ path }, new AbortController().signal)))
        .message,
    ).toContain('too long');
  });

  test('from an inherited descriptor of a file without a name, with progress', async () => {
    const path = join(folder, 'unlinked');
    writeFileSync(path, good);
    const fd = openSync(path, 'r');
    unlinkSync(path);
    const fractions: number[] = [];
    const engine = await openEngine({ workerEntry })(
      { path: '/proc/self/fd/4', fd, onProgress: (fraction) => fractions.push(fraction) },
      new AbortController().signal,
    );
    closeSync(fd);
    expect((await run(engine, { maxTokens: 4 })).text).toBe(
      (await run(fixture.context, { maxTokens: 4 })).text,
    );
    expect(fractions.at(-1)).toBe(1);
    await engine.close();
  });
});
