// Fetching endorsements from local servers that speak the protocols of AMD KDS, Intel PCS and PCCS, well and badly:
// nothing is believed or kept before it verifies, and nobody is asked more than they said they can bear.

import { mkdtemp, readdir, readFile, rm, utimes, writeFile } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { connect, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { toHex } from '../../../../attestation/encoding/bytes.ts';
import { AttestationError } from '../../../../attestation/transcript/errors.ts';
import { bundleStore, exportBundle, parseBundle } from '../../../../attestation/node/endorsements/bundle.ts';
import { importBundle } from '../../../../attestation/node/endorsements/bundle-import.ts';
import { commandBundle } from '../../../../attestation/node/cli/offline.ts';
import type { CliWorld } from '../../../../attestation/node/cli/world.ts';
import {
  createEndorsements,
  proxyFromEnvironment,
  type EndorsementOptions,
  type Endorsements,
} from '../../../../attestation/node/endorsements/endorsements.ts';
import { retryAfter } from '../../../../attestation/node/endorsements/http.ts';
import { folderStore, memoryStore } from '../../../../attestation/node/endorsements/store.ts';
import {
  createSimulatedAmd,
  type SimulatedAmd,
  type SimulatedAmdKeys,
} from '../../../../attestation/simulated/amd.ts';
import { createSimulatedIntel, type SimulatedIntel } from '../../../../attestation/simulated/intel.ts';
import { corruptSignature, encodePem } from '../../../../attestation/simulated/issue.ts';
import { verifySnp } from '../../../../attestation/snp/verify.ts';
import { verifyTdx } from '../../../../attestation/tdx/verify.ts';

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

const DAY = 86_400_000;
const start = new Date('2026-06-15T12:00:00Z').getTime();
const RELAXED = { guestPolicy: {} } as const;

let amd: SimulatedAmd;
let amdKeys: SimulatedAmdKeys;
let turin: SimulatedAmd;
let intel: SimulatedIntel;
let stranger: SimulatedIntel;

beforeAll(async () => {
  amd = await createSimulatedAmd({ now: new Date(start), rsaBits: 2048 });
  amdKeys = await amd.exportKeys();
  turin = await createSimulatedAmd({ now: new Date(start), rsaBits: 2048, product: 'Turin' });
  intel = await createSimulatedIntel({ now: new Date(start) });
  stranger = await createSimulatedIntel({ now: new Date(start) });
}, 120_000);

function two(value: number | undefined): string {
  return String(value ?? 0).padStart(2, '0');
}

type Handler = (request: IncomingMessage, response: ServerResponse) => void | Promise<void>;
interface Service {
  readonly url: string;
  readonly asked: string[];
  readonly server: Server;
}
const SERVICES: Server[] = [];
const OPENED: Endorsements[] = [];
const FOLDERS: string[] = [];

async function serve(handler: Handler): Promise<Service> {
  const asked: string[] = [];
  const server = createServer((request, response) => {
    asked.push(request.url ?? '');
    void Promise.resolve(handler(request, response)).catch(() => response.destroy());
  });
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  SERVICES.push(server);
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, asked, server };
}

function closeServer(server: Server): Promise<void> {
  server.closeAllConnections();
  return new Promise((resolve) => {
    server.close(() => resolve());
  });
}

afterEach(async () => {
  await Promise.all(OPENED.splice(0).map((item) => item.close()));
  await Promise.all(SERVICES.splice(0).map(closeServer));
});
afterAll(async () => {
  await Promise.all(FOLDERS.map((folder) => rm(folder, { recursive: true, force: true })));
});

async function folder(): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'assay-endorsements-'));
  FOLDERS.push(path);
  return path;
}

/** A clock that only sleeping moves. */
function clock(at = start): {
  readonly now: () => number;
  readonly sleep: EndorsementOptions['sleep'] & object;
  readonly slept: number[];
  time: number;
} {
  const state = {
    time: at,
    slept: [] as number[],
    now: () => state.time,
    sleep: (ms: number) => {
      state.slept.push(ms);
      state.time += ms;
      return Promise.resolve();
    },
  };
  return state;
}

function endorsements(options: EndorsementOptions): Endorsements {
  const made = createEndorsements({
    now: () => start,
    random: () => 0,
    sleep: () => Promise.resolve(),
    roots: { amd: [amd.ark, turin.ark], intel: [intel.root] },
    ...options,
  });
  OPENED.push(made);
  return made;
}

function send(
  response: ServerResponse,
  body: Uint8Array | string,
  headers: Record<string, string> = {},
): void {
  response.writeHead(200, { 'content-type': 'application/octet-stream', ...headers });
  response.end(body);
}

/** KDS for the two simulated hierarchies; `wrong` may answer instead. */
function kds(wrong: (path: string, response: ServerResponse) => boolean = () => false): Handler {
  return (request, response) => {
    const path = request.url ?? '';
    if (wrong(path, response)) return;
    const hierarchy = path.includes('/Turin/') ? turin : amd;
    if (path.endsWith('/cert_chain')) send(response, encodePem(hierarchy.ask) + encodePem(hierarchy.ark));
    else if (path.endsWith('/crl')) send(response, hierarchy.crl);
    else if (/^\/vcek\/v1\/(Genoa|Turin)\/[0-9a-f]+\?/.test(path)) send(response, hierarchy.vek);
    else response.writeHead(404).end();
  };
}

/** PCS (or a PCCS, which sends the root CRL as hex). */
function pcs(
  wrong: (path: string, response: ServerResponse) => boolean = () => false,
  from: () => SimulatedIntel = () => intel,
): Handler {
  return async (request, response) => {
    const path = request.url ?? '';
    if (wrong(path, response)) return;
    const simulated = from();
    const chain = encodeURIComponent(simulated.signingChainPem);
    const json = { 'content-type': 'application/json' };
    if (path.startsWith('/tdx/certification/v4/tcb?'))
      send(response, await simulated.tcbInfo(), { ...json, 'TCB-Info-Issuer-Chain': chain });
    else if (path.startsWith('/tdx/certification/v4/qe/identity'))
      send(response, await simulated.qeIdentity(), { ...json, 'SGX-Enclave-Identity-Issuer-Chain': chain });
    else if (path.startsWith('/sgx/certification/v4/pckcrl?ca=platform&encoding=der'))
      send(response, await simulated.issueCrl('platform'), {
        'SGX-PCK-CRL-Issuer-Chain': encodeURIComponent(
          encodePem(simulated.pckCa) + encodePem(simulated.root),
        ),
      });
    else if (path === '/sgx/certification/v4/rootcacrl')
      send(response, toHex(await simulated.issueCrl('root')), { 'content-type': 'application/text' });
    else response.writeHead(404).end();
  };
}

describe('AMD KDS', () => {
  test('fetches chain, VCEK and CRL by product, chip and TCB, and the evidence verifies with them', async () => {
    const service = await serve(kds());
    const report = await amd.signReport();
    const fetched = await endorsements({ kdsUrl: service.url }).snp(report);
    const { bootloader, tee, snp, microcode } = amd.tcb;
    expect(service.asked).toEqual([
      '/vcek/v1/Genoa/cert_chain',
      `/vcek/v1/Genoa/${toHex(amd.chipId)}?blSPL=${bootloader}&teeSPL=0${tee}&snpSPL=${snp}&ucodeSPL=${microcode}`,
      '/vcek/v1/Genoa/crl',
    ]);
    const result = await verifySnp({ report, ...fetched }, RELAXED, {
      now: new Date(start),
      roots: [amd.ark],
    });
    expect(result.accepted).toBe(true);
  });

  test('Turin: eight bytes of chip id, and the FMC in the query', async () => {
    const service = await serve(kds());
    await endorsements({ kdsUrl: service.url }).snp(await turin.signReport());
    const { fmc, bootloader, tee, snp, microcode } = turin.tcb;
    expect(service.asked[1]).toBe(
      `/vcek/v1/Turin/${toHex(turin.chipId.subarray(0, 8))}?fmcSPL=${two(fmc)}&blSPL=${two(bootloader)}&teeSPL=${two(tee)}&snpSPL=${two(snp)}&ucodeSPL=${two(microcode)}`,
    );
  });

  test('a second report of the same chip asks nothing; another TCB asks for another VCEK, and only that', async () => {
    const service = await serve(kds());
    const source = endorsements({ kdsUrl: service.url });
    await source.snp(await amd.signReport());
    expect(service.asked.length).toBe(3);
    await source.snp(await amd.signReport({ guestSvn: 1 }));
    expect(service.asked.length).toBe(3);
    const newer = { ...amd.tcb, microcode: amd.tcb.microcode + 1 };
    const updated = await createSimulatedAmd({ now: new Date(start), keys: amdKeys, tcb: newer });
    // The service still hands out the old VCEK: it is for another TCB, refused, and not kept.
    await expect(source.snp(await updated.signReport())).rejects.toMatchObject({
      code: 'endorsements_invalid',
    });
    expect(service.asked.slice(3).map((path) => path.replace(/.*\?/, ''))).toEqual([
      `blSPL=${newer.bootloader}&teeSPL=00&snpSPL=${newer.snp}&ucodeSPL=${newer.microcode}`,
    ]);
    expect(
      (await source.store.items()).filter(
        ({ key }) => key.startsWith('kds/vcek/Genoa/') && key.split('/').length === 5,
      ).length,
    ).toBe(1);
  });

  test('ten at once are one fetch per item', async () => {
    const service = await serve(kds());
    const source = endorsements({ kdsUrl: service.url });
    const report = await amd.signReport();
    await Promise.all(Array.from({ length: 10 }, () => source.snp(report)));
    expect(service.asked.length).toBe(3);
  });

  test.each([
    [
      'a chain of another hierarchy',
      '/cert_chain',
      async () => Promise.resolve(encodePem(turin.ask) + encodePem(turin.ark)),
    ],
    [
      'a chain with a wrong signature',
      '/cert_chain',
      async () => Promise.resolve(encodePem(corruptSignature(amd.ask)) + encodePem(amd.ark)),
    ],
    [
      'the ASVK in place of the ASK',
      '/cert_chain',
      async () => Promise.resolve(encodePem(amd.asvk) + encodePem(amd.ark)),
    ],
    ['one certificate', '/cert_chain', async () => Promise.resolve(encodePem(amd.ask))],
    ['the VCEK of another chip', '?', async () => amd.issueVek({ chipId: new Uint8Array(64).fill(9) })],
    ['a VCEK of another TCB', '?', async () => amd.issueVek({ tcb: { ...amd.tcb, snp: 1 } })],
    ['a VCEK by a stranger', '?', async () => amd.issueVek({ signer: turin.keys.ask })],
    ['an expired VCEK', '?', async () => amd.issueVek({ notAfter: new Date(start - 1000) })],
    ['a CRL by a stranger', '/crl', async () => amd.issueCrl({ signer: turin.keys.ark })],
    ['an old CRL', '/crl', async () => amd.issueCrl({ nextUpdate: new Date(start) })],
    ['rubbish', '/crl', async () => Promise.resolve('rubbish')],
  ] as const)('%s is refused and not kept', async (_name, where, make) => {
    const body = await make();
    const service = await serve(
      kds((path, response) => {
        if (!path.includes(where)) return false;
        send(response, body);
        return true;
      }),
    );
    const path = await folder();
    const source = endorsements({ kdsUrl: service.url, cacheFolder: path });
    await expect(source.snp(await amd.signReport())).rejects.toBeInstanceOf(AttestationError);
    const kept = await source.store.items();
    expect(kept.some(({ key }) => (where === '?' ? key.split('/').length === 5 : key.endsWith(where)))).toBe(
      false,
    );
  });

  test('a VLEK or a masked chip id cannot be asked for', async () => {
    const service = await serve(kds());
    const source = endorsements({ kdsUrl: service.url });
    await expect(source.snp(await amd.signReport({ keyInfo: 1 << 2 }))).rejects.toMatchObject({
      kind: 'unsupported',
      code: 'endorsements_unavailable',
    });
    await expect(source.snp(await amd.signReport({ chipId: new Uint8Array(64) }))).rejects.toMatchObject({
      code: 'endorsements_unavailable',
    });
    expect(service.asked).toEqual([]);
  });
});

describe('Intel PCS and PCCS', () => {
  test('fetches TCB info, QE identity and both CRLs with their chains, and the evidence verifies with them', async () => {
    const service = await serve(pcs());
    const quote = await intel.signQuote();
    const collateral = await endorsements({ pcsUrl: service.url }).tdx(quote);
    expect(service.asked.toSorted()).toEqual([
      '/sgx/certification/v4/pckcrl?ca=platform&encoding=der',
      '/sgx/certification/v4/rootcacrl',
      '/tdx/certification/v4/qe/identity?update=standard',
      `/tdx/certification/v4/tcb?fmspc=${toHex(intel.fmspc)}&update=standard`,
    ]);
    expect(
      (await verifyTdx({ quote, collateral }, {}, { now: new Date(start), roots: [intel.root] })).accepted,
    ).toBe(true);
  });

  test('the early set is another item', async () => {
    const service = await serve(pcs());
    const source = endorsements({ pcsUrl: `${service.url}/`, tcbUpdate: 'early' });
    await source.tdx(await intel.signQuote());
    expect(service.asked.filter((path) => path.includes('update=early')).length).toBe(2);
    expect((await source.store.items()).map(({ key }) => key)).toContain(
      `pcs/tcb/early/${toHex(intel.fmspc)}`,
    );
  });

  test('what goes stale is fetched anew after a day; a service that is down then does no harm while the old is valid', async () => {
    const time = clock();
    let current = intel;
    let down = false;
    const service = await serve(
      pcs(
        (_path, response) => {
          if (down) response.writeHead(503).end();
          return down;
        },
        () => current,
      ),
    );
    const source = endorsements({ pcsUrl: service.url, now: time.now, sleep: time.sleep, maxTries: 2 });
    const quote = await intel.signQuote();
    const first = await source.tdx(quote);
    time.time += DAY / 2;
    await source.tdx(quote);
    expect(service.asked.length).toBe(4);
    current = await createSimulatedIntel({
      now: new Date(start + DAY),
      keys: await intel.exportKeys(),
      ppid: intel.ppid,
    });
    time.time += DAY;
    const second = await source.tdx(quote);
    expect(second.tcbInfo).not.toBe(first.tcbInfo);
    down = true;
    time.time += 2 * DAY;
    expect((await source.tdx(quote)).tcbInfo).toBe(second.tcbInfo);
    time.time += 60 * DAY;
    await expect(source.tdx(quote)).rejects.toMatchObject({ code: 'endorsements_unavailable' });
  });

  test('an older issue, still valid, does not replace a newer one', async () => {
    const time = clock();
    let current = await createSimulatedIntel({ now: new Date(start), keys: await intel.exportKeys() });
    const older = await createSimulatedIntel({
      now: new Date(start - 5 * DAY),
      keys: await intel.exportKeys(),
    });
    const service = await serve(pcs(undefined, () => current));
    const source = endorsements({ pcsUrl: service.url, now: time.now });
    const quote = await intel.signQuote();
    const first = await source.tdx(quote);
    current = older;
    time.time += 2 * DAY;
    expect((await source.tdx(quote)).tcbInfo).toBe(first.tcbInfo);
  });

  test.each([
    [
      'TCB info of another FMSPC',
      '/tcb?',
      async () => intel.tcbInfo({ fmspc: new Uint8Array(6) }),
      'tcb-info-issuer-chain',
      (): string => intel.signingChainPem,
    ],
    [
      'TCB info changed after signing',
      '/tcb?',
      async () => (await intel.tcbInfo()).replace('"pcesvn":13', '"pcesvn":1'),
      'tcb-info-issuer-chain',
      (): string => intel.signingChainPem,
    ],
    [
      'TCB info under a stranger’s root',
      '/tcb?',
      async () => stranger.tcbInfo(),
      'tcb-info-issuer-chain',
      (): string => stranger.signingChainPem,
    ],
    [
      'TCB info signed by the PCK chain',
      '/tcb?',
      async () => intel.tcbInfo({ signer: intel.keys.platform }),
      'tcb-info-issuer-chain',
      (): string => encodePem(intel.pckCa) + encodePem(intel.root),
    ],
    [
      'stale TCB info',
      '/tcb?',
      async () => intel.tcbInfo({ nextUpdate: new Date(start) }),
      'tcb-info-issuer-chain',
      (): string => intel.signingChainPem,
    ],
    ['TCB info without a chain', '/tcb?', async () => intel.tcbInfo(), 'x-nothing', (): string => ''],
    [
      'an identity of another enclave',
      '/qe/identity',
      async () => intel.qeIdentity({ members: (list) => ({ ...list, id: 'QVE' }) }),
      'sgx-enclave-identity-issuer-chain',
      (): string => intel.signingChainPem,
    ],
    [
      'the CRL of the other CA',
      '/pckcrl',
      async () => intel.issueCrl('processor'),
      'sgx-pck-crl-issuer-chain',
      (): string => encodePem(intel.pckCa) + encodePem(intel.root),
    ],
    [
      'a root CRL by a stranger',
      '/rootcacrl',
      async () => stranger.issueCrl('root'),
      'x-nothing',
      (): string => '',
    ],
  ] as const)('%s is refused and not kept', async (_name, where, make, header, chain) => {
    const body = await make();
    const service = await serve(
      pcs((path, response) => {
        if (!path.includes(where)) return false;
        send(response, body, { [header]: encodeURIComponent(chain()) });
        return true;
      }),
    );
    const source = endorsements({ pcsUrl: service.url });
    await expect(source.tdx(await intel.signQuote())).rejects.toBeInstanceOf(AttestationError);
    const bad = await source.store.items();
    const name =
      where === '/tcb?' ? 'pcs/tcb/' : where === '/qe/identity' ? 'pcs/qe-identity' : `pcs${where}`;
    expect(bad.some(({ key }) => key.startsWith(name))).toBe(false);
  });
});

describe('a service that misbehaves', () => {
  test('429 with Retry-After is waited for, with jitter, and holds back the next request too', async () => {
    const time = clock();
    let refusals = 2;
    const service = await serve(
      kds((_path, response) => {
        if (refusals === 0) return false;
        refusals -= 1;
        response.writeHead(429, { 'retry-after': '10' }).end();
        return true;
      }),
    );
    await endorsements({ kdsUrl: service.url, now: time.now, sleep: time.sleep, random: () => 0.5 }).snp(
      await amd.signReport(),
    );
    expect(time.slept).toEqual([10_250, 10_250]);
    expect(service.asked.length).toBe(5);
  });

  test('without it, back-off doubles and is jittered; after the last try the error says what happened', async () => {
    const time = clock();
    const service = await serve((_request, response) => void response.writeHead(500).end());
    const source = endorsements({
      kdsUrl: service.url,
      now: time.now,
      sleep: time.sleep,
      random: () => 0,
      maxTries: 4,
    });
    await expect(source.snp(await amd.signReport())).rejects.toMatchObject({
      kind: 'internal',
      code: 'endorsements_unavailable',
      message: expect.stringContaining('status 500') as unknown,
    });
    expect(time.slept).toEqual([250, 500, 1000]);
    expect(service.asked.length).toBe(4);
  });

  test('a wait longer than patience ends at once', async () => {
    const time = clock();
    const service = await serve(
      (_request, response) => void response.writeHead(429, { 'retry-after': '86400' }).end(),
    );
    await expect(
      endorsements({ kdsUrl: service.url, now: time.now, sleep: time.sleep }).snp(await amd.signReport()),
    ).rejects.toMatchObject({ code: 'endorsements_unavailable' });
    expect([service.asked.length, time.slept.length]).toEqual([1, 0]);
  });

  test.each([
    ['404', (response: ServerResponse) => void response.writeHead(404).end(), 'status 404'],
    [
      'a redirect',
      (response: ServerResponse) => void response.writeHead(302, { location: 'http://127.0.0.1:1/' }).end(),
      'status 302',
    ],
    [
      'HTML',
      (response: ServerResponse) =>
        void response
          .writeHead(200, { 'content-type': 'text/html; charset=utf-8' })
          .end('<html>sign in</html>'),
      'HTML',
    ],
    [
      'compression nobody asked for',
      (response: ServerResponse) => void response.writeHead(200, { 'content-encoding': 'gzip' }).end('x'),
      'content-encoding',
    ],
    [
      'a length over the limit',
      (response: ServerResponse) =>
        void response.writeHead(200, { 'content-length': String(1 << 30) }).end('x'),
      'over 65536 bytes',
    ],
  ])('%s is final: one request', async (_name, answer, says) => {
    const service = await serve((_request, response) => answer(response));
    const source = endorsements({ kdsUrl: service.url });
    await expect(source.snp(await amd.signReport())).rejects.toMatchObject({
      code: 'endorsements_unavailable',
      message: expect.stringContaining(says) as unknown,
    });
    expect(service.asked.length).toBe(1);
  });

  test('an endless body is cut off at the limit', async () => {
    const service = await serve((_request, response) => {
      response.writeHead(200);
      const more = (): void => {
        if (response.destroyed) return;
        response.write(new Uint8Array(16_384).fill(0x30), () => setImmediate(more));
      };
      more();
    });
    await expect(endorsements({ kdsUrl: service.url }).snp(await amd.signReport())).rejects.toMatchObject({
      message: expect.stringContaining('over 65536 bytes') as unknown,
    });
  });

  test('a server that never answers is given up', async () => {
    // The limit must be one that the garbage collector cannot take away.
    const service = await serve(() => void setTimeout(collectGarbage, 100));
    await expect(
      endorsements({ kdsUrl: service.url, requestTimeoutMs: 500, maxTries: 2 }).snp(await amd.signReport()),
    ).rejects.toMatchObject({ message: expect.stringContaining('no answer within 500 ms') as unknown });
    expect(service.asked.length).toBe(2);
  });

  test('nobody listening, and closing while waiting, end in the typed error', async () => {
    const gone = await serve(() => undefined);
    await closeServer(gone.server);
    await expect(
      endorsements({ kdsUrl: gone.url, maxTries: 2 }).snp(await amd.signReport()),
    ).rejects.toMatchObject({
      code: 'endorsements_unavailable',
      message: expect.stringContaining('ECONNREFUSED') as unknown,
    });
    const silent = await serve(() => closing.close());
    const closing = endorsements({ kdsUrl: silent.url });
    await expect(closing.snp(await amd.signReport())).rejects.toMatchObject({
      message: expect.stringContaining('stopped') as unknown,
    });
  });

  test('Retry-After in both forms', () => {
    expect(retryAfter('7', start)).toBe(7000);
    expect(retryAfter('Mon, 15 Jun 2026 12:00:09 GMT', start)).toBe(9000);
    expect(retryAfter('Mon, 15 Jun 2026 11:00:00 GMT', start)).toBe(0);
    expect([retryAfter('soon', start), retryAfter(undefined, start)]).toEqual([undefined, undefined]);
  });
});

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

describe('the offline bundle', () => {
  test('is exported, carried and used without a network, for both vendors', async () => {
    const [amdService, intelService] = [await serve(kds()), await serve(pcs())];
    const online = endorsements({ kdsUrl: amdService.url, pcsUrl: intelService.url });
    const [report, quote] = [await amd.signReport(), await intel.signQuote()];
    await online.snp(report);
    await online.tdx(quote);
    const bundle = await exportBundle(online.store);
    const offline = endorsements({ offline: true, store: bundleStore(bundle) });
    expect(await offline.source({ format: 'snp', report })).toEqual(await online.snp(report));
    expect(await offline.source({ format: 'tdx', report: quote })).toEqual(await online.tdx(quote));
    const path = await folder();
    expect(await importBundle(bundle, folderStore(path))).toBe(7);
    await endorsements({ offline: true, cacheFolder: path }).tdx(quote);
  });

  test('an item of a store gives way to a newer one that verifies, and to nothing else', async () => {
    const hour = new Date(start - 3_600_000);
    const [report, quote] = [await amd.signReport(), await intel.signQuote()];
    const bundleOf = async (
      amdService: Service,
      intelService: Service,
      roots = [intel.root],
    ): Promise<string> => {
      const online = endorsements({
        kdsUrl: amdService.url,
        pcsUrl: intelService.url,
        roots: { amd: [amd.ark], intel: roots },
      });
      await online.snp(report);
      await online.tdx(roots[0] === intel.root ? quote : await stranger.signQuote());
      return exportBundle(online.store);
    };
    const older = await bundleOf(await serve(kds()), await serve(pcs()));
    const crl = await amd.issueCrl({ thisUpdate: hour, number: 2 });
    const info = await intel.tcbInfo({ issueDate: hour });
    const chain = {
      'content-type': 'application/json',
      'TCB-Info-Issuer-Chain': encodeURIComponent(intel.signingChainPem),
    };
    const newer = await bundleOf(
      await serve(kds((path, response) => path.endsWith('/crl') && (send(response, crl), true))),
      await serve(pcs((path, response) => path.includes('/v4/tcb?') && (send(response, info, chain), true))),
    );
    const forged = await bundleOf(await serve(kds()), await serve(pcs(undefined, () => stranger)), [
      stranger.root,
    ]);
    const options = { roots: { amd: [amd.ark], intel: [intel.root] }, now: () => start };
    const store = memoryStore();
    const held = async (): Promise<unknown[]> => {
      const offline = endorsements({ offline: true, store });
      return [(await offline.snp(report)).crl, (await offline.tdx(quote)).tcbInfo];
    };

    expect(await importBundle(newer, store, options)).toBe(7);
    expect(await held()).toEqual([crl, info]);
    expect(await importBundle(older, store, options)).toBe(0);
    expect(await importBundle(forged, store, options)).toBe(0);
    expect(await importBundle(newer, store, options)).toBe(0);
    expect(await held()).toEqual([crl, info]);

    // The other way round the two that changed are taken; what was damaged is mended by any that verifies.
    const second = memoryStore(parseBundle(older));
    expect(await importBundle(newer, second, options)).toBe(2);
    const vcek = (await second.items()).find(({ key }) => key.includes(toHex(amd.chipId)));
    await second.put({ key: vcek?.key ?? '', fetchedAt: start, parts: { vek: Uint8Array.of(0x30) } });
    expect(await importBundle(older, second, options)).toBe(1);
    expect(await second.get(vcek?.key ?? '')).toEqual(vcek);

    // A key nobody asks for is not worth replacing anything.
    const odd = memoryStore([{ key: 'kds/vcek/Naples/crl', fetchedAt: 1, parts: {} }]);
    expect(
      await importBundle(
        await exportBundle(memoryStore([{ key: 'kds/vcek/Naples/crl', fetchedAt: 2, parts: {} }])),
        odd,
        options,
      ),
    ).toBe(0);
  });

  test('assay-verify bundle prints what assay-verify --cache kept', async () => {
    const service = await serve(kds());
    const path = await folder();
    await endorsements({ kdsUrl: service.url, cacheFolder: join(path, 'endorsements') }).snp(
      await amd.signReport(),
    );
    const printed: string[] = [];
    await commandBundle({ name: 'bundle', cacheFolder: path }, {
      stdout: (text: string) => printed.push(text),
    } as unknown as CliWorld);
    expect(parseBundle(printed.join('')).length).toBe(3);
  });

  test('a forged item in a bundle is not believed', async () => {
    const service = await serve(pcs(undefined, () => stranger));
    const forger = endorsements({ pcsUrl: service.url, roots: { intel: [stranger.root] } });
    await forger.tdx(await stranger.signQuote());
    const offline = endorsements({ offline: true, store: bundleStore(await exportBundle(forger.store)) });
    await expect(offline.tdx(await intel.signQuote())).rejects.toMatchObject({
      code: 'endorsements_unavailable',
    });
  });

  test.each([
    '',
    '{}',
    '[]',
    '{"format":"assay-endorsements","version":2,"items":[]}',
    '{"format":"assay-endorsements","version":1,"items":[{}]}',
    '{"format":"assay-endorsements","version":1,"items":[{"key":"k","fetchedAt":1,"parts":{"a":"*"}}]}',
  ])('the bundle %j is malformed', (text) => {
    expect(() => parseBundle(text)).toThrow(AttestationError);
  });
});

describe('proxies', () => {
  test('requests go through the proxy given, as a tunnel', async () => {
    const service = await serve(kds());
    const tunnels: string[] = [];
    const proxy = createServer();
    proxy.on('connect', (request, socket, head) => {
      tunnels.push(request.url ?? '');
      const [host = '', port = ''] = (request.url ?? '').split(':');
      const upstream = connect(Number(port), host, () => {
        socket.write('HTTP/1.1 200 OK\r\n\r\n');
        upstream.write(head);
        upstream.pipe(socket).pipe(upstream);
      });
      upstream.on('error', () => socket.destroy());
      socket.on('error', () => upstream.destroy());
    });
    await new Promise<void>((resolve) => {
      proxy.listen(0, '127.0.0.1', resolve);
    });
    SERVICES.push(proxy);
    const at = `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`;
    await endorsements({ kdsUrl: service.url, proxy: { httpProxy: at, httpsProxy: at } }).snp(
      await amd.signReport(),
    );
    expect(tunnels.length).toBeGreaterThan(0);
    const before = tunnels.length;
    await endorsements({
      kdsUrl: service.url,
      proxy: { httpProxy: at, httpsProxy: at, noProxy: '127.0.0.1' },
    }).snp(await amd.signReport());
    expect(tunnels.length).toBe(before);
  });

  test('settings come from an environment that is handed in', () => {
    expect(proxyFromEnvironment({ HTTPS_PROXY: 'http://p:1', no_proxy: 'x' })).toEqual({
      httpsProxy: 'http://p:1',
      noProxy: 'x',
    });
    expect(proxyFromEnvironment({ NO_PROXY: 'x', HTTPS_PROXY: '' })).toBeUndefined();
  });
});

test('a memory store is bounded', async () => {
  const store = memoryStore();
  for (let i = 0; i < 4200; i++) await store.put({ key: String(i), fetchedAt: 0, parts: {} });
  expect((await store.items()).length).toBe(4096);
});
