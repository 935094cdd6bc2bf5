// The stores of endorsements: what is kept, for how long, and what a damaged folder does.

import { readdir, readFile, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { describe, expect, test, onTestFinished } from 'vitest';
import {
  folderStore,
  memoryStore,
  type StoredItem,
} from '../../../../attestation/node/endorsements/store.ts';
import { verifySnp } from '../../../../attestation/snp/verify.ts';
import {
  DAY,
  start,
  RELAXED,
  amd,
  serve,
  folder,
  endorsements,
  kds,
} from '../../../fixtures/attestation/endorsement-services.ts';
import { createEndorsements } from '../../../../attestation/node/endorsements/endorsements.ts';
import { createSimulatedIntel } from '../../../../attestation/simulated/intel.ts';
import { toHex, utf8 } from '../../../../attestation/encoding/bytes.ts';
import { NOW } from '../../../fixtures/attestation/attested-server.ts';

describe('the store', () => {
  test('outlives the process: a second one asks nothing, even offline', async () => {
    const service = await serve(kds());
    const path = await folder();
    const report = await amd.signReport();
    const first = await endorsements({ kdsUrl: service.url, cacheFolder: path }).snp(report);
    const second = await endorsements({ offline: true, cacheFolder: path }).snp(report);
    expect(second).toEqual(first);
    expect((await readdir(path)).every((name) => /^[0-9a-f]{64}\.json$/.test(name))).toBe(true);
  });

  test('damaged, cut and planted files count as absent', async () => {
    const service = await serve(kds());
    const path = await folder();
    const report = await amd.signReport();
    await endorsements({ kdsUrl: service.url, cacheFolder: path }).snp(report);
    const names = await readdir(path);
    const [a = '', b = '', c = ''] = names.map((name) => join(path, name));
    await writeFile(a, (await readFile(a, 'utf8')).slice(0, 100));
    await writeFile(b, await readFile(c));
    const { key, parts } = JSON.parse(await readFile(c, 'utf8')) as {
      key: string;
      parts: Record<string, string>;
    };
    await writeFile(
      c,
      JSON.stringify({
        key,
        fetchedAt: start,
        parts: Object.fromEntries(Object.keys(parts).map((name) => [name, 'AAAA'])),
      }),
    );
    await expect(endorsements({ offline: true, cacheFolder: path }).snp(report)).rejects.toMatchObject({
      code: 'endorsements_unavailable',
    });
    const again = await endorsements({ kdsUrl: service.url, cacheFolder: path }).snp(report);
    expect(
      (await verifySnp({ report, ...again }, RELAXED, { now: new Date(start), roots: [amd.ark] })).accepted,
    ).toBe(true);
  });

  test('a clock that is wrong for a while loses nothing', async () => {
    const service = await serve(kds());
    const path = await folder();
    const report = await amd.signReport();
    await endorsements({ kdsUrl: service.url, cacheFolder: path }).snp(report);
    const confused = endorsements({ offline: true, cacheFolder: path, now: () => start - 4000 * DAY });
    await expect(confused.snp(report)).rejects.toMatchObject({ code: 'endorsements_unavailable' });
    await endorsements({ offline: true, cacheFolder: path }).snp(report);
  });

  test('the folder is bounded: the oldest files go', async () => {
    const path = await folder();
    const old = new Date(start - DAY);
    const names = Array.from({ length: 16 }, (_, i) =>
      join(path, `${i.toString(16).padStart(64, '0')}.json`),
    );
    for (const name of names) await writeFile(name, '{}');
    await Promise.all(names.map((name) => utimes(name, old, old)));
    const store = folderStore(path, 16);
    await store.put({ key: 'new', fetchedAt: start, parts: { a: Uint8Array.of(1) } });
    expect((await readdir(path)).length).toBe(8);
    expect(await store.get('new')).toEqual({ key: 'new', fetchedAt: start, parts: { a: Uint8Array.of(1) } });
  });

  test('offline and empty says so', async () => {
    await expect(endorsements({ offline: true }).snp(await amd.signReport())).rejects.toMatchObject({
      code: 'endorsements_unavailable',
      message: expect.stringContaining('no network') as unknown,
    });
  });
});

describe('stored endorsements', () => {
  test('that say they were fetched in the future are fetched anew', async () => {
    const intel = await createSimulatedIntel({ now: new Date(NOW) });
    const { endorsements, signingChainPem } = intel;
    const parts = (body: Uint8Array | string, chain = signingChainPem): StoredItem['parts'] => ({
      body: typeof body === 'string' ? utf8(body) : body,
      chain: utf8(chain),
    });
    const fetchedAt = Number.MAX_SAFE_INTEGER;
    const store = memoryStore([
      { key: 'pcs/qe-identity/standard', fetchedAt, parts: parts(endorsements.qeIdentity) },
      { key: `pcs/tcb/standard/${toHex(intel.fmspc)}`, fetchedAt, parts: parts(endorsements.tcbInfo) },
      {
        key: 'pcs/pckcrl/platform',
        fetchedAt,
        parts: parts(endorsements.pckCrl, endorsements.pckCrlIssuerChain),
      },
      { key: 'pcs/rootcacrl', fetchedAt, parts: parts(endorsements.rootCaCrl) },
    ]);
    const asked: string[] = [];
    const server = createServer((request, response) => {
      asked.push(request.url ?? '');
      response.writeHead(404).end();
    });
    await new Promise<void>((resolve) => {
      server.listen(0, '127.0.0.1', resolve);
    });
    onTestFinished(() => void server.close());
    const { port } = server.address() as AddressInfo;
    const source = createEndorsements({
      store,
      now: () => NOW,
      pcsUrl: `http://127.0.0.1:${port}`,
      roots: { intel: [intel.root] },
    });
    onTestFinished(() => source.close());
    const found = await source.tdx(await intel.signQuote());
    expect(found.qeIdentity).toBe(endorsements.qeIdentity);
    expect(asked).toHaveLength(4);
  });
});
