// One report answers many nonces; budgets and queue are bounded; failures fail their batch and no other.

import { createHash, randomBytes } from 'node:crypto';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  ALL_MODELS_ID,
  allModelsDigest,
  attestedModel,
  decodeClaims,
  leafHash,
  toHex,
  verifyInclusion,
  type AttestationDocument,
} from '@assay/attestation';
import { inclusionPath, merkleRoot } from '@assay/attestation/issue';
import { createBatcher, treeOf, type BatcherOptions } from '../../../src/attester/batcher.ts';
import type { Report, ReportSource } from '../../../src/attester/assemble.ts';
import { TsmError } from '../../../src/attestd/tsm.ts';
import { bareSnpReport } from '../../fixtures/attestd/tsm.ts';
import { manualClock } from '../../fixtures/clock.ts';

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

function digest(text: string): Uint8Array {
  return new Uint8Array(createHash('sha256').update(text).digest());
}
const models = [
  attestedModel('a', [{ role: 'weights', sha256: digest('a'), size: 1 }]),
  attestedModel('b', [{ role: 'weights', sha256: digest('b'), size: 2 }, { role: 'adapter', sha256: digest('l'), size: 3 }]), // prettier-ignore
];

/** A source that hands out its reports only when told to. */
function gatedSource() {
  const asked: { data: Uint8Array; finish: (error?: unknown) => void; signal: AbortSignal }[] = [];
  const state = { available: true, auto: true };
  const source: ReportSource = {
    teeType: 'sev-snp',
    get available() {
      return state.available;
    },
    report: (data, signal) =>
      new Promise<Report>((resolve, reject) => {
        const finish = (error?: unknown): void =>
          error === undefined
            ? resolve({ report: bareSnpReport(data), measurement: new Uint8Array(48).fill(0x4d) })
            : reject(error);
        asked.push({ data, finish, signal });
        if (state.auto) finish();
      }),
    endorsementsExpireAt: () => null,
    endorsementsError: () => null,
    close: () => Promise.resolve(),
  };
  return { source, asked, state };
}

function setUp(options: Partial<BatcherOptions> = {}) {
  const gate = gatedSource();
  const clock = manualClock(1_700_000_000_000);
  const attester = createBatcher({
    source: gate.source,
    context: {
      tlsSpki: digest('spki'),
      config: digest('config'),
      receiptKey: digest('receipt'),
      hpkeKey: () => digest('hpke'),
    },
    models: () => models,
    now: clock.now,
    timeoutMs: 60_000,
    batchMax: 100,
    maxQueue: 1000,
    perMinute: 0,
    ...options,
  });
  const ask = (
    nonce: Uint8Array,
    modelId?: string,
    clientId: string | null = 'c',
    signal = new AbortController().signal,
  ): Promise<AttestationDocument> =>
    attester.attest({
      nonce,
      exporter: digest(`exporter ${toHex(nonce)}`),
      clientId,
      signal,
      ...(modelId === undefined ? {} : { modelId }),
    });
  return { attester, ask, clock, ...gate };
}

function nonce(): Uint8Array {
  return new Uint8Array(randomBytes(32));
}
function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/**
 * The checks a verifier makes of the batch: leaf of the claims, path to the root, root and model in
 * report_data.
 */
function expectAnswers(document: AttestationDocument, asked: Uint8Array): void {
  const claims = decodeClaims(document.claims);
  expect(claims.nonce).toEqual(asked);
  expect(claims.exporter).toEqual(digest(`exporter ${toHex(asked)}`));
  expect(document.nonce).toBe(toHex(asked));
  expect(document.report.subarray(0x50, 0x90)).toEqual(document.reportData);
  const root = document.reportData.subarray(0, 32);
  expect(verifyInclusion(leafHash(document.claims), document.inclusion, root)).toBe(true);
  expect(document.reportData.subarray(32)).toEqual(claims.model.sha256);
}

describe('a document', () => {
  test('answers its nonce for all models, for one blob, and for one of several blobs', async () => {
    const { ask } = setUp();
    const all = nonce();
    const document = await ask(all);
    expectAnswers(document, all);
    expect(decodeClaims(document.claims).model).toEqual({
      kind: 'all',
      id: ALL_MODELS_ID,
      sha256: allModelsDigest(models),
    });
    expect(document.models.map((m) => m.id)).toEqual(['a', 'b']);
    expect(document.inclusion).toEqual({ index: 0, size: 1, path: [] });

    const one = nonce();
    const blob = await ask(one, 'a');
    expectAnswers(blob, one);
    // The very digest a person gets from sha256sum.
    expect(toHex(blob.reportData.subarray(32))).toBe(toHex(digest('a')));
    expect(blob.models.map((m) => m.id)).toEqual(['a']);

    const two = nonce();
    const manifest = await ask(two, 'b');
    expectAnswers(manifest, two);
    expect(decodeClaims(manifest.claims).model.kind).toBe('manifest');
  });

  test('carries guest time, the keys and the configuration of this boot', async () => {
    const { ask } = setUp();
    const document = await ask(nonce());
    expect(decodeClaims(document.claims)).toMatchObject({
      tlsSpki: digest('spki'),
      config: digest('config'),
      receiptKey: digest('receipt'),
      hpkeKey: digest('hpke'),
      issuedAt: 1_700_000_000,
    });
    expect(document.timestamp).toBe('2023-11-14T22:13:20Z');
  });

  test('of the certificate has neither nonce nor exporter', async () => {
    const { attester } = setUp();
    const document = await attester.attestCertificate(new AbortController().signal);
    const claims = decodeClaims(document.claims);
    expect([claims.nonce, claims.exporter, document.nonce]).toEqual([undefined, undefined, undefined]);
  });

  test('for all models follows the list, also when it changes', async () => {
    let list = models;
    const { ask } = setUp({ models: () => list });
    await ask(nonce());
    list = [...models, attestedModel('c', [{ role: 'weights', sha256: digest('c'), size: 9 }])];
    const document = await ask(nonce());
    expect(document.models.map((m) => m.id)).toEqual(['a', 'b', 'c']);
    expect(decodeClaims(document.claims).model.sha256).toEqual(allModelsDigest(list));
  });

  test('of the certificate and of the program itself are made even while strangers fill the queue', async () => {
    const { ask, attester, asked, state } = setUp({ maxQueue: 2 });
    state.auto = false;
    const first = ask(nonce());
    await turn();
    const waiting = [ask(nonce()), ask(nonce())];
    await expect(ask(nonce())).rejects.toMatchObject({ code: 'attestation_rate_limited' });
    const { signal } = new AbortController();
    const certificate = attester.attestCertificate(signal);
    const own = attester.attest({ nonce: nonce(), exporter: nonce(), clientId: null, signal });
    state.auto = true;
    for (const each of asked) each.finish();
    await Promise.all([first, ...waiting, own]);
    expect(decodeClaims((await certificate).claims).nonce).toBeUndefined();
  });

  test('of an unknown model is 404', async () => {
    const { attester } = setUp();
    const asked = async (): Promise<unknown> =>
      attester.attest({
        nonce: nonce(),
        exporter: nonce(),
        modelId: 'x',
        clientId: 'c',
        signal: new AbortController().signal,
      });
    await expect(asked()).rejects.toMatchObject({ status: 404, code: 'model_not_found' });
  });
});

describe('batching', () => {
  test('what waits while a report is made is answered by the next one', async () => {
    const { ask, asked, state, attester } = setUp();
    state.auto = false;
    const first = ask(nonce());
    await turn();
    const nonces = Array.from({ length: 57 }, nonce);
    const rest = nonces.map((n) => ask(n));
    expect(asked).toHaveLength(1);
    asked[0]!.finish();
    await first;
    await turn();
    expect(asked).toHaveLength(2);
    asked[1]!.finish();
    const documents = await Promise.all(rest);
    for (const [i, document] of documents.entries()) expectAnswers(document, nonces[i]!);
    expect(new Set(documents.map((d) => toHex(d.report))).size).toBe(1);
    expect(documents.map((d) => d.inclusion.index)).toEqual(nonces.map((_, i) => i));
    expect(attester.status()).toMatchObject({ reports: 2, answered: 58, failed: 0, queued: 0 });
  });

  test('another model is another report, in the order asked, and never shares report_data', async () => {
    const { ask, asked, state } = setUp();
    state.auto = false;
    const waiting = [ask(nonce(), 'a'), ask(nonce(), 'b'), ask(nonce(), 'a')];
    await turn();
    expect(toHex(asked[0]!.data.subarray(32))).toBe(toHex(digest('a')));
    asked[0]!.finish();
    await turn();
    asked[1]!.finish();
    const [a1, b, a2] = await Promise.all(waiting);
    expect(toHex(a1!.report)).toBe(toHex(a2!.report));
    expect(toHex(a1!.report)).not.toBe(toHex(b!.report));
    expect(b!.inclusion.size).toBe(1);
  });

  test('a batch has at most so many leaves', async () => {
    const { ask, asked } = setUp({ batchMax: 10 });
    const documents = await Promise.all(Array.from({ length: 25 }, () => ask(nonce())));
    expect(documents.map((d) => d.inclusion.size).toSorted((x, y) => x - y)).toEqual([
      ...Array<number>(5).fill(5),
      ...Array<number>(20).fill(10),
    ]);
    expect(asked).toHaveLength(3);
  });

  test('a request that is given up leaves the queue without holding up the others', async () => {
    const { ask, asked, state, attester } = setUp();
    state.auto = false;
    const first = ask(nonce());
    await turn();
    const abort = new AbortController();
    const left = ask(nonce(), undefined, 'c', abort.signal);
    const kept = nonce();
    const stays = ask(kept);
    abort.abort(new Error('left'));
    await expect(left).rejects.toThrow('left');
    expect(attester.status().queued).toBe(1);
    asked[0]!.finish();
    await first;
    await turn();
    asked[1]!.finish();
    expectAnswers(await stays, kept);
    expect((await stays).inclusion.size).toBe(1);
  });
});

describe('limits', () => {
  test('a client has its budget, the others have theirs, and it comes back with time', async () => {
    const { ask, clock } = setUp({ perMinute: 3 });
    for (let i = 0; i < 3; i++) await ask(nonce(), undefined, 'greedy');
    await expect(ask(nonce(), undefined, 'greedy')).rejects.toMatchObject({
      status: 429,
      code: 'attestation_rate_limited',
      retryAfterSeconds: 20,
    });
    await ask(nonce(), undefined, 'other');
    // The program's own has none.
    for (let i = 0; i < 5; i++) await ask(nonce(), undefined, null);
    clock.advance(20_000);
    await ask(nonce(), undefined, 'greedy');
    await expect(ask(nonce(), undefined, 'greedy')).rejects.toMatchObject({
      code: 'attestation_rate_limited',
    });
  });

  test('a full queue refuses with a time to come back', async () => {
    const { ask, state, asked } = setUp({ maxQueue: 4, batchMax: 1 });
    state.auto = false;
    const running = ask(nonce());
    await turn();
    const waiting = Array.from({ length: 4 }, () => ask(nonce()));
    await expect(ask(nonce())).rejects.toMatchObject({
      status: 429,
      code: 'attestation_rate_limited',
      retryAfterSeconds: 1,
    });
    state.auto = true;
    asked[0]!.finish();
    await Promise.all([running, ...waiting]);
  });
});

describe('failure', () => {
  test('a failed report is 500 for its batch, and the next works', async () => {
    const { ask, asked, state, attester } = setUp();
    state.auto = false;
    const failing = [ask(nonce()), ask(nonce())];
    await turn();
    asked[0]!.finish(new TsmError('io', 'EIO'));
    const results = await Promise.allSettled(failing);
    for (const result of results)
      expect(result).toMatchObject({ reason: { status: 500, code: 'attestation_failed' } });
    state.auto = true;
    await ask(nonce());
    expect(attester.status()).toMatchObject({ reports: 1, failed: 1 });
  });

  test('a TSM that never answers costs its batch the time limit, not the endpoint', async () => {
    const { ask, state, asked } = setUp({ timeoutMs: 500 });
    state.auto = false;
    const hanging = expect(ask(nonce())).rejects.toMatchObject({ code: 'attestation_failed' });
    await turn();
    // A limit that the garbage collector can take away is none.
    for (let i = 0; i < 3; i++) collectGarbage();
    await hanging;
    expect(asked[0]!.signal.aborted).toBe(true);
    state.auto = true;
    await ask(nonce());
  });

  test('after a final error nothing waits for a device that is gone', async () => {
    const { ask, state, attester } = setUp();
    state.available = false;
    await expect(ask(nonce())).rejects.toMatchObject({ status: 500, code: 'attestation_failed' });
    expect(attester.status().available).toBe(false);
  });

  test('closing fails what waits', async () => {
    const { ask, state, attester } = setUp();
    state.auto = false;
    const waiting = ask(nonce());
    await turn();
    const queued = ask(nonce());
    const closed = attester.close();
    await expect(waiting).rejects.toMatchObject({ code: 'attestation_failed' });
    await expect(queued).rejects.toMatchObject({ code: 'attestation_failed' });
    await closed;
  });
});

test('property: the tree built at once is the tree of RFC 9162, leaf by leaf', () => {
  fc.assert(
    fc.property(
      fc.array(fc.uint8Array({ minLength: 1, maxLength: 8 }), { minLength: 1, maxLength: 70 }),
      (entries) => {
        const leaves = entries.map(leafHash);
        const tree = treeOf(entries);
        expect(tree.root).toEqual(merkleRoot(leaves));
        expect(tree.paths).toEqual(leaves.map((_, i) => inclusionPath(leaves, i)));
      },
    ),
    { numRuns: 50 * Number(process.env['ASSAY_FUZZ'] ?? 1) },
  );
});
