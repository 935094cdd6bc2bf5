// Inputs made to be believed wrongly, to break out of the typed errors, to use a verifier up, or to leave a client stuck.
// Each was let through or mishandled once.

import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, describe, expect, test } from 'vitest';
import { type EndorsementSource, verify } from '../../attestation/appraise/appraise.ts';
import { type Cbor, type CborMap, decodeCbor, encodeCbor } from '../../attestation/encoding/cbor.ts';
import type { ModelClaim } from '../../attestation/protocol/claims.ts';
import { ATTESTATION_CODES } from '../../attestation/transcript/codes.ts';
import { encodeText, TAG } from '../../attestation/x509/der.ts';
import { decodeDocumentCbor, parseDocument } from '../../attestation/protocol/document.ts';
import { encodeDocument, encodeDocumentCbor } from '../../attestation/protocol/issue.ts';
import type { JsonObject } from '../../attestation/encoding/json.ts';
import { createRollbackMemory } from '../../attestation/transcript/rollback-memory.ts';
import { allModelsDigest, type AttestedModel, attestedModel } from '../../attestation/protocol/model.ts';
import { AttestationError } from '../../attestation/transcript/errors.ts';
import { runCli } from '../../attestation/node/cli/commands.ts';
import { connectAttested } from '../../attestation/node/connect.ts';
import { createEndorsements } from '../../attestation/node/endorsements/endorsements.ts';
import { memoryStore, type StoredItem } from '../../attestation/node/endorsements/store.ts';
import { attestedFetch, type AttestedFetch } from '../../attestation/node/fetch.ts';
import { fileRollbackMemory } from '../../attestation/node/memory-file.ts';
import { AttestedPool, type AttestedFetchOptions, poolOptions } from '../../attestation/node/pool.ts';
import { startProxy } from '../../attestation/node/proxy/proxy.ts';
import { responseParser } from '../../attestation/node/response.ts';
import { allowSimulated, type AppraisalPolicy, parsePolicy } from '../../attestation/appraise/policy.ts';
import type { SimulatedAmd } from '../../attestation/simulated/amd.ts';
import { encodePem } from '../../attestation/simulated/issue.ts';
import { createSimulatedIntel, type SimulatedIntel } from '../../attestation/simulated/intel.ts';
import { verifySnp } from '../../attestation/snp/verify.ts';
import { verifyTdx } from '../../attestation/tdx/verify.ts';
import { toHex, utf8 } from '../../attestation/encoding/bytes.ts';
import {
  MEASUREMENT,
  MODEL,
  MODEL_ID,
  MODEL_SHA256,
  NOW,
  send,
  simulatedAmd,
  startAttestedServer,
  type AttestedServer,
} from '../fixtures/attestation/attested-server.ts';
import { CHANNEL, snpDocument } from '../fixtures/attestation/documents.ts';
import { codeOf, codeOfAsync, refusalOf } from '../fixtures/refusal.ts';

const POLICY: AppraisalPolicy = {
  measurements: [MEASUREMENT],
  models: { [MODEL_ID]: MODEL_SHA256 },
  [allowSimulated]: true,
};

const CLOSING: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of CLOSING.splice(0).toReversed()) await close();
});

async function serve(): Promise<AttestedServer> {
  const server = await startAttestedServer();
  CLOSING.push(() => server.close());
  return server;
}
function client(options: Partial<AttestedFetchOptions> = {}): AttestedFetch {
  const fetch = attestedFetch({ policy: POLICY, now: () => NOW, ...options });
  CLOSING.push(() => fetch.close());
  return fetch;
}

async function runCommand(argv: readonly string[]): Promise<{ code: number; text: string }> {
  let text = '';
  const write = (more: string): void => {
    text += more;
  };
  const code = await runCli(argv, {
    stdout: write,
    stderr: write,
    stdin: () => Promise.resolve(new Uint8Array()),
    readBytes: () => Promise.reject(new Error('no files here')),
    now: () => NOW,
    randomBytes: (length) => crypto.getRandomValues(new Uint8Array(length)),
    proxy: undefined,
    stop: () => AbortSignal.abort(),
  });
  return { code, text };
}

describe('documents', () => {
  test.each(['id', 'role'] as const)(
    'a model %s that is no unicode text gets the typed refusal',
    async (field) => {
      const document = JSON.parse(encodeDocument(await snpDocument())) as {
        models: { id: string; blobs: { role: string }[] }[];
      };
      const [model] = document.models;
      if (field === 'id') model!.id = 'demo\ud800';
      else model!.blobs[0]!.role = 'weights\udc00';
      const text = JSON.stringify(document);
      expect(await codeOfAsync(async () => verify(parseDocument(text), { ...CHANNEL, policy: POLICY }))).toBe(
        'malformed_document',
      );
    },
  );
});

describe('certificate evidence', () => {
  test.each<[string, Cbor, string]>([
    ['bytes', new Uint8Array(3), 'accepted'],
    ['text where bytes belong', 'AAAA', 'malformed_document'],
    ['a number where bytes belong', 7, 'malformed_document'],
    ['more bytes than a report has', new Uint8Array(70_000), 'malformed_document'],
  ])('%s', async (_, report, code) => {
    const map = new Map(decodeCbor(encodeDocumentCbor(await snpDocument())) as CborMap);
    const changed = encodeCbor(map.set('report', report));
    expect(codeOf(() => decodeDocumentCbor(changed))).toBe(code);
  });
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

describe('the closed list of codes', () => {
  test('has none that nothing gives', () => {
    const folder = fileURLToPath(new URL('../../attestation/', import.meta.url));
    const sources = readdirSync(folder, { recursive: true, encoding: 'utf8' })
      .filter((name) => /^(?!dist|node_modules).*\.ts$/.test(name) && name !== 'codes.ts')
      .map((name) => readFileSync(join(folder, name), 'utf8'))
      .join('');
    expect(Object.keys(ATTESTATION_CODES).filter((code) => !sources.includes(`'${code}'`))).toEqual([]);
  });
});

describe('models', () => {
  const other = attestedModel('other', [{ role: 'weights', sha256: new Uint8Array(32).fill(9), size: 3 }]);
  const both = [MODEL, other];
  const one = { kind: 'blob', id: MODEL_ID, sha256: MODEL.sha256 } as const;

  test.each<[string, readonly AttestedModel[], ModelClaim]>([
    ['one model, and it is listed', [MODEL], one],
    ['all models under the name of one', both, { kind: 'all', id: MODEL_ID, sha256: allModelsDigest(both) }],
    ['one model beside others', both, one],
    ['one model, listed under another name', [{ ...MODEL, id: 'other' }], one],
    ['one model as of another kind', [MODEL], { ...one, kind: 'manifest' }],
    ['one model with the digest of another', [MODEL], { ...one, sha256: other.sha256 }],
    [
      'one model, with a listed digest its blobs do not give',
      [{ ...MODEL, sha256: other.sha256 }],
      { ...one, sha256: other.sha256 },
    ],
  ])('claims for %s', async (_, models, model) => {
    const document = await snpDocument({ models, claims: (claims) => ({ ...claims, model }) });
    const lists = {
      ...POLICY,
      models: Object.fromEntries(models.map(({ id, sha256 }) => [id, toHex(sha256)])),
    };
    const refusal = await refusalOf(() => verify(document, { ...CHANNEL, policy: lists, model: MODEL_ID }));
    expect(refusal?.code).toBe(
      models[0] === MODEL && models.length === 1 && model === one ? undefined : 'model_list_contradiction',
    );
  });
});

describe('evidence', () => {
  test('a quote that changes while its signatures are checked is judged as it was', async () => {
    const now = new Date('2026-06-15T12:00:00Z');
    const intel = await createSimulatedIntel({ now });
    const mrTd = new Uint8Array(48).fill(0x41);
    const quote = await intel.signQuote({ mrTd });
    const job = verifyTdx(
      { quote, collateral: await intel.collateral() },
      { mrTd: '66'.repeat(48) },
      { now, roots: [intel.root] },
    );
    // MRTD of the version 4 quote: header 48, then 136.
    quote.fill(0x66, 184, 232);
    const found = await job;
    expect(found.accepted).toBe(false);
    expect(toHex(found.quote.body.mrTd)).toBe(toHex(mrTd));
  });
});

describe('certificates', () => {
  test('a VCEK that also names a provider is no VCEK', async () => {
    const amd = await simulatedAmd();
    const csp = { oid: '1.3.6.1.4.1.3704.1.5', value: encodeText('CN=somebody', TAG.ia5String) };
    const vek = await amd.issueVek({ extensions: (regular) => [...regular, csp] });
    const evidence = {
      report: await amd.signReport(),
      vek,
      chain: [amd.intermediate, amd.ark],
      crl: amd.crl,
    };
    const found = await verifySnp(evidence, {}, { now: new Date(NOW), roots: [amd.ark] });
    expect(found.transcript.checks.flatMap(({ code }) => code ?? [])).toEqual(['snp_vek_extensions']);
  });
});

describe('roll-back memory', () => {
  test('strangers cannot fill it: a CRL of a root that is not trusted is not remembered', async () => {
    const amd = await simulatedAmd();
    const evidence = {
      report: await amd.signReport(),
      vek: amd.vek,
      chain: [amd.intermediate, amd.ark],
      crl: amd.crl,
    };
    const memory = createRollbackMemory();
    const stranger = await verifySnp(evidence, {}, { now: new Date(NOW), memory });
    expect(stranger.transcript.firstFailure?.code).toBe('snp_chain');
    expect(memory.entries()).toEqual([]);
    await verifySnp(evidence, {}, { now: new Date(NOW), roots: [amd.ark], memory });
    expect(memory.entries()).toHaveLength(2);
  });
});

describe('the command line', () => {
  test('evidence: answers too much input with its one JSON object', () => {
    const cli = fileURLToPath(new URL('../../attestation/dist/node/cli/main.js', import.meta.url));
    const { status, stdout, stderr } = spawnSync(process.execPath, [cli, 'evidence'], {
      input: Buffer.alloc(5 << 20, ' '),
      encoding: 'utf8',
    });
    expect(JSON.parse(stdout)).toMatchObject({ accepted: false, code: 'input_too_large', claims: {} });
    expect([status, stderr]).toEqual([30, '']);
  });
});

describe('a terminal', () => {
  const id = 'demo\u001b[2J\u009b1A\u202ex';
  const model = attestedModel(id, [{ role: 'weights', sha256: new Uint8Array(32).fill(7), size: 1 }]);

  test.each([
    ['accepted', 0, ['--any-model'], undefined],
    ['refused', 10, ['--model', `other=${MODEL_SHA256}`], undefined],
    ['malformed', 30, ['--any-model'], (document: JsonObject) => ({ ...document, [id]: 1 })],
  ])('gets no control characters of a server: %s', async (_, exit, flags, document) => {
    const server = await startAttestedServer({
      models: [model],
      ...(document === undefined ? {} : { document }),
    });
    CLOSING.push(() => server.close());
    const common = ['--measurement', MEASUREMENT, '--allow-simulated', ...flags];
    for (const argv of [
      [server.origin, ...common, '--explain'],
      [server.origin, ...common],
      [server.origin, ...common, '--json'],
      ['proxy', server.origin, '--listen', '127.0.0.1:0', ...common],
    ]) {
      const { code, text } = await runCommand(argv);
      expect(code).toBe(exit);
      // eslint-disable-next-line no-control-regex
      expect(text.match(/[^\n\x20-\x7e\u00a0-\u2027\u202f-\u2065\u2070-\uffff]/g)).toBeNull();
    }
  });
});

describe('the proxy', () => {
  test('bodies that are empty, cut short or too long keep no connection', async () => {
    const server = await serve();
    const proxy = await startProxy({
      upstream: server.origin,
      policy: POLICY,
      host: '127.0.0.1',
      port: 0,
      now: () => NOW,
      connections: 1,
    });
    CLOSING.push(() => proxy.close());
    const port = Number(new URL(proxy.url).port);
    const chat = JSON.stringify({ model: MODEL_ID, messages: [{ content: 'hi' }] });
    const asked = async (head: string, body: string, cut = false): Promise<string> => {
      const socket = connect({ host: '127.0.0.1', port });
      socket.write(`${head} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n${body}`);
      if (cut) socket.end();
      let text = '';
      try {
        for await (const chunk of socket) text += String(chunk);
      } catch {
        // Cut off by the proxy.
      }
      return text.slice(0, 12);
    };
    for (const [head, body, cut] of [
      ['POST /', 'content-length: 0\r\n\r\n'],
      ['GET /', 'content-length: 0\r\n\r\n'],
      ['DELETE /', 'transfer-encoding: chunked\r\n\r\n0\r\n\r\n'],
      ['POST /', 'content-length: 100\r\n\r\nabc', true],
      ['POST /', 'transfer-encoding: chunked\r\n\r\nffff\r\nabc', true],
      ['M-SEARCH /', '\r\n'],
    ] as const)
      await asked(head, body, cut);
    expect(await asked('POST /', `content-length: ${chat.length}\r\n\r\n${chat}`)).toBe('HTTP/1.1 200');
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
      response.end(
        path === undefined ? '' : path === 'cert_chain' ? pem : path === 'crl' ? amd.crl : amd.vek,
      );
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

describe('the attestation response', () => {
  test('a body in a quarter of a million chunks of one byte is read whole', () => {
    const size = 1 << 18;
    const parse = responseParser({ maxHeaderBytes: 1024, maxBodyBytes: 1 << 20 });
    const wire = Buffer.from(
      `HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n${'1\r\nx\r\n'.repeat(size)}0\r\n\r\n`,
    );
    let answer: ReturnType<typeof parse>;
    for (let at = 0; at < wire.length; at += 16_384) answer = parse(wire.subarray(at, at + 16_384));
    expect(Buffer.from(answer?.body ?? []).equals(Buffer.alloc(size, 'x'))).toBe(true);
  });
});

describe('a connection', () => {
  test('is not opened to anything but https', async () => {
    const server = await serve();
    const options = {
      policy: parsePolicy(POLICY),
      now: () => NOW,
      randomBytes: (length: number) => new Uint8Array(length),
      connectTimeoutMs: 5_000,
      attestTimeoutMs: 5_000,
    };
    for (const protocol of ['http', 'ws', 'wss', 'ftp']) {
      const origin = new URL(`${protocol}://127.0.0.1:${server.port}`);
      expect((await refusalOf(() => connectAttested(origin, options)))?.code).toBe('plain_http');
    }
    expect(server.connections).toHaveLength(0);
  });

  test('that its peer closes with the evidence is not handed over', async () => {
    const server = await startAttestedServer({
      attestation: async ({ socket }, json) => {
        send(socket, 200, await json());
        socket.end();
      },
    });
    CLOSING.push(() => server.close());
    const fetch = client();
    await expect(fetch(server.origin, { method: 'POST', body: '{}' })).rejects.toBeInstanceOf(Error);
    expect(server.requests()).toHaveLength(0);
  });
});

describe('the pool', () => {
  test('requests that undici refuses before they are sent take no connection away', async () => {
    const { origin } = await serve();
    const fetch = client({ connections: 1 });
    await expect(
      fetch(origin, { method: 'POST', body: 'x', headers: { expect: '100-continue' } }),
    ).rejects.toThrow('fetch failed');
    const answer = await fetch(origin, {
      method: 'POST',
      body: JSON.stringify({ model: MODEL_ID, messages: [{ content: 'hi' }] }),
    });
    expect(answer.status).toBe(200);
    await answer.text();
  });

  test('a form that names two models is not one for the model that was attested', async () => {
    const server = await serve();
    const fetch = client({ model: MODEL_ID });
    const form = new FormData();
    form.append('model', MODEL_ID);
    form.append('model', 'other');
    expect((await refusalOf(() => fetch(server.origin, { method: 'POST', body: form })))?.code).toBe(
      'model_not_attested',
    );
    expect(server.requests()).toHaveLength(0);
  });

  test('is bounded, and closed for good', async () => {
    const { origin } = await serve();
    const pool = new AttestedPool(origin, {
      ...poolOptions({ policy: POLICY, now: () => NOW }, parsePolicy(POLICY), origin),
      connections: 1,
      maxQueued: 2,
    });
    CLOSING.push(() => pool.destroy());
    const ask = async (): Promise<number> =>
      (await pool.request({ origin, path: '/', method: 'POST', body: '{}' })).statusCode;
    const asked = await Promise.allSettled([ask(), ask(), ask(), ask()]);
    expect(asked.map(({ status }) => status)).toEqual(['fulfilled', 'fulfilled', 'rejected', 'rejected']);
    await pool.close();
    await expect(ask()).rejects.toThrow('closed');
  });

  test('requests that were given up while they waited are never sent', async () => {
    const server = await serve();
    const { origin } = server;
    const fetch = client({ connections: 1 });
    const stop = AbortSignal.abort();
    const given = await Promise.allSettled(
      Array.from({ length: 20 }, () => fetch(origin, { method: 'POST', body: '{}', signal: stop })),
    );
    expect(given.every(({ status }) => status === 'rejected')).toBe(true);
    const late = new AbortController();
    const waiting = Array.from({ length: 20 }, () =>
      fetch(origin, { method: 'POST', body: '{}', signal: late.signal }),
    );
    late.abort();
    await Promise.allSettled(waiting);
    const answer = await fetch(origin, {
      method: 'POST',
      body: JSON.stringify({ model: MODEL_ID, messages: [{ content: 'hi' }] }),
    });
    expect(answer.status).toBe(200);
    await answer.text();
    expect(server.requests().length).toBe(1);
  });
});

describe('roll-back memory on disk', () => {
  test('two processes with one file do not make each other forget', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'assay-memory-'));
    CLOSING.push(() => rmSync(folder, { recursive: true }));
    const path = join(folder, 'seen.json');
    const [one, two] = [await fileRollbackMemory(path), await fileRollbackMemory(path)];
    await one.remember('snp/a/crlNumber', 10n);
    await two.remember('snp/b/crlNumber', 1n);
    expect(JSON.parse(readFileSync(path, 'utf8'))).toEqual({
      'snp/a/crlNumber': '10',
      'snp/b/crlNumber': '1',
    });
    await two.remember('snp/a/crlNumber', 9n);
    expect(await two.highest('snp/a/crlNumber')).toBe(10n);
    expect(JSON.parse(readFileSync(path, 'utf8'))).toEqual({
      'snp/a/crlNumber': '10',
      'snp/b/crlNumber': '1',
    });
  });
});
