// The part of docs/formats.md on evidence of the clouds: the member `platform` of their documents, their
// input and policy of `assay-verify evidence`. A test compares the keys with those the verifier reads.

/** Name, form, TEEs, meaning. */
const PLATFORM: readonly (readonly [string, string, string, string])[] = [
  ['hcl_report', 'bytes, 2600', 'azure-*', 'NV index 0x01400001'],
  ['quote', 'bytes', 'azure-*, gcp-sev-snp', 'TPMS_ATTEST of type TPM_ST_ATTEST_QUOTE over one bank'],
  ['signature', 'bytes', 'azure-*, gcp-sev-snp', 'RSASSA or ECDSA with SHA-256; raw (RSA), or TPMT_SIGNATURE'],
  ['pcrs', 'list', 'azure-*, gcp-sev-snp', 'all 24 values, or exactly the quoted ones, ascending'],
  ['event_log', 'bytes, may be absent', 'azure-*, gcp-sev-snp', 'TCG log in the crypto-agile format'],
  ['ak_certificate', 'bytes', 'gcp-sev-snp; azure-* may', 'certificate of the attestation key, DER; zeros may follow'],
  ['ak_chain', 'list', 'gcp-sev-snp; azure-* may', 'DER: at most five intermediates, and the root, in any order'],
  ['launch_endorsement', 'bytes', 'gcp-*', 'the `.binarypb` Google publishes for the measured firmware'],
  ['endorsement_root', 'bytes, may be absent', 'gcp-*', 'DER of its root, where its own bundle lacks it'],
]; // prettier-ignore

const POLICY: readonly (readonly [string, string])[] = [
  ['pcrs', 'object: index → hex, or a list of accepted ones'],
  ['challenge', 'hex: extraData of the quote, all of it'],
  ['userData', 'hex: `user_data` of a Nitro document'],
  ['nonce', 'hex: `nonce` of a Nitro document, as bytes; text is given as hex of its bytes'],
  ['paravisorMeasurements', 'list of 48 bytes'],
  ['requireSecureBoot', 'boolean'],
  ['forbidConsole', 'boolean'],
  ['akCertificate', '`required` or `optional`'],
  ['maxDocumentAge', 'seconds'],
  ['ramGib', 'number'],
  ['initData', '32 bytes: expected in PCR8 after one extension'],
];

export const CLOUD_FORMATS = `## Evidence of the clouds

A document of \`azure-sev-snp\`, \`azure-tdx\`, \`gcp-sev-snp\` or \`gcp-tdx\` has the member \`platform\`: one map in canonical CBOR with these text
keys, bytes as byte strings, at most 256 KiB. A member that the TEE has no use for is refused. \`aws-nitrotpm\` has none: its \`report\` is all.

| member | form | TEEs | value |
|---|---|---|---|
${PLATFORM.map((row) => `| \`${row[0]}\` | ${row.slice(1).join(' | ')} |`).join('\n')}

\`assay-verify evidence\` takes the same: \`tee\` is one of the five, or \`aws-nitro-enclave\` for an Enclave's document. Beside \`tee\`, \`now\`,
\`policy\` and \`roots\` (which here replace every pinned root) an input has:

| \`tee\` | members |
|---|---|
| \`azure-sev-snp\`, \`gcp-sev-snp\` | \`report\`, \`vek\`, \`chain\`, \`crl\` as for \`snp\`; \`platform\` |
| \`azure-tdx\`, \`gcp-tdx\` | \`quote\`, \`collateral\`, \`event_log\` as for \`tdx\`; \`platform\` |
| \`aws-nitrotpm\`, \`aws-nitro-enclave\` | \`document\`: base64 of the bare COSE_Sign1, at most 16 KiB |

\`platform\` is a JSON object of the members above: bytes as base64 of either alphabet, PCRs as hex. The policy has a part for the CPU
(\`snp\` or \`tdx\`, with the keys above) and \`vtpm\`; each may be absent:

\`\`\`json
{ "tee": "azure-sev-snp", "now": "2026-06-01T12:00:00Z",
  "report": "<base64>", "vek": "<base64>", "chain": ["<PEM>", "<PEM>"],
  "platform": { "hcl_report": "<base64>", "quote": "<base64>", "signature": "<base64>", "pcrs": ["<hex>", "…"] },
  "policy": { "snp": { "requireCrl": false }, "vtpm": { "challenge": "<hex>", "pcrs": { "4": "<hex>", "12": "<hex>" } } } }
\`\`\`

| key, part \`vtpm\` | value |
|---|---|
${POLICY.map(([key, meaning]) => `| \`${key}\` | ${meaning} |`).join('\n')}

Claims of an accepted input have \`softwareRoot\`: whose word it is which software runs ([protocol.md](protocol.md), M24).

## Init data

Kata and Confidential Containers put the digest of a TOML file into a register: over its bytes as given, never written anew. \`measureInitData\`
of \`@assay/attestation/vtpm\` gives it for each; the values go into a policy as \`hostData\`, \`tdx.mrConfigId\` or \`vtpm.initData\`.

| register | bytes | digest |
|---|--:|---|
| SNP HOST_DATA | 32 | cut (\`truncated\` says so), as the field does |
| TDX MRCONFIGID | 48 | cut, or zeros after it |
| PCR8 of a virtual TPM | 32 | SHA-256(32 zero bytes ‖ digest); defined for 32 bytes alone |
`;
