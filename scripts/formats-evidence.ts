// The part of docs/formats.md that is not made of byte tables: what `assay-verify evidence` takes and gives,
// and how its policy differs from a policy file. A test compares the keys with those the verifier reads.

const INPUT = `## The input of \`assay-verify evidence\`

One JSON object on standard input, at most 4 MiB, of a closed shape: an unknown or repeated key, a wrong type, base64 that is not canonical
is refused (exit 30). \`runEvidence\` of the package is the same in a program. No network, no clock, no files: what is not in the input is
not known.

| key | for | value |
|---|---|---|
| \`tee\` | both | \`"snp"\` or \`"tdx"\`; the clouds' are below |
| \`now\` | both | the time to judge at, RFC 3339 |
| \`policy\` | both, may be absent | what to ask beyond genuineness; below |
| \`roots\` | both, may be absent | certificates in PEM that replace the vendor's roots; the output then has \`rootsReplaced\` |
| \`report\` | snp | base64 of the 1184 bytes, without anything around them |
| \`vek\` | snp | base64 of the VCEK or VLEK, DER or PEM |
| \`chain\` | snp | list of PEM: ASK (for a VLEK: ASVK), then ARK; or both in one text |
| \`crl\` | snp, may be absent | the ARK's CRL: base64 of DER, PEM or hex, or PEM as it is. Without it \`requireCrl\` must be false |
| \`quote\` | tdx | base64, from its header; zeros after its end are taken |
| \`event_log\` | tdx, may be absent | base64 of the CCEL, or of a dstack event log in JSON |
| \`collateral\` | tdx | the object below |

| key of \`collateral\` | value |
|---|---|
| \`tcb_info\`, \`qe_identity\` | the text of the answer of Intel's service (v4), signature included |
| \`tcb_info_issuer_chain\`, \`qe_identity_issuer_chain\` | PEM: TCB signing certificate, then root |
| \`pck_crl\`, \`root_ca_crl\` | base64 of DER, PEM or hex, or PEM as it is |
| \`pck_crl_issuer_chain\` | may be absent. PEM: the PCK's CA, then root |
| \`pck_chain\` | PEM: PCK, its CA, root. Needed when the quote only names its PCK (certification data of type 1 to 4); else the quote carries its own, which counts |

Containers are recognised and named, not opened: Azure's HCL report (the report is at its bytes 32 to 1216), the driver's
\`MSG_REPORT_RSP\`, padded reports, TDREPORTs, documents of AWS Nitro, TPM quotes, tokens of attestation services, text in place of bytes.

An archive that \`assay-verify https://HOST --save FILE\` wrote is an input as well: \`format\`, \`evidence\`, \`receipts\` (none as yet), and
may be given \`policy\` (a policy *file*'s object, [policy.md](policy.md)) and \`now\` in place of its own. Each of its documents is judged
whole: hardware, claims, models, policy. Nonce, exporter, TLS key and handshake are the archiver's word: their rules are skips.
`;

const SNP_POLICY: readonly (readonly [string, string])[] = [
  ['measurement', 'hex of 48 bytes, or a list: MEASUREMENT'],
  ['hostData', '32 bytes, or a list'],
  ['reportData', 'all 64 bytes'],
  ['idKeyDigest', '48 bytes, or a list'],
  ['authorKeyDigest', '48 bytes, or a list'],
  ['familyId', '16 bytes, or a list'],
  ['imageId', '16 bytes, or a list'],
  ['chipIds', '64 bytes, on Turin 8, or a list: CHIP_ID'],
  ['vekSpkis', 'SHA-256 of the VEK’s public key, or a list'],
  ['cspIds', 'list of providers a VLEK may be of'],
  ['products', 'list of `Milan`, `Genoa`, `Turin`'],
  ['minimumTcb', 'components REPORTED_TCB must reach'],
  ['minimumCommittedTcb', 'the same of COMMITTED_TCB'],
  ['minimumLaunchTcb', 'the same of LAUNCH_TCB'],
  ['minimumFirmware', '`major.minor.build`'],
  ['minimumGuestSvn', 'number'],
  ['guestPolicy', 'as in a policy file'],
  ['platformInfo', 'protections of the platform that are required'],
  ['requiredMitigations', 'bits, 1 to 16 hex digits'],
  ['vmpl', '0 to 3, or a list'],
  ['requireCrl', 'false allows evidence without a CRL'],
];

const TDX_POLICY: readonly (readonly [string, string])[] = [
  ['mrTd', 'hex of 48 bytes, or a list'],
  ['rtmr0', 'the same'],
  ['rtmr1', 'the same'],
  ['rtmr2', 'the same'],
  ['rtmr3', 'the same'],
  ['mrSeam', 'the same'],
  ['mrSignerSeam', 'the same'],
  ['mrConfigId', 'the same'],
  ['mrOwner', 'the same'],
  ['mrOwnerConfig', 'the same'],
  ['mrServiceTd', 'the same; absent: none may be bound'],
  ['seamAttributes', '8 bytes, or a list; absent: zero'],
  ['tdAttributes', '8 bytes in the order of the quote, or a list'],
  ['xfam', 'the same'],
  ['reportData', 'all 64 bytes'],
  ['minimumTeeTcbSvn', '16 bytes, compared one by one'],
  ['minimumTcbEvaluationDataNumber', 'floor for TCB info and QE identity'],
  ['tcbStatus', 'list; absent: `UpToDate` alone'],
  ['tcbGraceDays', 'days for which an old status still passes'],
  ['advisories', 'list of advisories that may be open; absent: any'],
  ['fmspc', '6 bytes, or a list'],
  ['ppid', '16 bytes, or a list'],
  ['pckSerial', 'serial number of the PCK, or a list'],
  ['requireSeptVeDisable', 'boolean'],
  ['allowMigratable', 'boolean'],
];

function keys(rows: readonly (readonly [string, string])[]): string {
  return rows.map(([key, meaning]) => `| \`${key}\` | ${meaning} |`).join('\n');
}

export const EVIDENCE_CONTRACT = `${INPUT}
## The policy of \`assay-verify evidence\`

What one vendor's verifier asks, and nothing of models, channels or endorsements: those belong to documents, and to a policy file
([policy.md](policy.md)). So \`measurements\` and \`chips\` of a file are \`measurement\` and \`chipIds\` here, or \`mrTd\` … \`rtmr3\` and \`ppid\`; the
sections \`snp\` and \`tdx\` of a file have the other keys under the same names. Every key may be absent: its rule is then a visible skip, but
for \`guestPolicy\` and \`requireCrl\`, which have their default.

| key, tee \`snp\` | value |
|---|---|
${keys(SNP_POLICY)}

| key, tee \`tdx\` | value |
|---|---|
${keys(TDX_POLICY)}

## The output of \`assay-verify evidence\`

| key | value |
|---|---|
| \`accepted\` | boolean; the exit code is then 0 |
| \`code\` | null, or the one [code](codes.md) a person needs first: that of the rule that failed first, or of the one that explains it (a VCEK of another TCB, not the signature it cannot verify) |
| \`checks\` | every rule in order: \`id\`, \`spec\`, \`title\`, \`status\` (pass, fail, skip), \`detail\`; of a failure \`code\`, and where they are known \`expected\`, \`actual\`, \`hint\`; \`authenticated: false\` where no trusted signature vouches for what was read |
| \`claims\` | the fields of the evidence, only when they are authentic |

A skip whose detail begins with \`note:\` is something to know that no rule refuses, such as TCB info and QE identity of two publications.

Exit: 0 accepted, 10 refused, 20 of a kind this verifier does not know, 30 malformed input, 1 internal.
`;
