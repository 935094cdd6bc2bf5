// The rules of the NVIDIA verifier, as data: one row per check, one code per rule. A transcript has each row
// once, for all devices together, in this order: what makes reports authentic, what makes the reference
// manifests authentic, the comparison, then what the policy asks. G34 and G35, which bind the evidence to
// that of a CPU, come first, in documents alone.

import { rule, type Rule } from '../transcript/checks.ts';

const SPDM = 'DMTF DSP0274 1.1.0';
const DICE = 'TCG DICE Attestation Architecture 1.1';
const DSIG = 'W3C XML Signature 1.1';
const RIM = 'TCG RIM Information Model 1.01';
const NVTRUST = 'NVIDIA nvtrust, guest_tools';
const OCSP = 'RFC 6960';
const POLICY = 'appraisal policy';

/** Rules of evidence of NVIDIA GPUs and NVSwitches, by name. */
export const GPU_RULES = {
  missing: rule('G34', 'gpu_missing', POLICY, 'GPU evidence is there when the policy asks for it'),
  bound: rule('G35', 'gpu_not_bound', 'Assay protocol v1 §3', "claim 9, which the CPU's hardware signed, is the digest of this evidence"), // prettier-ignore
  trailing: rule('G1', 'gpu_trailing_bytes', `${SPDM} §10.11.2`, 'each report ends with its signature'),
  chain: rule('G2', 'gpu_chain', 'RFC 5280 §6.1', 'five certificates lead from the root to the leaf of each device'), // prettier-ignore
  root: rule('G3', 'gpu_root', 'NVIDIA Device Identity CA', "root of each chain is NVIDIA's device root"),
  validity: rule('G4', 'gpu_validity', 'RFC 5280 §6.1.3', 'every device certificate is valid now'),
  signature: rule('G5', 'gpu_signature', `${SPDM} §10.11.2`, 'each report, its request included, is signed by the leaf'), // prettier-ignore
  arch: rule('G6', 'gpu_arch', `${NVTRUST}: certificate names`, 'certificates are of the architecture the evidence names'), // prettier-ignore
  nonce: rule('G7', 'gpu_nonce', `${SPDM} §10.11.1`, 'every report answers the nonce of this verifier'),
  fwid: rule(
    'G8',
    'gpu_fwid',
    `${DICE} §6.1`,
    'firmware id of each report is the one its leaf was issued for',
  ),
  nvdec0: rule('G9', 'gpu_nvdec0', `${NVTRUST}: opaque field 11`, 'each GPU says whether NVDEC0 is on'),
  duplicate: rule('G10', 'gpu_duplicate', `${NVTRUST}: UEID`, 'no device is listed twice'),
  ocsp: rule('G11', 'gpu_ocsp', `${OCSP} §3.2, §4.2.2.2`, 'certificates that name an OCSP service have an authentic answer'), // prettier-ignore
  stale: rule('G12', 'gpu_ocsp_stale', `${OCSP} §4.2.2.1`, 'OCSP answers are no older than the policy takes'),
  revoked: rule('G13', 'gpu_revoked', `${OCSP} §2.2`, 'no certificate is revoked'),
  hold: rule('G14', 'gpu_hold', 'RFC 5280 §5.3.1', 'no certificate is on hold, or the policy takes it'),
  manifest: rule('G15', 'gpu_rim_missing', `${NVTRUST}: RIM ids`, 'reference manifests of driver and VBIOS are there'), // prettier-ignore
  manifestXml: rule('G16', 'gpu_rim_xml', 'W3C XML 1.0, Namespaces in XML 1.0', 'manifests are XML of the strict form read here'), // prettier-ignore
  manifestEnvelope: rule('G17', 'gpu_rim_envelope', `${DSIG} §4, §6.6.4`, 'manifests have one signature, with nothing unsigned in it'), // prettier-ignore
  manifestEntries: rule('G18', 'gpu_rim_entries', RIM, 'entries of the manifests are well-formed and unique'),
  manifestDigest: rule('G19', 'gpu_rim_digest', `${DSIG} §3.2.1; Canonical XML 1.1`, 'manifests hash to the digest that is signed'), // prettier-ignore
  manifestSignature: rule('G20', 'gpu_rim_signature', `${DSIG} §3.2.2`, 'manifests are signed by their first certificate'), // prettier-ignore
  manifestChain: rule('G21', 'gpu_rim_chain', 'RFC 5280 §6.1', "manifests' certificates lead to NVIDIA's manifest root"), // prettier-ignore
  manifestValidity: rule(
    'G22',
    'gpu_rim_expired',
    'RFC 5280 §6.1.3',
    "manifests' certificates are valid now",
  ),
  manifestVersion: rule('G23', 'gpu_rim_version', `${RIM}: colloquialVersion`, 'manifests are of the versions the reports name'), // prettier-ignore
  manifestProduct: rule('G24', 'gpu_rim_product', `${RIM}: product, edition`, 'manifests are of the product of the device'), // prettier-ignore
  conflict: rule('G25', 'gpu_rim_conflict', `${NVTRUST}: measurements`, 'driver and VBIOS manifest claim no index together'), // prettier-ignore
  measurements: rule('G26', 'gpu_measurements', `${SPDM} §10.11.2; ${RIM}`, 'every active measurement has a listed value'), // prettier-ignore
  topology: rule('G27', 'gpu_topology', `${NVTRUST}: opaque fields 22, 26`, 'GPUs and switches name each other, all of them'), // prettier-ignore
  mode: rule('G28', 'gpu_mode', POLICY, 'every GPU is in one mode, which the policy accepts'),
  count: rule('G29', 'gpu_count', POLICY, 'there are as many GPUs as the policy says'),
  archListed: rule(
    'G30',
    'gpu_arch_not_listed',
    POLICY,
    'architecture of every GPU is one the policy accepts',
  ),
  driver: rule('G31', 'gpu_driver_version', POLICY, 'driver is at least the minimum'),
  vbios: rule('G32', 'gpu_vbios_version', POLICY, 'VBIOS is at least the minimum of its project'),
  ueids: rule('G33', 'gpu_ueid_not_listed', POLICY, 'every device is on the allow-list'),
} as const satisfies Record<string, Rule>;
