// Fetching from AMD KDS: an answer is believed and kept only after it verifies.

import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { describe, expect, test, onTestFinished } from 'vitest';
import { toHex } from '../../../../attestation/encoding/bytes.ts';
import { AttestationError } from '../../../../attestation/transcript/errors.ts';
import { createSimulatedAmd, type SimulatedAmd } from '../../../../attestation/simulated/amd.ts';
import { corruptSignature, encodePem } from '../../../../attestation/simulated/issue.ts';
import { verifySnp } from '../../../../attestation/snp/verify.ts';
import {
  start,
  RELAXED,
  amd,
  amdKeys,
  turin,
  two,
  serve,
  folder,
  endorsements,
  send,
  kds,
} from '../../../fixtures/attestation/endorsement-services.ts';
import { createEndorsements } from '../../../../attestation/node/endorsements/endorsements.ts';
import { NOW, simulatedAmd } from '../../../fixtures/attestation/attested-server.ts';
import { codeOfAsync } from '../../../fixtures/refusal.ts';

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

describe('AMD’s service', () => {
  /** One that hands out a hierarchy made here, for Genoa only. */
  async function startKds(amd: SimulatedAmd): Promise<string> {
    const pem = encodePem(amd.ask) + encodePem(amd.ark);
    const server = createServer(({ url = '' }, response) => {
      const path = /^\/vcek\/v1\/Genoa\/(cert_chain|crl|[0-9a-f]{128}\?)/.exec(url)?.[1];
      if (path === undefined) response.statusCode = 404;
      const bodies: Readonly<Record<string, string | Uint8Array>> = { cert_chain: pem, crl: amd.crl };
      response.end(path === undefined ? '' : (bodies[path] ?? amd.vek));
    });
    await new Promise<void>((resolve) => {
      server.listen(0, '127.0.0.1', resolve);
    });
    onTestFinished(() => void server.close());
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  }

  test('cannot bring its own root, and nothing of it is kept', async () => {
    const amd = await simulatedAmd();
    const source = createEndorsements({ kdsUrl: await startKds(amd), now: () => NOW });
    onTestFinished(() => source.close());
    const report = await amd.signReport();
    expect(await codeOfAsync(() => source.snp(report))).toBe('endorsements_invalid');
    expect(await source.store.items()).toEqual([]);
  });

  test('is asked for each product a report without CPUID may be of', async () => {
    const amd = await simulatedAmd();
    const source = createEndorsements({
      kdsUrl: await startKds(amd),
      now: () => NOW,
      roots: { amd: [amd.ark] },
    });
    onTestFinished(() => source.close());
    const { vek } = await source.snp(await amd.signReport({ version: 2 }));
    expect(toHex(vek)).toBe(toHex(amd.vek));
  });
});
