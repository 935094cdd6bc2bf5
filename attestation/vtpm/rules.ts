// The rules on TPM-rooted evidence, as data: V judges a TPM's quote and event log, Z the report of Azure's
// paravisor, N documents of AWS Nitro, K the init data of Kata containers. One code per rule.

import { rule, type Rule } from '../transcript/checks.ts';

const TPM = 'TPM 2.0 Library Part 2';
const PFP = 'TCG PC Client Platform Firmware Profile 1.06';
const HCL = 'Azure confidential VM guest attestation (HCL report)';
const NITRO = 'AWS Nitro attestation document';
const COSE = 'RFC 9052 §4.2';
const PROTOCOL = 'Assay protocol v1';

/** Rules V: a quote (TPMS_ATTEST), its attestation key and its event log. */
export const TPM_RULES = {
  form: rule('V1', 'tpm_magic', `${TPM} §10.12.8`, 'quote is a structure only a TPM signs'),
  signature: rule('V2', 'tpm_signature', `${TPM} §11.3`, 'quote is signed by the attestation key'),
  challenge: rule(
    'V3',
    'tpm_challenge',
    `${PROTOCOL} §2 [M1]`,
    'extraData of the quote is the whole challenge: SHA-256 of report_data',
  ),
  pcrDigest: rule('V4', 'tpm_pcr_digest', `${TPM} §10.12.1`, 'PCR values are the ones quoted'),
  pcrSelected: rule('V5', 'tpm_pcr_missing', `${TPM} §10.6`, 'quote covers every PCR that is asked for'),
  pcrValues: rule('V6', 'tpm_pcr_policy', 'appraisal policy', 'PCR values are the expected ones'),
  akCertificate: rule(
    'V7',
    'ak_certificate',
    'TCG EK Credential Profile 2.5',
    'attestation key has a certificate of the cloud’s pinned TPM root',
  ),
  eventLog: rule('V8', 'tpm_event_log_replay', `${PFP} §10`, 'event log replays to the quoted PCRs'),
  eventContent: rule('V9', 'tpm_event_content', `${PFP} §10.4`, 'event data is what was hashed'),
} as const satisfies Record<string, Rule>;

/** Rules Z: what the paravisor of an Azure guest says, and whose word that is. */
export const AZURE_RULES = {
  form: rule('Z1', 'hcl_format', HCL, 'HCL report has the header and the kinds it names'),
  length: rule('Z2', 'hcl_length', HCL, 'HCL report is 2600 bytes, its lengths agree, the rest is zero'),
  hash: rule('Z3', 'hcl_hash', HCL, 'CPU’s REPORT_DATA is the hash of the runtime JSON as it lies there'),
  json: rule('Z4', 'hcl_json', HCL, 'runtime JSON has one value for every key'),
  key: rule('Z5', 'hcl_ak', HCL, 'runtime JSON names one attestation key, HCLAkPub'),
  report: rule('Z6', 'hcl_report_mismatch', HCL, 'report inside is the one the CPU signed'),
  tdReport: rule('Z6', 'tdreport_quote_mismatch', HCL, 'TDREPORT inside says what the TD quote says'),
  paravisor: rule(
    'Z7',
    'paravisor_not_listed',
    'appraisal policy',
    'measurement of the paravisor is on the allow-list',
  ),
  configuration: rule(
    'Z8',
    'hcl_configuration',
    'appraisal policy',
    'secure boot, console and TPM state of the VM are as required',
  ),
} as const satisfies Record<string, Rule>;

/** Rules N: documents of the Nitro hypervisor, for an instance’s TPM or for an Enclave. */
export const NITRO_RULES = {
  form: rule('N1', 'cose_format', COSE, 'document is one bare COSE_Sign1 with a Nitro payload'),
  algorithm: rule('N2', 'cose_alg', 'RFC 9053 §2.1', 'protected header is ES384 alone'),
  chain: rule('N3', 'nitro_chain', NITRO, 'certificate chains to the pinned Nitro root'),
  signature: rule('N4', 'cose_signature', COSE, 'document is signed by the key of its certificate'),
  kind: rule('N5', 'nitro_kind', NITRO, 'document is of the kind asked for: instance TPM or Enclave'),
  window: rule('N6', 'nitro_window', NITRO, 'every certificate is valid now, and the document is recent'),
  debug: rule('N7', 'nitro_debug', NITRO, 'Enclave is not in debug mode'),
  challenge: rule(
    'N8',
    'nitro_challenge',
    `${PROTOCOL} §2 [M1]`,
    'user_data and nonce are the bytes expected: user_data is report_data',
  ),
  commandLine: rule(
    'N9',
    'nitro_command_line',
    NITRO,
    'PCR12 is zero: no command line from outside the measured image',
  ),
  pcrValues: rule('N10', 'nitro_pcr_policy', 'appraisal policy', 'PCR values are the expected ones'),
} as const satisfies Record<string, Rule>;

/** Rules K: Kata containers. */
export const KATA_RULES = {
  register: rule(
    'K1',
    'initdata_mismatch',
    'Confidential Containers init data 0.1.0',
    'digest of the init data is in the register of the guest',
  ),
} as const satisfies Record<string, Rule>;
