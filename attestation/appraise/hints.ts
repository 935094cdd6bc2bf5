// Advice on refusals, one sentence per code: what the reader can do. Codes of input errors have none, because
// their message already says it.

import type { AttestationCode } from '../transcript/codes.ts';

const INTERRUPTED = 'something between you and the guest terminates TLS; connect to the guest directly';
const OTHER_BYTES =
  'the evidence was changed, cut or put together from several; take it anew from the machine';
const REPRODUCE =
  'compare with the measurement published for the release you expect; list it only after reproducing it';
const COLLATERAL =
  'fetch the collateral anew from Intel (or a PCCS) for this platform, all of it at one time';
const CLOCK = 'look at the clock (`now`) first, then fetch what has run out anew';
const PIN = 'compare with what you launch; change the policy only if this value is the one you mean';
const MANIFEST = "fetch the manifest anew from NVIDIA's service, byte for byte: it was changed on its way";
const REAL_SNP =
  'only a report of real hardware, as its firmware wrote it, passes; take it anew from the machine';

const HINTS: Readonly<Partial<Record<AttestationCode, string>>> = {
  simulated_refused:
    'for trying things out, allow the simulated TEE (`allowSimulated` in code); never for real prompts',
  snp_measurement: REPRODUCE,
  measurement_not_listed: REPRODUCE,
  model_not_listed: 'add the model and its sha256 to the policy, or stop serving it',
  model_digest_mismatch: 'compare with `sha256sum` of the file you expect; the server reads other bytes',
  exporter_mismatch: INTERRUPTED,
  tls_key_mismatch: INTERRUPTED,
  nonce_mismatch: 'the evidence was made for someone else or earlier; it may have been replayed',
  tee_not_accepted: 'add this kind of TEE to `tee` in the policy if you accept it',
  chip_not_listed: 'add the chip to `chips` in the policy only if you know where the machine stands',
  config_not_listed:
    'compare with the configuration you expect; list its digest in `configs` if it is the one',
  // SEV-SNP
  snp_signature: OTHER_BYTES,
  snp_signature_algorithm: REAL_SNP,
  snp_signature_encoding: REAL_SNP,
  snp_signature_tail: 'give the report as the firmware wrote it, without anything in its padding',
  snp_reserved: REAL_SNP,
  snp_guest_policy_reserved: REAL_SNP,
  snp_signing_key: 'give the VCEK for a report signed by a VCEK, the VLEK for one signed by a VLEK',
  snp_key_info: REAL_SNP,
  snp_product: 'give the VEK and the chain of the product the report is of: Milan, Genoa or Turin',
  snp_chain:
    "give AMD's chain for this product, ASK (for a VLEK: ASVK) first, then ARK, as the KDS serves it",
  snp_vek_key: 'give the VCEK or VLEK certificate itself, not one of its chain',
  snp_certificate_validity: CLOCK,
  snp_vek_tcb:
    'fetch the VCEK for the REPORTED_TCB of this report: its bootloader, TEE, SNP and microcode versions',
  snp_vek_extensions: 'take the VEK anew from the KDS; AMD issues none like this',
  snp_hwid: 'fetch the VCEK for the CHIP_ID of this report; this one belongs to another machine',
  snp_tcb_layout: REAL_SNP,
  snp_vlek:
    "list the provider in the policy's `cspIds` if you accept it, or ask for a report signed by the VCEK",
  snp_crl:
    'give the current CRL of the product, as the KDS serves it; a certificate it lists can be used no more',
  snp_crl_rollback: 'fetch the CRL anew: this one is older than one that was seen before',
  snp_guest_policy:
    'the guest was launched with a weaker policy=… than guestPolicy asks: relaunch it as docs/hardware.md says for that grade, or ask for the grade it has',
  snp_platform_info: 'switch the protection on in the firmware of the host, or do without it in the policy',
  snp_vmpl: 'ask for the report at the level the policy expects, or change `vmpl`',
  snp_tcb_order: REAL_SNP,
  snp_minimum_tcb: 'update the firmware of the host, then relaunch; or lower `minimumTcb`',
  snp_mitigations: 'update the firmware of the host, then relaunch the guest',
  snp_guest_identity: PIN,
  snp_id_key: PIN,
  snp_migration_agent: 'launch the guest without a migration agent',
  snp_chip_not_listed: 'add the chip to the policy only if you know where the machine stands',
  snp_report_data: 'the report was made for another challenge or key: ask for a new one with yours',
  // TDX
  tdx_quote_header: OTHER_BYTES,
  tdx_trailing_bytes: 'cut the quote at its own end; only zeros may follow it',
  tdx_quote_signature: OTHER_BYTES,
  tdx_attestation_key: OTHER_BYTES,
  tdx_qe_report_signature: 'give the PCK chain of the platform that made the quote',
  tdx_pck_chain: 'give each chain whole and in order, leaf first, root last, as Intel serves it',
  tdx_root_not_trusted: "only Intel's SGX root counts; simulated evidence has a root of its own",
  tdx_certificate_role: 'give each chain under its own key: PCK, TCB signing, CRL issuer',
  tdx_certificate_expired: CLOCK,
  tdx_crl_invalid: COLLATERAL,
  tdx_crl_expired: CLOCK,
  tdx_certificate_revoked: 'Intel has revoked it: this platform, or this collateral, can be used no more',
  tdx_pck_extensions: 'take the PCK certificate anew from Intel; it issues none like this',
  tdx_tcb_info: "fetch Intel's TCB info for TDX, version 4 of the service: /tdx/certification/v4/tcb?fmspc=…",
  tdx_tcb_info_signature: COLLATERAL,
  tdx_tcb_info_expired: CLOCK,
  tdx_tcb_info_platform: 'fetch the TCB info for the FMSPC of this PCK',
  tdx_module_identity: 'the host must load a TDX module Intel has published',
  tdx_platform_revoked: 'Intel has revoked this TCB level: update the platform, then relaunch',
  tdx_tcb_convergence: 'update the platform, then relaunch; see tcbStatus',
  tdx_no_tcb_level: 'update the platform, or fetch newer TCB info; see tcbStatus',
  tdx_relaunch_advised: 'relaunch the TD on what runs now',
  tdx_qe_identity: "only quotes of Intel's own quoting enclave count; fetch the QE identity anew",
  tdx_qe_identity_signature: COLLATERAL,
  tdx_qe_identity_expired: CLOCK,
  tdx_qe_tcb_level: 'update the quoting enclave of the host',
  tdx_tcb_status: 'the platform needs an update; see tcbStatus',
  tdx_tcb_advisory: 'update the platform, or accept the advisory by name in the policy',
  tdx_tee_tcb_svn: 'update the TDX module or the platform, then relaunch; or lower the minimum',
  tdx_tcb_evaluation_number: 'fetch the collateral anew with `update=early`, or lower the floor',
  tdx_collateral_rollback: 'fetch the collateral anew: it is older than what was seen before',
  tdx_debug: 'launch the TD without the debug attribute; nothing in a debuggable one is secret',
  tdx_reserved_attributes: 'launch the TD without these attributes',
  tdx_migratable: 'launch the TD as not migratable, or allow it with `allowMigratable`',
  tdx_sept_ve_disable: 'launch the TD with sept-ve-disable=on',
  tdx_attributes: PIN,
  tdx_xfam_bits: 'launch the TD with features this verifier knows',
  tdx_xfam: PIN,
  tdx_seam_attributes: 'the host must load the TDX module Intel has published, without attributes',
  tdx_mr_seam: 'add the MRSEAM of the module if you accept it',
  tdx_mr_signer_seam: 'only modules signed by Intel have a signer of zero',
  tdx_mr_td: REPRODUCE,
  tdx_rtmr0: REPRODUCE,
  tdx_rtmr1: REPRODUCE,
  tdx_rtmr2: REPRODUCE,
  tdx_rtmr3: REPRODUCE,
  tdx_mr_config_id: PIN,
  tdx_mr_owner: PIN,
  tdx_mr_owner_config: PIN,
  tdx_mr_service_td: 'launch the TD without a service TD, or name its measurement in `mrServiceTd`',
  tdx_report_data: 'the quote was made for another challenge or key: ask for a new one with yours',
  tdx_fmspc: PIN,
  tdx_ppid: 'list the platform in the policy only if you know where it stands',
  tdx_pck_serial: PIN,
  tdx_event_log_replay: 'give the event log of this boot of this machine',
  tdx_event_content: 'give the event log as the firmware wrote it',
  tdx_runtime_events: 'give the runtime events of this boot of this machine, all of them',
  // NVIDIA
  gpu_evidence: 'hand `gpu` of @assay/attestation/gpu over with the options',
  gpu_missing:
    'the server attests no GPU: set `tee.gpu_collect` there, or `required` to false in section `gpu`',
  gpu_not_bound: 'these are not the devices that the CPU vouched for: ask for a new document',
  gpu_trailing_bytes: 'cut each report at the end of its signature',
  gpu_chain: "give each device's certificates whole and in order, leaf first, as NVIDIA's tool prints them",
  gpu_root: "only NVIDIA's device root counts; simulated evidence has a root of its own",
  gpu_validity: CLOCK,
  gpu_signature: OTHER_BYTES,
  gpu_arch: OTHER_BYTES,
  gpu_nonce: 'the devices answered another challenge, or are those of another machine: ask for new evidence',
  gpu_fwid: OTHER_BYTES,
  gpu_nvdec0: OTHER_BYTES,
  gpu_duplicate: 'give the evidence of each device once',
  gpu_ocsp:
    "staple NVIDIA's OCSP answers about every certificate (`tee.gpu_ocsp_url` on the server); `revocation` in section `gpu` says what may lack them",
  gpu_ocsp_stale: 'fetch the OCSP answers anew, or raise `ocspMaxAge` in section `gpu`',
  gpu_revoked: 'NVIDIA has revoked it: this device, or this manifest, can be used no more',
  gpu_hold: 'wait until NVIDIA lifts the hold; `allowHold` in section `gpu` accepts it meanwhile',
  gpu_rim_missing:
    "staple NVIDIA's manifests of this driver and this VBIOS (`tee.gpu_rim_url` on the server); the detail names them",
  gpu_rim_xml: MANIFEST,
  gpu_rim_envelope: MANIFEST,
  gpu_rim_entries: MANIFEST,
  gpu_rim_digest: MANIFEST,
  gpu_rim_signature: MANIFEST,
  gpu_rim_chain: MANIFEST,
  gpu_rim_expired:
    'look at the clock first, then update driver or VBIOS to one with a manifest that is valid',
  gpu_rim_version: 'give the manifests of the versions that run; the report names them',
  gpu_rim_product: 'give the manifests of this product: its project, SKU and chip are in their id',
  gpu_rim_conflict: MANIFEST,
  gpu_measurements:
    'firmware or driver is not what its manifest lists: update it and reset the device; do not use it as it is',
  gpu_topology:
    'give the evidence of all GPUs and all NVSwitches of the machine; for a part of one, `topology` "any" in section `gpu`',
  gpu_mode: 'set all GPUs to one mode of confidential computing that `mode` in section `gpu` lists',
  gpu_count:
    'the server shows another number of GPUs than `count` in section `gpu`: pass all through, or change it',
  gpu_arch_not_listed: PIN,
  gpu_driver_version: 'update the driver, or lower `minDriver`',
  gpu_vbios_version: 'update the VBIOS, or list its project in `minVbios`',
  gpu_ueid_not_listed: 'list the device in `ueids` only if you know where it stands',
};

export function hintOf(code: AttestationCode | undefined): string | undefined {
  return code === undefined ? undefined : HINTS[code];
}
