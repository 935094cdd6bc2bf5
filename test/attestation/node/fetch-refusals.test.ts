// Every way a server, or someone between it and us, can be wrong: refused with its own code, and not one
// byte of the request has left by then ([M15], P6): the server's record of the connection holds the
// attestation request and no more.

import { describe, expect, test } from 'vitest';
import { fromHex, toBase64, toHex } from '../../../attestation/encoding/bytes.ts';
import { type JsonObject } from '../../../attestation/encoding/json.ts';
import { attestedModel } from '../../../attestation/protocol/model.ts';
import { allowSimulated } from '../../../attestation/appraise/policy.ts';
import {
  type Misbehaviour,
  MODEL,
  MODEL_ID,
  MODEL_SHA256,
  startAttestedServer,
  tlsIdentity,
} from '../../fixtures/attestation/attested-server.ts';
import { documentFromElsewhere } from '../../fixtures/attestation/relay.ts';
import { type AttestedFetchOptions } from '../../../attestation/node/pool.ts';
import {
  POLICY,
  BASE,
  OTHER,
  prompt,
  expectNothingSent,
  refusedBy,
  set,
  without,
  flip,
  b64,
  other,
} from '../../fixtures/attestation/refusing.ts';

describe('refused before a byte of the request', () => {
  test.each<[string, string, Misbehaviour, Partial<AttestedFetchOptions>?]>([
    ['simulated evidence without the flag [M21]', 'simulated_refused', {}, { policy: BASE }],
    [
      'simulated evidence under another root than the one allowed',
      'simulated_refused',
      {},
      { policy: { ...BASE, [allowSimulated]: { root: '00'.repeat(32) } } },
    ],
    [
      'simulated evidence that calls itself sev-snp, even when simulation is allowed [M21]',
      'snp_chain',
      { document: set('tee_type', () => 'sev-snp') },
    ],
    ['another measurement', 'snp_measurement', { report: { measurement: new Uint8Array(48).fill(1) } }],
    [
      'another model under the listed name',
      'model_digest_mismatch',
      { models: [attestedModel(MODEL_ID, other.blobs)] },
    ],
    ['a model the policy does not list', 'model_not_listed', { models: [MODEL, other] }],
    ['no model at all [M3]', 'model_missing', { models: [] }],
    [
      'another nonce [M7]',
      'nonce_mismatch',
      { claims: (c) => ({ ...c, nonce: OTHER }), document: set('nonce', () => toHex(OTHER)) },
    ],
    [
      'claims without a nonce',
      'nonce_mismatch',
      { claims: (c) => without(c, 'nonce'), document: set('nonce', () => undefined) },
    ],
    [
      'an exporter of another connection [M13]',
      'exporter_mismatch',
      { claims: (c) => ({ ...c, exporter: new Uint8Array(32) }) },
    ],
    ['claims without an exporter', 'exporter_mismatch', { claims: (c) => without(c, 'exporter') }],
    [
      'the evidence of a certificate [M17]',
      'certificate_channel',
      { claims: (c) => without(c, 'exporter', 'nonce'), document: set('nonce', () => undefined) },
    ],
    [
      'the right evidence behind another TLS key [M14]',
      'tls_key_mismatch',
      { claims: (c) => ({ ...c, tlsSpki: new Uint8Array(32) }) },
    ],
    [
      'claims that are not canonical [M5]',
      'claims_not_canonical',
      { claimsBytes: (bytes) => Uint8Array.of(0xb8, (bytes[0] ?? 0) & 31, ...bytes.subarray(1)) },
    ],
    [
      'claims with another label [M6]',
      'claims_label',
      {
        claimsBytes: (bytes) =>
          Uint8Array.from(
            Buffer.from(Buffer.from(bytes).toString('latin1').replace('claims/v1', 'claims/v2'), 'latin1'),
          ),
      },
    ],
    [
      'claims with an unknown key [M6]',
      'claims_fields',
      { claimsBytes: (bytes) => Uint8Array.of((bytes[0] ?? 0) + 1, ...bytes.subarray(1), 0x0a, 0x00) },
    ],
    [
      'a tampered report',
      'snp_signature',
      { document: set('report', (d) => toBase64(b64(d['report']).fill(7, 0x1e0, 0x1e1))) },
    ],
    [
      'claims that are not the signed ones [M1]',
      'claims_not_bound',
      { document: set('claims', (d) => b64(d['claims']).fill(1, 60, 61).toString('base64url')) },
    ],
    [
      'an inclusion proof of another tree [M1]',
      'claims_not_bound',
      { document: set('inclusion', () => ({ index: 1, size: 2, path: ['00'.repeat(32)] })) },
    ],
    [
      'a path that does not fit its size [M1]',
      'claims_not_bound',
      { document: set('inclusion', () => ({ index: 0, size: 1, path: ['00'.repeat(32)] })) },
    ],
    [
      'a model digest the report does not have [M2]',
      'model_not_bound',
      { reportData: (bytes) => Uint8Array.of(...bytes.subarray(0, 63), (bytes[63] ?? 0) ^ 1) },
    ],
    [
      'models that do not give the digest [M2]',
      'model_list_contradiction',
      {
        document: set('models', (d) => [
          ...(d['models'] as JsonObject[]),
          {
            id: 'x',
            sha256: '11'.repeat(32),
            kind: 'blob',
            blobs: [{ role: 'weights', sha256: '11'.repeat(32), size: 1 }],
          },
        ]),
      },
    ],
    [
      'blobs that do not give the model [M2]',
      'model_list_contradiction',
      {
        document: set('models', (d) =>
          (d['models'] as JsonObject[]).map((m) => ({
            ...m,
            blobs: [{ role: 'weights', sha256: '11'.repeat(32), size: 1 }],
          })),
        ),
      },
    ],
    [
      'claims for one model when all were asked for',
      'model_not_requested',
      { claims: (c) => ({ ...c, model: { kind: 'blob', id: MODEL_ID, sha256: fromHex(MODEL_SHA256) } }) },
    ],
    [
      'report_data repeated wrongly [M8]',
      'report_data_contradiction',
      { document: set('report_data', (d) => flip(d['report_data'])) },
    ],
    [
      'measurement repeated wrongly [M8]',
      'measurement_contradiction',
      { document: set('measurement', (d) => flip(d['measurement'])) },
    ],
    [
      'nonce repeated wrongly [M8]',
      'nonce_contradiction',
      { document: set('nonce', (d) => flip(d['nonce'])) },
    ],
    ['nonce not repeated [M8]', 'nonce_contradiction', { document: (d) => without(d, 'nonce') }],
    [
      'time repeated wrongly [M8]',
      'timestamp_contradiction',
      { document: set('timestamp', () => '2026-02-21T12:00:01Z') },
    ],
    ['a guest that can be debugged', 'snp_guest_policy', { report: { guestPolicy: 0x3da_0137n } }],
    ['a report another VMPL asked for', 'snp_vmpl', { report: { vmpl: 1 } }],
    [
      'a chip that is not listed',
      'snp_chip_not_listed',
      {},
      { policy: { ...POLICY, chips: ['77'.repeat(64)] } },
    ],
    [
      'only chips of another vendor listed',
      'chip_not_listed',
      {},
      { policy: { ...POLICY, chips: ['77'.repeat(16)] } },
    ],
    [
      'firmware below the minimum',
      'snp_minimum_tcb',
      {},
      { policy: { ...POLICY, minimumTcb: { Genoa: { microcode: 255 } } } },
    ],
    ['a product that is not accepted', 'snp_product', {}, { policy: { ...POLICY, products: ['Turin'] } }],
    [
      'a configuration that is not listed',
      'config_not_listed',
      {},
      { policy: { ...POLICY, configs: ['00'.repeat(32)] } },
    ],
    ['an expired chain', 'snp_certificate_validity', {}, { now: () => Date.parse('2060-01-01T00:00:00Z') }],
    [
      'no CRL [M9]',
      'snp_crl',
      { document: set('endorsements', (d) => ({ ...(d['endorsements'] as JsonObject), crl: undefined })) },
    ],
    ['a document of another version', 'malformed_document', { document: set('version', () => '2') }],
    ['a document with an unknown key', 'malformed_document', { document: set('extra', () => 1) }],
    [
      'a document with base64 that has two spellings',
      'malformed_base64',
      { document: set('claims', (d) => `${String(d['claims'])}=`) },
    ],
    ['no endorsements', 'malformed_document', { document: (d) => without(d, 'endorsements') }],
  ])('%s', async (_, code, how, options) => {
    expect((await refusedBy(how, options))?.code).toBe(code);
  });

  test('every refusal of evidence carries the complete transcript, with what was expected and found [M18]', async () => {
    const refusal = await refusedBy({
      claims: (c) => ({ ...c, exporter: new Uint8Array(32), tlsSpki: new Uint8Array(32) }),
      report: { measurement: new Uint8Array(48).fill(1) },
    });
    const failed = refusal?.transcript.filter(({ status }) => status === 'fail').map(({ code }) => code);
    expect(failed).toEqual([
      'snp_measurement',
      'exporter_mismatch',
      'tls_key_mismatch',
      'measurement_not_listed',
    ]);
    expect(refusal).toMatchObject({ kind: 'refused', code: 'snp_measurement', check: 'S27' });
    expect(refusal?.transcript.length).toBeGreaterThan(45);
  });

  test('evidence relayed from a connection to the genuine server: nonce and model agree, key and exporter do not [M13] [M14]', async () => {
    const genuine = await startAttestedServer();
    const relay = await startAttestedServer({
      document: (_, { nonce }) => documentFromElsewhere(genuine.port, nonce),
    });
    const refusal = await prompt(relay);
    expectNothingSent(relay);
    expect(refusal?.transcript.filter(({ status }) => status === 'fail').map(({ code }) => code)).toEqual([
      'exporter_mismatch',
      'tls_key_mismatch',
    ]);
    await relay.close();
    await genuine.close();
  });

  test('relayed by someone who stole the TLS key: the exporter alone gives it away [M13]', async () => {
    const identity = await tlsIdentity();
    const genuine = await startAttestedServer({ identity });
    const relay = await startAttestedServer({
      identity,
      document: (_, { nonce }) => documentFromElsewhere(genuine.port, nonce),
    });
    const refusal = await prompt(relay);
    expectNothingSent(relay);
    expect(refusal?.transcript.filter(({ status }) => status === 'fail').map(({ code }) => code)).toEqual([
      'exporter_mismatch',
    ]);
    await relay.close();
    await genuine.close();
  });
});
