// Inputs made to be believed wrongly, to break out of the typed errors, to use a verifier up, or to leave a client stuck.
// Each was let through or mishandled once.

import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, describe, expect, test } from 'vitest';
import { verify } from '../../attestation/appraise/appraise.ts';
import { type Cbor, type CborMap, decodeCbor, encodeCbor } from '../../attestation/encoding/cbor.ts';
import type { ModelClaim } from '../../attestation/protocol/claims.ts';
import { ATTESTATION_CODES } from '../../attestation/transcript/codes.ts';
import { encodeText, TAG } from '../../attestation/x509/der.ts';
import { decodeDocumentCbor, parseDocument } from '../../attestation/protocol/document.ts';
import { encodeDocument, encodeDocumentCbor } from '../../attestation/protocol/issue.ts';
import type { JsonObject } from '../../attestation/encoding/json.ts';
import { createRollbackMemory } from '../../attestation/transcript/rollback-memory.ts';
import { allModelsDigest, type AttestedModel, attestedModel } from '../../attestation/protocol/model.ts';
import { runCli } from '../../attestation/node/cli/commands.ts';
import { allowSimulated, type AppraisalPolicy } from '../../attestation/appraise/policy.ts';
import { createSimulatedIntel } from '../../attestation/simulated/intel.ts';
import { verifySnp } from '../../attestation/snp/verify.ts';
import { verifyTdx } from '../../attestation/tdx/verify.ts';
import { toHex } from '../../attestation/encoding/bytes.ts';
import {
  MEASUREMENT,
  MODEL,
  MODEL_ID,
  MODEL_SHA256,
  NOW,
  simulatedAmd,
  startAttestedServer,
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
