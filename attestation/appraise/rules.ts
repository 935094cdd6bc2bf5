// The rules of the appraisal that are not a vendor's: D document and claims, C channel and client, P policy. As data: one
// code per rule, the section of docs/protocol.md it comes from, and what is checked in words a person can read.

import type { Rule } from '../transcript/checks.ts';

const PROTOCOL = 'Assay protocol v1';

export const RULES = {
  claimsCanonical: {
    id: 'D1',
    code: 'claims_not_canonical',
    spec: `${PROTOCOL} §3 [M5]`,
    title: 'claims are their own canonical CBOR encoding',
  },
  claimsLabel: {
    id: 'D2',
    code: 'claims_label',
    spec: `${PROTOCOL} §3 [M6]`,
    title: 'claims carry the label of protocol v1',
  },
  claimsFields: {
    id: 'D3',
    code: 'claims_fields',
    spec: `${PROTOCOL} §3 [M6]`,
    title: 'claims have exactly the fields of protocol v1',
  },
  claimsBound: {
    id: 'D4',
    code: 'claims_not_bound',
    spec: `${PROTOCOL} §2 [M1]`,
    title: 'claims are the ones the hardware signed (report_data[0..32))',
  },
  modelBound: {
    id: 'D5',
    code: 'model_not_bound',
    spec: `${PROTOCOL} §2 [M2]`,
    title: 'model digest is the one the hardware signed (report_data[32..64))',
  },
  modelList: {
    id: 'D6',
    code: 'model_list_contradiction',
    spec: `${PROTOCOL} §2 [M2]`,
    title: 'listed models and blobs give the claimed model digest',
  },
  modelPresent: {
    id: 'D7',
    code: 'model_missing',
    spec: `${PROTOCOL} §2 [M3]`,
    title: 'at least one model is attested, with a digest that is not zero',
  },
  reportDataRepeated: {
    id: 'D8',
    code: 'report_data_contradiction',
    spec: `${PROTOCOL} §4 [M8]`,
    title: 'document repeats the signed report_data',
  },
  measurementRepeated: {
    id: 'D9',
    code: 'measurement_contradiction',
    spec: `${PROTOCOL} §4 [M8]`,
    title: 'document repeats the signed measurement',
  },
  nonceRepeated: {
    id: 'D10',
    code: 'nonce_contradiction',
    spec: `${PROTOCOL} §4 [M8]`,
    title: 'document repeats the claimed nonce',
  },
  timestampRepeated: {
    id: 'D11',
    code: 'timestamp_contradiction',
    spec: `${PROTOCOL} §4 [M8]`,
    title: 'document repeats the claimed issued_at',
  },
  rtmrRepeated: {
    id: 'D12',
    code: 'rtmr_contradiction',
    spec: `${PROTOCOL} §4 [M8]`,
    title: 'document repeats the signed RTMRs',
  },
  teeRepeated: {
    id: 'D13',
    code: 'tee_type_contradiction',
    spec: `${PROTOCOL} §4 [M8]`,
    title: 'document names the TEE the evidence is of',
  },
  gpu: {
    id: 'D14',
    code: 'gpu_evidence',
    spec: `${PROTOCOL} §3`,
    title: 'no GPU is in use whose evidence cannot be judged',
  },

  nonce: {
    id: 'C1',
    code: 'nonce_mismatch',
    spec: `${PROTOCOL} §3 [M7]`,
    title: 'evidence answers the nonce of this verifier',
  },
  tlsKey: {
    id: 'C2',
    code: 'tls_key_mismatch',
    spec: `${PROTOCOL} §5 [M14]`,
    title: 'TLS key of the peer is the one in the claims',
  },
  exporter: {
    id: 'C3',
    code: 'exporter_mismatch',
    spec: `${PROTOCOL} §5 [M13]`,
    title: 'evidence is bound to this very TLS connection',
  },
  requestedModel: {
    id: 'C4',
    code: 'model_not_requested',
    spec: `${PROTOCOL} §2`,
    title: 'claims are for the model that was asked for',
  },
  certificateChannel: {
    id: 'C5',
    code: 'certificate_channel',
    spec: `${PROTOCOL} §6 [M17]`,
    title: 'evidence is more than a certificate’s',
  },
  session: {
    id: 'C6',
    code: 'session_resumed',
    spec: `${PROTOCOL} §5 [M12]`,
    title: 'TLS session is new, not resumed',
  },
  tlsVersion: {
    id: 'C7',
    code: 'tls_version',
    spec: `${PROTOCOL} §5 [M11]`,
    title: 'TLS is version 1.3 with HTTP/1.1 on it',
  },
  machine: {
    id: 'C8',
    code: 'machine_changed',
    spec: `${PROTOCOL} §5`,
    title: 'connection is from the machine of the first one',
  },

  tee: {
    id: 'P1',
    code: 'tee_not_accepted',
    spec: `${PROTOCOL} §7`,
    title: 'policy accepts this kind of TEE',
  },
  simulated: {
    id: 'P2',
    code: 'simulated_refused',
    spec: `${PROTOCOL} §8 [M21]`,
    title: 'evidence is of real hardware, or simulation was allowed',
  },
  measurement: {
    id: 'P4',
    code: 'measurement_not_listed',
    spec: `${PROTOCOL} §7`,
    title: 'measured software is a reference value',
  },
  models: {
    id: 'P5',
    code: 'model_not_listed',
    spec: `${PROTOCOL} §7`,
    title: 'every model served is one the policy lists',
  },
  modelDigests: {
    id: 'P6',
    code: 'model_digest_mismatch',
    spec: `${PROTOCOL} §7`,
    title: 'every model served has the digest the policy lists',
  },
  chips: { id: 'P7', code: 'chip_not_listed', spec: `${PROTOCOL} §7`, title: 'machine is on the allow-list' },
  configs: {
    id: 'P8',
    code: 'config_not_listed',
    spec: `${PROTOCOL} §7`,
    title: 'effective configuration is on the allow-list',
  },
} as const satisfies Record<string, Rule>;
