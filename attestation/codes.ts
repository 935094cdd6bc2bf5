// The closed list of codes an AttestationError or a failed check can carry, each with its meaning.
// docs/codes.md is generated from it. Add a line here before using a new code; never rename a released one.

export const ATTESTATION_CODES = {
  // shape of input (exit 30)
  malformed_base64: 'a base64 or base64url value is not canonically encoded',
  malformed_hex: 'a hex value has an odd length or a character outside 0-9a-f',
  malformed_length: 'a structure or field does not have the length its format gives',
  malformed_der: 'bytes are not strict DER of the expected structure',
  malformed_certificate: 'a certificate does not parse as X.509 v3',
  malformed_crl: 'a certificate revocation list does not parse as X.509 v2 CRL',
  malformed_cbor: 'bytes are not one canonical CBOR item of the expected shape',
  malformed_json: 'a JSON text does not parse or has duplicate keys',
  malformed_document: 'the attestation document is not of the shape protocol v1 gives',
  malformed_policy: 'a policy has an unknown key, an empty list or a value of the wrong type',
  input_too_large: 'an input is over its stated size limit',
  // launch measurement and release manifests
  malformed_firmware: 'a firmware file, kernel image or their tables are not of the shape their format gives',
  malformed_launch: 'a launch description has a vCPU type, count, feature or machine outside what can be predicted',
  malformed_manifest: 'an image manifest has an unknown key, a missing value or a value of the wrong type',
  firmware_not_listed: 'the firmware is not on the list of files known to enforce what they measure',
  kernel_hashes_missing: 'a kernel is given, but the firmware has no measured table for its hashes',
  manifest_mismatch: 'a published file or digest is not what the image manifest says',
  // core (see protocol.md)
  claims_not_canonical: 'the claims are not byte-equal to their canonical encoding',
  claims_label: 'the claims do not carry the label of protocol v1',
  internal: 'the verifier itself failed; the evidence was not accepted',
} as const satisfies Record<string, string>;

export type AttestationCode = keyof typeof ATTESTATION_CODES;
