// The certificate table a host may hand to an SEV-SNP guest with a report (configfs-tsm auxblob): AMD 56421,
// GHCB specification, SNP Extended Guest Request. Entries {16-byte GUID in RFC 4122 order, u32 offset, u32
// length}, closed by zeros. The host supplies it, so no entry is trusted: it only saves the verifier a fetch.
// A malformed table counts as none.

import { X509Certificate } from 'node:crypto';
import type { SnpEndorsements } from '@assay/attestation';

const ENTRY_BYTES = 24;
const MAX_ENTRIES = 64;
const MAX_CERTIFICATE_BYTES = 16 * 1024;

const GUIDS: Readonly<Record<string, 'vcek' | 'vlek' | 'ask' | 'ark' | 'crl'>> = {
  '63da758de6644564adc5f4b93be8accd': 'vcek',
  a8074bc2a25a483eaae639c045a0b8a1: 'vlek',
  '4ab7b379bbac4fe4a02f05aef327c782': 'ask',
  c0b406a4a803495297433fb6014cd0ae: 'ark',
  '92f81bc358114d3d97ffd19f88dc67ea': 'crl',
};

export type CertificateTable = Partial<Record<'vcek' | 'vlek' | 'ask' | 'ark' | 'crl', Uint8Array>>;

/**
 * Known entries by name. Empty for an empty table; undefined when offsets, lengths or the
 * closing entry are wrong.
 */
export function parseCertificateTable(blob: Uint8Array): CertificateTable | undefined {
  const table: CertificateTable = {};
  if (blob.length === 0) return table;
  const view = new DataView(blob.buffer, blob.byteOffset, blob.byteLength);
  for (let entry = 0; entry < MAX_ENTRIES; entry++) {
    const at = entry * ENTRY_BYTES;
    if (at + ENTRY_BYTES > blob.length) return undefined;
    const guid = Buffer.from(blob.buffer, blob.byteOffset + at, 16).toString('hex');
    const offset = view.getUint32(at + 16, true);
    const length = view.getUint32(at + 20, true);
    if (/^0+$/.test(guid)) return table;
    if (
      length === 0 ||
      length > MAX_CERTIFICATE_BYTES ||
      offset < at + ENTRY_BYTES ||
      offset + length > blob.length
    )
      return undefined;
    const name = GUIDS[guid];
    if (name === undefined) continue;
    if (table[name] !== undefined) return undefined;
    table[name] = blob.slice(offset, offset + length);
  }
  return undefined;
}

/**
 * VEK and its chain, as DER whatever form the host had them in. Undefined unless both are there and parse.
 */
export function endorsementsOf(table: CertificateTable): SnpEndorsements | undefined {
  const vek = der(table.vcek ?? table.vlek);
  const intermediate = der(table.ask);
  const root = der(table.ark);
  if (vek === undefined || intermediate === undefined || root === undefined) return undefined;
  return { vek, chain: [intermediate, root], crl: table.crl };
}

/** Hosts put PEM or DER into the table. */
function der(bytes: Uint8Array | undefined): Uint8Array | undefined {
  if (bytes === undefined) return undefined;
  try {
    return new Uint8Array(new X509Certificate(bytes).raw);
  } catch {
    return undefined;
  }
}
