// The rules of the TDX verifier, as data: ids and wording follow the T and E rows of the goal list in docs. One code per rule;
// a row that asks for several independent things has several rules under the same id.

import type { Rule } from '../transcript/checks.ts';

const DCAP = 'Intel TDX DCAP Quoting Library API, Appendix A';
const PCK = 'Intel SGX PCK Certificate and CRL Profile';
const PCS = 'Intel PCS API v4';
const TDX = 'Intel TDX Module 1.5 ABI (348551)';
const POLICY = 'appraisal policy';
const CCEL = 'TCG PC Client Platform Firmware Profile 1.06 §10; UEFI 2.10 §38 (CCEL)';

export const TDX_RULES = {
  header: {
    id: 'T1',
    code: 'tdx_quote_header',
    spec: `${DCAP}.3`,
    title: "quote header is one Intel's TD quoting enclave writes",
  },
  body: {
    id: 'T2',
    code: 'tdx_body_descriptor',
    spec: `${DCAP}.3`,
    title: 'quote body has the type and size it says',
  },
  signatureData: {
    id: 'T3',
    code: 'tdx_signature_data',
    spec: `${DCAP}.3`,
    title: 'signature data lengths consume exactly their bytes',
  },
  trailing: {
    id: 'T3',
    code: 'tdx_trailing_bytes',
    spec: `${DCAP}.3`,
    title: 'bytes after the signature data are zero',
  },
  quoteSignature: {
    id: 'T4',
    code: 'tdx_quote_signature',
    spec: `${DCAP}.3`,
    title: 'quote is signed by its attestation key',
  },
  attestationKey: {
    id: 'T5',
    code: 'tdx_attestation_key',
    spec: `${DCAP}.4`,
    title: 'QE report vouches for the attestation key',
  },
  qeSignature: {
    id: 'T6',
    code: 'tdx_qe_report_signature',
    spec: `${DCAP}.4`,
    title: 'QE report is signed by the PCK',
  },
  pckChain: {
    id: 'T7',
    code: 'tdx_pck_chain',
    spec: PCK,
    title: 'PCK certificate chains to the root through a PCK CA',
  },
  root: {
    id: 'T7',
    code: 'tdx_root_not_trusted',
    spec: PCK,
    title: 'root is the pinned Intel SGX Root CA, by public key',
  },
  roles: {
    id: 'T8',
    code: 'tdx_certificate_role',
    spec: PCK,
    title: 'every certificate has the name, constraints and usage of its role',
  },
  validity: {
    id: 'T9',
    code: 'tdx_certificate_expired',
    spec: 'RFC 5280 §4.1.2.5',
    title: 'every certificate is within its validity',
  },
  crl: {
    id: 'T10',
    code: 'tdx_crl_invalid',
    spec: PCK,
    title: 'root CRL and PCK CRL are signed by the right CA',
  },
  crlWindow: { id: 'T10', code: 'tdx_crl_expired', spec: 'RFC 5280 §5.1.2', title: 'both CRLs are current' },
  revocation: {
    id: 'T10',
    code: 'tdx_certificate_revoked',
    spec: PCK,
    title: 'no certificate in use is revoked',
  },
  pckExtensions: {
    id: 'T11',
    code: 'tdx_pck_extensions',
    spec: `${PCK} §1.3.5`,
    title: 'PCK has exactly the SGX extensions the profile gives',
  },
  tcbInfo: {
    id: 'T12',
    code: 'tdx_tcb_info',
    spec: `${PCS} TCB Info V3`,
    title: 'TCB info is for TDX, version 3, type 0',
  },
  tcbInfoSignature: {
    id: 'T12',
    code: 'tdx_tcb_info_signature',
    spec: PCS,
    title: 'TCB info bytes are signed by the TCB signing key',
  },
  tcbInfoWindow: { id: 'T12', code: 'tdx_tcb_info_expired', spec: PCS, title: 'TCB info is current' },
  platform: {
    id: 'T13',
    code: 'tdx_tcb_info_platform',
    spec: PCS,
    title: 'TCB info is for the FMSPC and PCEID of the PCK',
  },
  module: { id: 'T14', code: 'tdx_module_identity', spec: PCS, title: 'TDX module is one Intel lists' },
  platformTcb: {
    id: 'T15',
    code: 'tdx_platform_revoked',
    spec: PCS,
    title: "the platform's TCB level is not revoked",
  },
  convergence: {
    id: 'T16',
    code: 'tdx_tcb_convergence',
    spec: 'Intel QVL, convergeTcbStatuses',
    title: 'platform, module and QE converge: the worst wins',
  },
  level: { id: 'T17', code: 'tdx_no_tcb_level', spec: PCS, title: 'a TCB level matches the platform' },
  relaunch: {
    id: 'T18',
    code: 'tdx_relaunch_advised',
    spec: 'Intel QVL, TD relaunch check',
    title: 'the TCB that runs now is known, and no relaunch is advised',
  },
  qeIdentity: { id: 'T19', code: 'tdx_qe_identity', spec: PCS, title: "quoting enclave is Intel's TD_QE" },
  qeIdentitySignature: {
    id: 'T19',
    code: 'tdx_qe_identity_signature',
    spec: PCS,
    title: 'QE identity bytes are signed by the TCB signing key',
  },
  qeIdentityWindow: {
    id: 'T19',
    code: 'tdx_qe_identity_expired',
    spec: PCS,
    title: 'QE identity is current',
  },
  qeTcb: { id: 'T19', code: 'tdx_qe_tcb_level', spec: PCS, title: 'a TCB level matches the quoting enclave' },
  status: {
    id: 'T20',
    code: 'tdx_tcb_status',
    spec: POLICY,
    title: 'converged TCB status is one the policy accepts',
  },
  advisories: {
    id: 'T20',
    code: 'tdx_tcb_advisory',
    spec: POLICY,
    title: 'open security advisories are ones the policy accepts',
  },
  evaluationNumber: {
    id: 'T21',
    code: 'tdx_tcb_evaluation_number',
    spec: PCS,
    title: 'tcbEvaluationDataNumber is at least the floor',
  },
  rollback: {
    id: 'T21',
    code: 'tdx_collateral_rollback',
    spec: PCS,
    title: 'collateral is not older than any seen before',
  },
  teeTcbSvn: {
    id: 'T20',
    code: 'tdx_tee_tcb_svn',
    spec: POLICY,
    title: 'TEE_TCB_SVN, at launch and now, is at least the minimum in every component',
  },
  debug: { id: 'T22', code: 'tdx_debug', spec: TDX, title: 'TD is not debuggable' },
  reservedAttributes: {
    id: 'T22',
    code: 'tdx_reserved_attributes',
    spec: TDX,
    title: 'no TD attribute is set that profiles the guest or is not defined',
  },
  migratable: { id: 'T22', code: 'tdx_migratable', spec: TDX, title: 'TD cannot be migrated' },
  septVeDisable: { id: 'T22', code: 'tdx_sept_ve_disable', spec: TDX, title: 'SEPT_VE_DISABLE is set' },
  tdAttributes: {
    id: 'T22',
    code: 'tdx_attributes',
    spec: POLICY,
    title: 'TD attributes only protect, or are the expected ones',
  },
  xfamBits: {
    id: 'T23',
    code: 'tdx_xfam_bits',
    spec: TDX,
    title: 'XFAM has the fixed bits and none that no TD has',
  },
  xfam: { id: 'T23', code: 'tdx_xfam', spec: POLICY, title: 'XFAM needs no pin, or is the expected one' },
  seamAttributes: {
    id: 'T24',
    code: 'tdx_seam_attributes',
    spec: TDX,
    title: 'SEAM attributes are zero, or the expected ones',
  },
  mrSeam: { id: 'T24', code: 'tdx_mr_seam', spec: POLICY, title: 'MRSEAM is in the allow-list' },
  mrSignerSeam: {
    id: 'T24',
    code: 'tdx_mr_signer_seam',
    spec: POLICY,
    title: 'MRSIGNERSEAM is the expected one',
  },
  mrTd: { id: 'T25', code: 'tdx_mr_td', spec: POLICY, title: 'MRTD is a reference value' },
  rtmr0: { id: 'T25', code: 'tdx_rtmr0', spec: POLICY, title: 'RTMR0 is a reference value' },
  rtmr1: { id: 'T25', code: 'tdx_rtmr1', spec: POLICY, title: 'RTMR1 is a reference value' },
  rtmr2: { id: 'T25', code: 'tdx_rtmr2', spec: POLICY, title: 'RTMR2 is a reference value' },
  rtmr3: { id: 'T25', code: 'tdx_rtmr3', spec: POLICY, title: 'RTMR3 is a reference value' },
  mrConfigId: { id: 'T25', code: 'tdx_mr_config_id', spec: POLICY, title: 'MRCONFIGID is the expected one' },
  mrOwner: { id: 'T25', code: 'tdx_mr_owner', spec: POLICY, title: 'MROWNER is the expected one' },
  mrOwnerConfig: {
    id: 'T25',
    code: 'tdx_mr_owner_config',
    spec: POLICY,
    title: 'MROWNERCONFIG is the expected one',
  },
  mrServiceTd: {
    id: 'T26',
    code: 'tdx_mr_service_td',
    spec: TDX,
    title: 'no service TD is bound, or the expected one is',
  },
  reportData: {
    id: 'T27',
    code: 'tdx_report_data',
    spec: POLICY,
    title: 'REPORTDATA is the expected 64 bytes',
  },
  fmspc: {
    id: 'T28',
    code: 'tdx_fmspc',
    spec: POLICY,
    title: 'platform family (FMSPC) is in the allow-list',
  },
  ppid: { id: 'T28', code: 'tdx_ppid', spec: POLICY, title: 'platform (PPID) is in the allow-list' },
  pckSerial: {
    id: 'T28',
    code: 'tdx_pck_serial',
    spec: POLICY,
    title: 'PCK serial number is in the allow-list',
  },
  eventLog: {
    id: 'E1',
    code: 'tdx_event_log_replay',
    spec: CCEL,
    title: 'event log replays to the RTMRs of the quote',
  },
  eventContent: {
    id: 'E2',
    code: 'tdx_event_content',
    spec: CCEL,
    title: 'event data hashes to the event digest where the type says it must',
  },
  runtimeEvents: {
    id: 'E3',
    code: 'tdx_runtime_events',
    spec: 'dstack runtime events',
    title: 'runtime events replay to RTMR3',
  },
} as const satisfies Record<string, Rule>;
