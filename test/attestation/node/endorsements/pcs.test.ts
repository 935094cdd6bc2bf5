// Fetching from Intel PCS and PCCS: an answer is believed and kept only after it verifies.

import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { describe, expect, test, onTestFinished } from 'vitest';
import { toHex } from '../../../../attestation/encoding/bytes.ts';
import { AttestationError } from '../../../../attestation/transcript/errors.ts';
import { createSimulatedIntel, type SimulatedIntel } from '../../../../attestation/simulated/intel.ts';
import { encodePem } from '../../../../attestation/simulated/issue.ts';
import { verifyTdx } from '../../../../attestation/tdx/verify.ts';
import {
  DAY,
  start,
  intel,
  stranger,
  serve,
  clock,
  endorsements,
  send,
  pcs,
} from '../../../fixtures/attestation/endorsement-services.ts';
import { createEndorsements } from '../../../../attestation/node/endorsements/endorsements.ts';
import { NOW } from '../../../fixtures/attestation/attested-server.ts';
import { codeOfAsync, refusalOf } from '../../../fixtures/refusal.ts';

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
      { header: 'tcb-info-issuer-chain', chain: (): string => intel.signingChainPem },
    ],
    [
      'TCB info changed after signing',
      '/tcb?',
      async () => (await intel.tcbInfo()).replace('"pcesvn":13', '"pcesvn":1'),
      { header: 'tcb-info-issuer-chain', chain: (): string => intel.signingChainPem },
    ],
    [
      'TCB info under a stranger’s root',
      '/tcb?',
      async () => stranger.tcbInfo(),
      { header: 'tcb-info-issuer-chain', chain: (): string => stranger.signingChainPem },
    ],
    [
      'TCB info signed by the PCK chain',
      '/tcb?',
      async () => intel.tcbInfo({ signer: intel.keys.platform }),
      {
        header: 'tcb-info-issuer-chain',
        chain: (): string => encodePem(intel.pckCa) + encodePem(intel.root),
      },
    ],
    [
      'stale TCB info',
      '/tcb?',
      async () => intel.tcbInfo({ nextUpdate: new Date(start) }),
      { header: 'tcb-info-issuer-chain', chain: (): string => intel.signingChainPem },
    ],
    [
      'TCB info without a chain',
      '/tcb?',
      async () => intel.tcbInfo(),
      { header: 'x-nothing', chain: (): string => '' },
    ],
    [
      'an identity of another enclave',
      '/qe/identity',
      async () => intel.qeIdentity({ members: (list) => ({ ...list, id: 'QVE' }) }),
      { header: 'sgx-enclave-identity-issuer-chain', chain: (): string => intel.signingChainPem },
    ],
    [
      'the CRL of the other CA',
      '/pckcrl',
      async () => intel.issueCrl('processor'),
      {
        header: 'sgx-pck-crl-issuer-chain',
        chain: (): string => encodePem(intel.pckCa) + encodePem(intel.root),
      },
    ],
    [
      'a root CRL by a stranger',
      '/rootcacrl',
      async () => stranger.issueCrl('root'),
      { header: 'x-nothing', chain: (): string => '' },
    ],
  ] as const)('%s is refused and not kept', async (_name, where, make, { header, chain }) => {
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
    const name = { '/tcb?': 'pcs/tcb/', '/qe/identity': 'pcs/qe-identity' }[where as string] ?? `pcs${where}`;
    expect(bad.some(({ key }) => key.startsWith(name))).toBe(false);
  });
});

describe('Intel’s service', () => {
  test.each<
    [string, (good: SimulatedIntel, stranger: SimulatedIntel) => [body: string, chain: string | undefined]]
  >([
    ['with a root of its own', (_, stranger) => [stranger.endorsements.qeIdentity, stranger.signingChainPem]],
    ['without an issuer chain', ({ endorsements }) => [endorsements.qeIdentity, undefined]],
    [
      'with a chain of one',
      ({ endorsements, tcbSigning }) => [endorsements.qeIdentity, encodePem(tcbSigning)],
    ],
    [
      'with a chain of three',
      ({ endorsements, root, signingChainPem }) => [
        endorsements.qeIdentity,
        signingChainPem + encodePem(root),
      ],
    ],
    ['with another document', ({ endorsements, signingChainPem }) => [endorsements.tcbInfo, signingChainPem]],
  ])('%s is refused, and nothing of it is kept', async (_, answer) => {
    const [intel, stranger] = await Promise.all([
      createSimulatedIntel({ now: new Date(NOW) }),
      createSimulatedIntel({ now: new Date(NOW) }),
    ]);
    const [body, chain] = answer(intel, stranger);
    const server = createServer(({ url = '' }, response) => {
      if (!url.startsWith('/tdx/certification/v4/qe/identity')) response.statusCode = 404;
      if (chain !== undefined)
        response.setHeader('sgx-enclave-identity-issuer-chain', encodeURIComponent(chain));
      response.end(body);
    });
    await new Promise<void>((resolve) => {
      server.listen(0, '127.0.0.1', resolve);
    });
    onTestFinished(() => void server.close());
    const pcsUrl = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const source = createEndorsements({ pcsUrl, now: () => NOW, roots: { intel: [intel.root] } });
    onTestFinished(() => source.close());
    const quote = await intel.signQuote();
    expect(['endorsements_invalid', 'tdx_collateral_malformed']).toContain(
      await codeOfAsync(() => source.tdx(quote)),
    );
    expect(await source.store.items()).toEqual([]);
  });

  test('is not asked for quotes that do not carry their PCK chain', async () => {
    const intel = await createSimulatedIntel({ now: new Date(NOW) });
    const source = createEndorsements({ offline: true, now: () => NOW });
    const quote = await intel.signQuote({ certificationType: 3, certificationData: new Uint8Array(404) });
    expect((await refusalOf(() => source.tdx(quote)))?.kind).toBe('unsupported');
  });
});
