// The rules of the TDX verifier, as data: T1 to T28 judge quote, certificates, collateral and TCB, E1 to E3
// the event log. One code per rule; an id that asks for several independent things has several rules.

import { rule, type Rule } from '../transcript/checks.ts';

const DCAP = 'Intel TDX DCAP Quoting Library API, Appendix A';
const PCK = 'Intel SGX PCK Certificate and CRL Profile';
const PCS = 'Intel PCS API v4';
const TDX = 'Intel TDX Module 1.5 ABI (348551)';
const POLICY = 'appraisal policy';
const CCEL = 'TCG PC Client Platform Firmware Profile 1.06 §10; UEFI 2.10 §38 (CCEL)';

/**
 * Rules of TDX evidence by name: quote, certificates, collateral, TCB and event log (Intel TDX DCAP quote
 * format).
 */
export const TDX_RULES = {
  header: rule(
    'T1',
    'tdx_quote_header',
    `${DCAP}.3`,
    "quote header is one Intel's TD quoting enclave writes",
  ),
  body: rule('T2', 'tdx_body_descriptor', `${DCAP}.3`, 'quote body has the type and size it says'),
  signatureData: rule(
    'T3',
    'tdx_signature_data',
    `${DCAP}.3`,
    'signature data lengths consume exactly their bytes',
  ),
  trailing: rule('T3', 'tdx_trailing_bytes', `${DCAP}.3`, 'bytes after the signature data are zero'),
  quoteSignature: rule('T4', 'tdx_quote_signature', `${DCAP}.3`, 'quote is signed by its attestation key'),
  attestationKey: rule('T5', 'tdx_attestation_key', DCAP, 'QE report vouches for the attestation key'),
  qeSignature: rule('T6', 'tdx_qe_report_signature', DCAP, 'QE report is signed by the PCK'),
  pckChain: rule('T7', 'tdx_pck_chain', PCK, 'PCK certificate chains to the root through a PCK CA'),
  root: rule('T7', 'tdx_root_not_trusted', PCK, 'root is the pinned Intel SGX Root CA, by public key'),
  roles: rule(
    'T8',
    'tdx_certificate_role',
    PCK,
    'every certificate has the name, constraints and usage of its role',
  ),
  validity: rule(
    'T9',
    'tdx_certificate_expired',
    'RFC 5280 §4.1.2.5',
    'every certificate is within its validity',
  ),
  crl: rule('T10', 'tdx_crl_invalid', PCK, 'root CRL and PCK CRL are signed by the right CA'),
  crlWindow: rule('T10', 'tdx_crl_expired', 'RFC 5280 §5.1.2', 'both CRLs are current'),
  revocation: rule('T10', 'tdx_certificate_revoked', PCK, 'no certificate in use is revoked'),
  pckExtensions: rule(
    'T11',
    'tdx_pck_extensions',
    `${PCK} §1.3.5`,
    'PCK has exactly the SGX extensions the profile gives',
  ),
  tcbInfo: rule('T12', 'tdx_tcb_info', `${PCS} TCB Info V3`, 'TCB info is for TDX, version 3, type 0'),
  tcbInfoSignature: rule(
    'T12',
    'tdx_tcb_info_signature',
    PCS,
    'TCB info bytes are signed by the TCB signing key',
  ),
  tcbInfoWindow: rule('T12', 'tdx_tcb_info_expired', PCS, 'TCB info is current'),
  platform: rule('T13', 'tdx_tcb_info_platform', PCS, 'TCB info is for the FMSPC and PCEID of the PCK'),
  module: rule('T14', 'tdx_module_identity', PCS, 'TDX module is one Intel lists'),
  platformTcb: rule('T15', 'tdx_platform_revoked', PCS, "the platform's TCB level is not revoked"),
  convergence: rule(
    'T16',
    'tdx_tcb_convergence',
    'Intel QVL, convergeTcbStatuses',
    'platform, module and QE converge: the worst wins',
  ),
  level: rule('T17', 'tdx_no_tcb_level', PCS, 'a TCB level matches the platform'),
  relaunch: rule(
    'T18',
    'tdx_relaunch_advised',
    'Intel QVL, TD relaunch check',
    'the TCB that runs now is known, and no relaunch is advised',
  ),
  qeIdentity: rule('T19', 'tdx_qe_identity', PCS, "quoting enclave is Intel's TD_QE"),
  qeIdentitySignature: rule(
    'T19',
    'tdx_qe_identity_signature',
    PCS,
    'QE identity bytes are signed by the TCB signing key',
  ),
  qeIdentityWindow: rule('T19', 'tdx_qe_identity_expired', PCS, 'QE identity is current'),
  qeTcb: rule('T19', 'tdx_qe_tcb_level', PCS, 'a TCB level matches the quoting enclave'),
  status: rule('T20', 'tdx_tcb_status', POLICY, 'converged TCB status is one the policy accepts'),
  advisories: rule('T20', 'tdx_tcb_advisory', POLICY, 'open security advisories are ones the policy accepts'),
  evaluationNumber: rule(
    'T21',
    'tdx_tcb_evaluation_number',
    PCS,
    'tcbEvaluationDataNumber is at least the floor',
  ),
  rollback: rule('T21', 'tdx_collateral_rollback', PCS, 'collateral is not older than any seen before'),
  teeTcbSvn: rule(
    'T20',
    'tdx_tee_tcb_svn',
    POLICY,
    'TEE_TCB_SVN, at launch and now, is at least the minimum in every component',
  ),
  debug: rule('T22', 'tdx_debug', TDX, 'TD is not debuggable'),
  reservedAttributes: rule(
    'T22',
    'tdx_reserved_attributes',
    TDX,
    'no TD attribute is set that profiles the guest or is not defined',
  ),
  migratable: rule('T22', 'tdx_migratable', TDX, 'TD cannot be migrated'),
  septVeDisable: rule('T22', 'tdx_sept_ve_disable', TDX, 'SEPT_VE_DISABLE is set'),
  tdAttributes: rule('T22', 'tdx_attributes', POLICY, 'TD attributes only protect, or are the expected ones'),
  xfamBits: rule('T23', 'tdx_xfam_bits', TDX, 'XFAM has the fixed bits and none that no TD has'),
  xfam: rule('T23', 'tdx_xfam', POLICY, 'XFAM needs no pin, or is the expected one'),
  seamAttributes: rule('T24', 'tdx_seam_attributes', TDX, 'SEAM attributes are zero, or the expected ones'),
  mrSeam: rule('T24', 'tdx_mr_seam', POLICY, 'MRSEAM is in the allow-list'),
  mrSignerSeam: rule('T24', 'tdx_mr_signer_seam', POLICY, 'MRSIGNERSEAM is the expected one'),
  mrTd: rule('T25', 'tdx_mr_td', POLICY, 'MRTD is a reference value'),
  rtmr0: rule('T25', 'tdx_rtmr0', POLICY, 'RTMR0 is a reference value'),
  rtmr1: rule('T25', 'tdx_rtmr1', POLICY, 'RTMR1 is a reference value'),
  rtmr2: rule('T25', 'tdx_rtmr2', POLICY, 'RTMR2 is a reference value'),
  rtmr3: rule('T25', 'tdx_rtmr3', POLICY, 'RTMR3 is a reference value'),
  mrConfigId: rule('T25', 'tdx_mr_config_id', POLICY, 'MRCONFIGID is the expected one'),
  mrOwner: rule('T25', 'tdx_mr_owner', POLICY, 'MROWNER is the expected one'),
  mrOwnerConfig: rule('T25', 'tdx_mr_owner_config', POLICY, 'MROWNERCONFIG is the expected one'),
  mrServiceTd: rule('T26', 'tdx_mr_service_td', TDX, 'no service TD is bound, or the expected one is'),
  reportData: rule('T27', 'tdx_report_data', POLICY, 'REPORTDATA is the expected 64 bytes'),
  fmspc: rule('T28', 'tdx_fmspc', POLICY, 'platform family (FMSPC) is in the allow-list'),
  ppid: rule('T28', 'tdx_ppid', POLICY, 'platform (PPID) is in the allow-list'),
  pckSerial: rule('T28', 'tdx_pck_serial', POLICY, 'PCK serial number is in the allow-list'),
  eventLog: rule('E1', 'tdx_event_log_replay', CCEL, 'event log replays to the RTMRs of the quote'),
  eventContent: rule(
    'E2',
    'tdx_event_content',
    CCEL,
    'event data hashes to the event digest where the type says it must',
  ),
  runtimeEvents: rule('E3', 'tdx_runtime_events', 'dstack runtime events', 'runtime events replay to RTMR3'),
} as const satisfies Record<string, Rule>;
