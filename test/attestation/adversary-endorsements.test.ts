// Endorsements from an adversary: stapled, stored and served by a vendor’s address. Each was let through or mishandled
// once.

import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, describe, expect, test } from 'vitest';
import { type EndorsementSource, verify } from '../../attestation/appraise/appraise.ts';
import { AttestationError } from '../../attestation/transcript/errors.ts';
import { createEndorsements } from '../../attestation/node/endorsements/endorsements.ts';
import { memoryStore, type StoredItem } from '../../attestation/node/endorsements/store.ts';
import { allowSimulated, type AppraisalPolicy } from '../../attestation/appraise/policy.ts';
import type { SimulatedAmd } from '../../attestation/simulated/amd.ts';
import { encodePem } from '../../attestation/simulated/issue.ts';
import { createSimulatedIntel, type SimulatedIntel } from '../../attestation/simulated/intel.ts';
import { toHex, utf8 } from '../../attestation/encoding/bytes.ts';
import {
  MEASUREMENT,
  MODEL_ID,
  MODEL_SHA256,
  NOW,
  simulatedAmd,
} from '../fixtures/attestation/attested-server.ts';
import { CHANNEL, snpDocument } from '../fixtures/attestation/documents.ts';
import { codeOfAsync, refusalOf } from '../fixtures/refusal.ts';

const POLICY: AppraisalPolicy = {
  measurements: [MEASUREMENT],
  models: { [MODEL_ID]: MODEL_SHA256 },
  [allowSimulated]: true,
};

const CLOSING: (() => unknown)[] = [];

afterEach(async () => {
  for (const close of CLOSING.splice(0).toReversed()) await close();
});

describe('endorsements', () => {
  test('refused ones keep their verdict when there is no source of others', async () => {
    const { endorsements, ...fields } = await snpDocument();
    if (!('vek' in endorsements!)) throw new Error('not of SNP');
    const document = { ...fields, teeType: 'sev-snp', endorsements } as const;
    const fetching = { ...POLICY, endorsements: 'fetch' } as const;
    expect((await refusalOf(() => verify(document, { ...CHANNEL, policy: fetching })))?.code).toBe(
      'snp_chain',
    );
  });
});

describe('endorsements that cannot be read', () => {
  test('are looked for elsewhere like those that do not do, and keep their verdict when there are none', async () => {
    const { endorsements, ...fields } = await snpDocument();
    if (!('vek' in endorsements!)) throw new Error('not of SNP');
    const document = {
      ...fields,
      teeType: 'sev-snp',
      endorsements: { ...endorsements, vek: new Uint8Array(9) },
    } as const;
    let asked = 0;
    const source: EndorsementSource = () => {
      asked += 1;
      return asked === 1
        ? Promise.resolve(endorsements)
        : Promise.reject(new AttestationError('internal', 'endorsements_unavailable', 'nothing here'));
    };
    const code = async (mode: 'stapled' | 'fetch'): Promise<string> =>
      codeOfAsync(() =>
        verify(document, { ...CHANNEL, policy: { ...POLICY, endorsements: mode }, endorsements: source }),
      );
    expect([await code('stapled'), asked]).toEqual(['malformed_certificate', 0]);
    expect([await code('fetch'), asked]).toEqual(['snp_chain', 1]);
    expect([await code('fetch'), asked]).toEqual(['malformed_certificate', 2]);
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
    CLOSING.push(() => server.close());
    const { port } = server.address() as AddressInfo;
    const source = createEndorsements({
      store,
      now: () => NOW,
      pcsUrl: `http://127.0.0.1:${port}`,
      roots: { intel: [intel.root] },
    });
    CLOSING.push(() => source.close());
    const found = await source.tdx(await intel.signQuote());
    expect(found.qeIdentity).toBe(endorsements.qeIdentity);
    expect(asked).toHaveLength(4);
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
    CLOSING.push(() => server.close());
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  }

  test('cannot bring its own root, and nothing of it is kept', async () => {
    const amd = await simulatedAmd();
    const source = createEndorsements({ kdsUrl: await startKds(amd), now: () => NOW });
    CLOSING.push(() => source.close());
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
    CLOSING.push(() => source.close());
    const { vek } = await source.snp(await amd.signReport({ version: 2 }));
    expect(toHex(vek)).toBe(toHex(amd.vek));
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
    CLOSING.push(() => server.close());
    const pcsUrl = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const source = createEndorsements({ pcsUrl, now: () => NOW, roots: { intel: [intel.root] } });
    CLOSING.push(() => source.close());
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
