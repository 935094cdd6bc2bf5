// GPU evidence as JSON: the containers NVIDIA's tools write, and the section `gpu` of a document or of the
// input of `assay-verify evidence`. Closed shapes. What a container says about nonce, versions and the like
// is read over: only reports and certificates count.

import { sha256 } from '@noble/hashes/sha2.js';
import { concatBytes, fromBase64, fromUtf8, toBase64, utf8 } from '../encoding/bytes.ts';
import { encodeCbor } from '../encoding/cbor.ts';
import { type Json, type JsonObject, shapeReaders, type ShapeReaders } from '../encoding/json.ts';
import type { AttestationCode } from '../transcript/codes.ts';
import { parsePem } from '../x509/pem.ts';
import type { DeviceEvidence, GpuEvidence, ManifestEvidence } from './subject.ts';

/** The devices' nonce is the hash of this and the verifier's nonce. */
export const GPU_NONCE_LABEL = 'assay/gpu-nonce/v1';
/** First member of the list whose SHA-256 claim 9 is. */
export const GPU_EVIDENCE_LABEL = 'assay/gpu-evidence/v1';

const MAX_DEVICES = 32;
const MAX_MANIFESTS = 64;
const MAX_OCSP = 128;
const MAX_REPORT_CHARS = 48 * 1024;
const MAX_CHAIN_CHARS = 64 * 1024;
const MAX_MANIFEST_CHARS = 360 * 1024;
const MAX_OCSP_CHARS = 48 * 1024;

/**
 * The 32 bytes GPUs and switches are asked to answer for a verifier's nonce of any length:
 * SHA-256(`assay/gpu-nonce/v1` ‖ nonce).
 * @example const challenge = gpuNonce(nonce);
 */
export function gpuNonce(nonce: Uint8Array): Uint8Array {
  return sha256(concatBytes(utf8(GPU_NONCE_LABEL), nonce));
}

/**
 * Claim 9: SHA-256 over the canonical CBOR of [`assay/gpu-evidence/v1`, [[arch, report, [certificate, …]],
 * …]], devices in the order of the document.
 * @example const claim = gpuEvidenceDigest(devices);
 */
export function gpuEvidenceDigest(devices: readonly DeviceEvidence[]): Uint8Array {
  const list = devices.map(({ arch, report, certificates }) => [arch, report, [...certificates]]);
  return sha256(encodeCbor([GPU_EVIDENCE_LABEL, list]));
}

/**
 * A container as NVIDIA's tools write it, parsed from JSON: a list, or an object with `evidences` or
 * `evidence_list`. `code` names what a fault is of.
 * @throws AttestationError `code`, `malformed_base64`, `malformed_certificate`
 * @example const devices = readDeviceEvidence(JSON.parse(text));
 */
export function readDeviceEvidence(
  json: Json,
  code: AttestationCode = 'malformed_evidence',
): readonly DeviceEvidence[] {
  const read = shapeReaders(code);
  if (typeof json !== 'object' || json === null || Array.isArray(json))
    return readList(json, undefined, read);
  const outer = read.object(
    json,
    'evidences',
    [],
    ['evidences', 'evidence_list', 'nonce', 'arch', 'version'],
  );
  const list = outer['evidences'] ?? outer['evidence_list'];
  const arch = outer['arch'] === undefined ? undefined : read.string(outer['arch'], 'evidences.arch', 64);
  return readList(list, arch, read);
}

const ELEMENT = ['arch', 'nonce', 'version', 'driver_version', 'vbios_version', 'firmware_version', 'uuid'];

function readList(
  json: Json | undefined,
  outerArch: string | undefined,
  read: ShapeReaders,
): readonly DeviceEvidence[] {
  return read.list(json, 'evidences', 1, MAX_DEVICES).map((item, i) => {
    const name = `evidences[${i}]`;
    const element = read.object(item, name, ['evidence', 'certificate'], ELEMENT);
    const chain = fromBase64(
      read.string(element['certificate'], `${name}.certificate`, MAX_CHAIN_CHARS),
      name,
    );
    return {
      arch: read.string(element['arch'] ?? outerArch, `${name}.arch`, 64),
      report: fromBase64(read.string(element['evidence'], `${name}.evidence`, MAX_REPORT_CHARS), name),
      certificates: parsePem(fromUtf8(chain, name, 'malformed_certificate'), 'CERTIFICATE', 8, name),
    };
  });
}

/** Members of the section `gpu` besides `evidences`, which `assay-verify evidence` takes as well. */
export const GPU_ENDORSEMENT_KEYS = ['rims', 'ocsp'] as const;

/**
 * The section `gpu` of a document: `evidences`, `rims` ({id, rim: base64 of the XML}) and `ocsp` (base64 of
 * DER).
 * @throws AttestationError `code` and the codes of encodings
 * @example const evidence = readGpuEvidence(JSON.parse(text));
 */
export function readGpuEvidence(json: Json, code: AttestationCode = 'malformed_document'): GpuEvidence {
  const read = shapeReaders(code);
  const section = read.object(json, 'gpu', ['evidences'], GPU_ENDORSEMENT_KEYS);
  return {
    devices: readDeviceEvidence(section['evidences'] ?? null, code),
    manifests: readManifests(section['rims'], read),
    ocsp: readOcsp(section['ocsp'], read),
  };
}

function readManifests(json: Json | undefined, read: ShapeReaders): readonly ManifestEvidence[] {
  if (json === undefined) return [];
  return read.list(json, 'rims', 0, MAX_MANIFESTS).map((item, i) => {
    const { id, rim } = read.object(item, `rims[${i}]`, ['id', 'rim']);
    const xml = fromBase64(read.string(rim, `rims[${i}].rim`, MAX_MANIFEST_CHARS), `rims[${i}].rim`);
    return { id: read.string(id, `rims[${i}].id`, 128), xml };
  });
}

function readOcsp(json: Json | undefined, read: ShapeReaders): readonly Uint8Array[] {
  if (json === undefined) return [];
  return read
    .list(json, 'ocsp', 0, MAX_OCSP)
    .map((item, i) => fromBase64(read.string(item, `ocsp[${i}]`, MAX_OCSP_CHARS), `ocsp[${i}]`));
}

/**
 * The same as JSON, for a document: what {@link readGpuEvidence} reads.
 * @example const section = writeGpuEvidence(gpuEvidence);
 */
export function writeGpuEvidence({ devices, manifests, ocsp }: GpuEvidence): JsonObject {
  return {
    evidences: devices.map(({ arch, report, certificates }) => ({
      arch,
      evidence: toBase64(report),
      certificate: toBase64(utf8(certificates.map(pemOf).join(''))),
    })),
    rims: manifests.map(({ id, xml }) => ({ id, rim: toBase64(xml) })),
    ocsp: ocsp.map((der) => toBase64(der)),
  };
}

function pemOf(der: Uint8Array): string {
  const lines = toBase64(der).match(/.{1,64}/g) ?? [];
  return `-----BEGIN CERTIFICATE-----\n${lines.join('\n')}\n-----END CERTIFICATE-----\n`;
}
