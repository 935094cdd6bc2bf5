// The rules of the SEV-SNP verifier, as data: one row per check, one code per rule. Transcripts carry them in
// the order of VERIFY_ORDER: what makes the report readable, then what makes it authentic, then what the
// policy asks. Sources: [ABI] AMD 56860 SEV-SNP Firmware ABI rev 1.58; [KDS] AMD 57230 VCEK/VLEK certificate
// and KDS interface rev 1.00.

import { rule, type Rule } from '../transcript/checks.ts';

const ABI = 'AMD 56860 rev 1.58';
const KDS = 'AMD 57230';

/** Rules of SEV-SNP evidence by id: signature, certificates, CRL and policy (AMD 56860, AMD 57230). */
export const SNP_RULES = {
  S1: rule(
    'S1',
    'snp_signature',
    `${ABI} §7.3, §10`,
    'report is 0x4A0 bytes, bytes 0..0x2A0 as received are signed by the VEK',
  ),
  S2: rule('S2', 'snp_version', `${ABI} §7.3`, 'report version is 2, 3, 4 or 5'),
  S3: rule('S3', 'snp_signature_algorithm', `${ABI} §10`, 'signature algorithm is ECDSA P-384 with SHA-384'),
  S4: rule('S4', 'snp_signature_encoding', `${ABI} §10`, 'R and S are canonical and in range'),
  S5: rule('S5', 'snp_signature_tail', `${ABI} §10`, 'unsigned bytes after the signature are zero'),
  S6: rule('S6', 'snp_reserved', `${ABI} §7.3`, 'reserved fields are zero'),
  S7: rule(
    'S7',
    'snp_guest_policy_reserved',
    `${ABI} §4.3`,
    'guest policy bit 17 is one, bits 63:26 are zero',
  ),
  S8: rule('S8', 'snp_signing_key', `${ABI} §7.3`, 'SIGNING_KEY names the kind of certificate presented'),
  S9: rule('S9', 'snp_key_info', `${ABI} §7.3`, 'KEY_INFO is consistent, the chip key is not masked'),
  S10: rule(
    'S10',
    'snp_product',
    `${KDS} §3.1, §4`,
    'CPUID, root, issuer and productName agree on the product',
  ),
  S11: rule('S11', 'snp_chain', `${KDS} §3`, 'VEK is issued by ASK or ASVK, and that by a trusted ARK'),
  S12: rule('S12', 'snp_vek_key', `${KDS} §3.1`, 'VEK is a P-384 key named SEV-VCEK or SEV-VLEK'),
  S13: rule('S13', 'snp_certificate_validity', 'RFC 5280 §6.1.3', 'every certificate is valid now'),
  S14: rule('S14', 'snp_vek_tcb', `${KDS} §3.1`, 'VEK was made for the reported TCB'),
  S15: rule(
    'S15',
    'snp_vek_extensions',
    `${KDS} §3.1`,
    'VEK extensions are each there once, and nothing else',
  ),
  S16: rule('S16', 'snp_hwid', `${KDS} §3.1`, 'HWID of the VCEK is the chip id of the report'),
  S17: rule('S17', 'snp_tcb_layout', `${ABI} §2.2`, "TCB versions follow the product's layout"),
  S18: rule('S18', 'snp_vlek', `${KDS} §3.1`, 'VLEK names a provider and no chip'),
  S19: rule(
    'S19',
    'snp_crl',
    `${KDS} §4; RFC 5280 §6.3`,
    'CRL is authentic and current and lists no certificate of the chain',
  ),
  S20: rule('S20', 'snp_crl_rollback', 'RFC 5280 §5.2.3', 'CRL is not older than one seen before'),
  S21: rule('S21', 'snp_guest_policy', `${ABI} §4.3`, 'guest policy allows nothing that is not allowed here'),
  S22: rule('S22', 'snp_platform_info', `${ABI} §7.3`, 'platform has the protections required'),
  S23: rule('S23', 'snp_vmpl', `${ABI} §7.3`, 'report was requested from the expected VMPL'),
  S24: rule('S24', 'snp_tcb_order', ABI, 'reported ≤ committed ≤ current, launch ≤ current'),
  S25: rule('S25', 'snp_minimum_tcb', `${ABI} §2.2`, 'TCB and firmware are at least the minimum'),
  S26: rule(
    'S26',
    'snp_mitigations',
    `${ABI} §7.3`,
    'required mitigations and those of the launch are active',
  ),
  S27: rule('S27', 'snp_measurement', `${ABI} §7.3`, 'launch measurement is a reference value'),
  S28: rule(
    'S28',
    'snp_guest_identity',
    `${ABI} §7.3`,
    'host data, family id, image id and guest SVN are as expected',
  ),
  S29: rule('S29', 'snp_id_key', `${ABI} §7.3`, 'id key and author key digests are as expected'),
  S30: rule('S30', 'snp_migration_agent', `${ABI} §7.3`, 'no migration agent is bound unless allowed'),
  S31: rule('S31', 'snp_chip_not_listed', `${ABI} §7.3`, 'chip is on the list of chips'),
  S32: rule('S32', 'snp_report_data', `${ABI} §7.3`, 'all 64 bytes of report data are as expected'),
} as const satisfies Record<string, Rule>;

export type SnpRuleId = keyof typeof SNP_RULES;
