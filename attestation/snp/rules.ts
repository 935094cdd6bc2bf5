// The rules of the SEV-SNP verifier, one row per check of the list, one code per rule. Transcripts carry them in the order
// of VERIFY_ORDER: what makes the report readable, then what makes it authentic, then what the policy asks.
// Sources: [ABI] AMD 56860 SEV-SNP Firmware ABI rev 1.58; [KDS] AMD 57230 VCEK/VLEK certificate and KDS interface rev 1.00.

import type { Rule } from '../transcript/checks.ts';

const ABI = 'AMD 56860 rev 1.58';
const KDS = 'AMD 57230';

export const SNP_RULES = {
  S1: {
    id: 'S1',
    code: 'snp_signature',
    spec: `${ABI} §7.3, §10`,
    title: 'report is 0x4A0 bytes, bytes 0..0x2A0 as received are signed by the VEK',
  },
  S2: { id: 'S2', code: 'snp_version', spec: `${ABI} §7.3`, title: 'report version is 2, 3, 4 or 5' },
  S3: {
    id: 'S3',
    code: 'snp_signature_algorithm',
    spec: `${ABI} §10`,
    title: 'signature algorithm is ECDSA P-384 with SHA-384',
  },
  S4: {
    id: 'S4',
    code: 'snp_signature_encoding',
    spec: `${ABI} §10`,
    title: 'R and S are canonical and in range',
  },
  S5: {
    id: 'S5',
    code: 'snp_signature_tail',
    spec: `${ABI} §10`,
    title: 'unsigned bytes after the signature are zero',
  },
  S6: { id: 'S6', code: 'snp_reserved', spec: `${ABI} §7.3`, title: 'reserved fields are zero' },
  S7: {
    id: 'S7',
    code: 'snp_guest_policy_reserved',
    spec: `${ABI} §4.3`,
    title: 'guest policy bit 17 is one, bits 63:26 are zero',
  },
  S8: {
    id: 'S8',
    code: 'snp_signing_key',
    spec: `${ABI} §7.3`,
    title: 'SIGNING_KEY names the kind of certificate presented',
  },
  S9: {
    id: 'S9',
    code: 'snp_key_info',
    spec: `${ABI} §7.3`,
    title: 'KEY_INFO is consistent, the chip key is not masked',
  },
  S10: {
    id: 'S10',
    code: 'snp_product',
    spec: `${KDS} §3.1, §4`,
    title: 'CPUID, root, issuer and productName agree on the product',
  },
  S11: {
    id: 'S11',
    code: 'snp_chain',
    spec: `${KDS} §3`,
    title: 'VEK is issued by ASK or ASVK, and that by a trusted ARK',
  },
  S12: {
    id: 'S12',
    code: 'snp_vek_key',
    spec: `${KDS} §3.1`,
    title: 'VEK is a P-384 key named SEV-VCEK or SEV-VLEK',
  },
  S13: {
    id: 'S13',
    code: 'snp_certificate_validity',
    spec: 'RFC 5280 §6.1.3',
    title: 'every certificate is valid now',
  },
  S14: { id: 'S14', code: 'snp_vek_tcb', spec: `${KDS} §3.1`, title: 'VEK was made for the reported TCB' },
  S15: {
    id: 'S15',
    code: 'snp_vek_extensions',
    spec: `${KDS} §3.1`,
    title: 'VEK extensions are each there once, and nothing else',
  },
  S16: {
    id: 'S16',
    code: 'snp_hwid',
    spec: `${KDS} §3.1`,
    title: 'HWID of the VCEK is the chip id of the report',
  },
  S17: {
    id: 'S17',
    code: 'snp_tcb_layout',
    spec: `${ABI} §2.2`,
    title: "TCB versions follow the product's layout",
  },
  S18: { id: 'S18', code: 'snp_vlek', spec: `${KDS} §3.1`, title: 'VLEK names a provider and no chip' },
  S19: {
    id: 'S19',
    code: 'snp_crl',
    spec: `${KDS} §4; RFC 5280 §6.3`,
    title: 'CRL is authentic and current and lists no certificate of the chain',
  },
  S20: {
    id: 'S20',
    code: 'snp_crl_rollback',
    spec: 'RFC 5280 §5.2.3',
    title: 'CRL is not older than one seen before',
  },
  S21: {
    id: 'S21',
    code: 'snp_guest_policy',
    spec: `${ABI} §4.3`,
    title: 'guest policy allows nothing that is not allowed here',
  },
  S22: {
    id: 'S22',
    code: 'snp_platform_info',
    spec: `${ABI} §7.3`,
    title: 'platform has the protections required',
  },
  S23: {
    id: 'S23',
    code: 'snp_vmpl',
    spec: `${ABI} §7.3`,
    title: 'report was requested from the expected VMPL',
  },
  S24: {
    id: 'S24',
    code: 'snp_tcb_order',
    spec: `${ABI} §3.3`,
    title: 'reported ≤ committed ≤ current, launch ≤ current',
  },
  S25: {
    id: 'S25',
    code: 'snp_minimum_tcb',
    spec: `${ABI} §2.2`,
    title: 'TCB and firmware are at least the minimum',
  },
  S26: {
    id: 'S26',
    code: 'snp_mitigations',
    spec: `${ABI} §7.3`,
    title: 'required mitigations and those of the launch are active',
  },
  S27: {
    id: 'S27',
    code: 'snp_measurement',
    spec: `${ABI} §7.3`,
    title: 'launch measurement is a reference value',
  },
  S28: {
    id: 'S28',
    code: 'snp_guest_identity',
    spec: `${ABI} §7.3`,
    title: 'host data, family id, image id and guest SVN are as expected',
  },
  S29: {
    id: 'S29',
    code: 'snp_id_key',
    spec: `${ABI} §7.3`,
    title: 'id key and author key digests are as expected',
  },
  S30: {
    id: 'S30',
    code: 'snp_migration_agent',
    spec: `${ABI} §7.3`,
    title: 'no migration agent is bound unless allowed',
  },
  S31: { id: 'S31', code: 'snp_chip_not_listed', spec: `${ABI} §7.3`, title: 'chip is on the list of chips' },
  S32: {
    id: 'S32',
    code: 'snp_report_data',
    spec: `${ABI} §7.3`,
    title: 'all 64 bytes of report data are as expected',
  },
} as const satisfies Record<string, Rule>;

export type SnpRuleId = keyof typeof SNP_RULES;
