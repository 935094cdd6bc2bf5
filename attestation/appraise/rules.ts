// The rules of the appraisal that are not a vendor's: D document and claims, C channel and client, P
// policy. As data: one code per rule, the section of docs/protocol.md it comes from, and what is checked in
// words a person can read.

import { rule, type Rule } from '../transcript/checks.ts';

const PROTOCOL = 'Assay protocol v1';

/** Rules of appraisal D1 and up: claims, channel, model and policy (docs/protocol.md §2 to §7), by name. */
export const RULES = {
  claimsCanonical: rule(
    'D1',
    'claims_not_canonical',
    `${PROTOCOL} §3 [M5]`,
    'claims are their own canonical CBOR encoding',
  ),
  claimsLabel: rule('D2', 'claims_label', `${PROTOCOL} §3 [M6]`, 'claims carry the label of protocol v1'),
  claimsFields: rule(
    'D3',
    'claims_fields',
    `${PROTOCOL} §3 [M6]`,
    'claims have exactly the fields of protocol v1',
  ),
  claimsBound: rule(
    'D4',
    'claims_not_bound',
    `${PROTOCOL} §2 [M1]`,
    'claims are the ones the hardware signed (report_data[0..32))',
  ),
  modelBound: rule(
    'D5',
    'model_not_bound',
    `${PROTOCOL} §2 [M2]`,
    'model digest is the one the hardware signed (report_data[32..64))',
  ),
  modelList: rule(
    'D6',
    'model_list_contradiction',
    `${PROTOCOL} §2 [M2]`,
    'listed models and blobs give the claimed model digest',
  ),
  modelPresent: rule(
    'D7',
    'model_missing',
    `${PROTOCOL} §2 [M3]`,
    'at least one model is attested, with a digest that is not zero',
  ),
  reportDataRepeated: rule(
    'D8',
    'report_data_contradiction',
    `${PROTOCOL} §4 [M8]`,
    'document repeats the signed report_data',
  ),
  measurementRepeated: rule(
    'D9',
    'measurement_contradiction',
    `${PROTOCOL} §4 [M8]`,
    'document repeats the signed measurement',
  ),
  nonceRepeated: rule(
    'D10',
    'nonce_contradiction',
    `${PROTOCOL} §4 [M8]`,
    'document repeats the claimed nonce',
  ),
  timestampRepeated: rule(
    'D11',
    'timestamp_contradiction',
    `${PROTOCOL} §4 [M8]`,
    'document repeats the claimed issued_at',
  ),
  rtmrRepeated: rule('D12', 'rtmr_contradiction', `${PROTOCOL} §4 [M8]`, 'document repeats the signed RTMRs'),
  teeRepeated: rule(
    'D13',
    'tee_type_contradiction',
    `${PROTOCOL} §4 [M8]`,
    'document names the TEE the evidence is of',
  ),
  gpu: rule('D14', 'gpu_evidence', `${PROTOCOL} §3`, 'no GPU is in use whose evidence cannot be judged'),

  nonce: rule('C1', 'nonce_mismatch', `${PROTOCOL} §3 [M7]`, 'evidence answers the nonce of this verifier'),
  tlsKey: rule(
    'C2',
    'tls_key_mismatch',
    `${PROTOCOL} §5 [M14]`,
    'TLS key of the peer is the one in the claims',
  ),
  exporter: rule(
    'C3',
    'exporter_mismatch',
    `${PROTOCOL} §5 [M13]`,
    'evidence is bound to this very TLS connection',
  ),
  requestedModel: rule(
    'C4',
    'model_not_requested',
    `${PROTOCOL} §2`,
    'claims are for the model that was asked for',
  ),
  certificateChannel: rule(
    'C5',
    'certificate_channel',
    `${PROTOCOL} §6 [M17]`,
    'evidence is more than a certificate’s',
  ),
  session: rule('C6', 'session_resumed', `${PROTOCOL} §5 [M12]`, 'TLS session is new, not resumed'),
  tlsVersion: rule('C7', 'tls_version', `${PROTOCOL} §5 [M11]`, 'TLS is version 1.3 with HTTP/1.1 on it'),
  machine: rule('C8', 'machine_changed', `${PROTOCOL} §5`, 'connection is from the machine of the first one'),
  sealedChannel: rule(
    'C10',
    'sealed_channel',
    'Assay sealed bodies v1 §2 [B1]',
    'evidence is for sealed bodies: my nonce, no exporter, a key only its holder opens for',
  ),

  tee: rule('P1', 'tee_not_accepted', `${PROTOCOL} §7`, 'policy accepts this kind of TEE'),
  simulated: rule(
    'P2',
    'simulated_refused',
    `${PROTOCOL} §8 [M21]`,
    'evidence is of real hardware, or simulation was allowed',
  ),
  measurement: rule(
    'P4',
    'measurement_not_listed',
    `${PROTOCOL} §7`,
    'measured software is a reference value',
  ),
  models: rule('P5', 'model_not_listed', `${PROTOCOL} §7`, 'every model served is one the policy lists'),
  modelDigests: rule(
    'P6',
    'model_digest_mismatch',
    `${PROTOCOL} §7`,
    'every model served has the digest the policy lists',
  ),
  chips: rule('P7', 'chip_not_listed', `${PROTOCOL} §7`, 'machine is on the allow-list'),
  softwareRoot: rule(
    'P9',
    'software_root_not_accepted',
    `${PROTOCOL} §7 [M24]`,
    'policy accepts the party whose word known software is',
  ),
  configs: rule('P8', 'config_not_listed', `${PROTOCOL} §7`, 'effective configuration is on the allow-list'),
} as const satisfies Record<string, Rule>;
