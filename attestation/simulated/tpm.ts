// Fake TPM-rooted evidence in the real wire formats: a TPM's quotes with a certified attestation key, Azure's
// HCL report around a CPU report, Nitro documents, Google's launch endorsement. Real algorithms, locally made
// keys. For laptops, CI and users' tests of their failure paths. A verifier takes it only where its roots are
// replaced in code. Wrong values are written as given.

import { sha256 } from '@noble/hashes/sha2.js';
import { concatBytes, toBase64Url, toHex, utf8, viewOf } from '../encoding/bytes.ts';
import { encodeCbor } from '../encoding/cbor.ts';
import { encodeLayout } from '../encoding/layout.ts';
import { HCL_HEADER_BYTES, HCL_REPORT, HCL_REPORT_BYTES, TD_REPORT, TD_REPORT_BYTES } from '../vtpm/hcl.ts';
import { parseSequence, readUnsigned } from '../x509/der.ts';
import { parsePublicKey } from '../x509/public-key.ts';
import {
  authorityKeyIdentifier,
  basicConstraints,
  encodeName,
  encodePem,
  generateEcKey,
  generateRsaKey,
  issueCertificate,
  type IssuerKey,
  keyUsage,
  signRaw,
  subjectKeyIdentifier,
} from './issue.ts';

const CA_FROM = new Date('2020-01-01T00:00:00Z');
const CA_TO = new Date('2049-12-31T23:59:59Z');
const DAY_MS = 86_400_000;

/** A root and one CA below it, on P-384, that issue certificates. */
export interface SimulatedCloudCa {
  /** DER. */
  readonly root: Uint8Array;
  readonly intermediate: Uint8Array;
  /** A leaf for the key with this DER SubjectPublicKeyInfo. */
  issueLeaf(spki: Uint8Array, notBefore: Date, notAfter: Date): Promise<Uint8Array>;
}

function cloudName(commonName: string): Uint8Array {
  return encodeName([
    ['CN', commonName],
    ['OU', 'SIMULATED hierarchy, no cloud'],
  ]);
}

/**
 * A CA that no one trusts but where its root is given.
 * @example const ca = await createCloudCa('Simulated TPM');
 */
export async function createCloudCa(name: string): Promise<SimulatedCloudCa> {
  const [rootKey, key] = await Promise.all([generateEcKey('P-384'), generateEcKey('P-384')]);
  const common = { issuer: cloudName(`${name} root`), signer: rootKey, notBefore: CA_FROM, notAfter: CA_TO };
  const extensions = async (own: IssuerKey, pathLength: number) => [
    basicConstraints(true, pathLength),
    keyUsage(['keyCertSign', 'crlSign']),
    await subjectKeyIdentifier(own.spki),
    await authorityKeyIdentifier(rootKey.spki),
  ];
  const [root, intermediate] = await Promise.all([
    issueCertificate({
      ...common,
      subject: common.issuer,
      serial: 1,
      spki: rootKey.spki,
      extensions: await extensions(rootKey, 1),
    }),
    issueCertificate({
      ...common,
      subject: cloudName(`${name} CA`),
      serial: 2,
      spki: key.spki,
      extensions: await extensions(key, 0),
    }),
  ]);
  return {
    root,
    intermediate,
    issueLeaf: async (spki, notBefore, notAfter) =>
      issueCertificate({
        issuer: cloudName(`${name} CA`),
        subject: cloudName(`${name} leaf`),
        serial: 3,
        notBefore,
        notAfter,
        spki,
        signer: key,
        extensions: [
          basicConstraints(false),
          keyUsage(['digitalSignature']),
          await authorityKeyIdentifier(key.spki),
        ],
      }),
  };
}

/** The fields of a quote; the rest is what a TPM in the field writes. */
export interface SimulatedQuoteFields {
  readonly extraData: Uint8Array;
  /** All 24 PCRs of the SHA-256 bank. */
  readonly pcrs: readonly Uint8Array[];
  /** Indexes; default all. */
  readonly selected?: readonly number[] | undefined;
  readonly magic?: number | undefined;
}

/** A TPM with an RSA attestation key. */
export interface SimulatedTpm {
  readonly spki: Uint8Array;
  /** Modulus, big-endian. */
  readonly modulus: Uint8Array;
  /** DER certificate of the attestation key, and CA and root above it. */
  readonly certificate: Uint8Array;
  readonly chain: readonly Uint8Array[];
  readonly root: Uint8Array;
  quote(
    fields: SimulatedQuoteFields,
  ): Promise<{ readonly quote: Uint8Array; readonly signature: Uint8Array }>;
}

/**
 * A TPM whose attestation key a CA of its own certifies.
 * @example const tpm = await createSimulatedTpm({ now: new Date() });
 */
export async function createSimulatedTpm({ now }: { readonly now: Date }): Promise<SimulatedTpm> {
  const parameters = {
    name: 'RSASSA-PKCS1-v1_5',
    hash: 'SHA-256',
    modulusLength: 2048,
    publicExponent: Uint8Array.of(1, 0, 1),
  };
  const pair = await crypto.subtle.generateKey(parameters, true, ['sign', 'verify']);
  const spki = new Uint8Array(await crypto.subtle.exportKey('spki', pair.publicKey));
  const numbers = parseSequence(parsePublicKey(spki).key, 'RSAPublicKey');
  const modulus = readUnsigned(numbers.next('modulus'), 'modulus', 512);
  const ca = await createCloudCa('Simulated TPM');
  const year = 365 * DAY_MS;
  const certificate = await ca.issueLeaf(
    spki,
    new Date(now.getTime() - DAY_MS),
    new Date(now.getTime() + year),
  );
  return {
    spki,
    modulus,
    certificate,
    chain: [ca.intermediate, ca.root],
    root: ca.root,
    quote: async (fields) => {
      const quote = encodeQuote(fields);
      const signed = await crypto.subtle.sign(parameters.name, pair.privateKey, quote as BufferSource);
      return { quote, signature: new Uint8Array(signed) };
    },
  };
}

/** TPMS_ATTEST over the selected PCRs of the SHA-256 bank. */
function encodeQuote({ extraData, pcrs, selected, magic = 0xff544347 }: SimulatedQuoteFields): Uint8Array {
  const indexes = selected ?? pcrs.map((_, i) => i);
  const bitmap = new Uint8Array(3);
  for (const i of indexes) bitmap[i >> 3] = (bitmap[i >> 3] ?? 0) | (1 << (i & 7));
  const digest = sha256(concatBytes(...indexes.map((i) => pcrs[i] ?? new Uint8Array(32))));
  return concatBytes(
    big(magic, 4),
    big(0x8018, 2),
    sized(concatBytes(big(0x000b, 2), new Uint8Array(32).fill(0x51))),
    sized(extraData),
    big(0, 4),
    big(123_456, 4),
    big(1, 4),
    big(0, 4),
    Uint8Array.of(1),
    big(0x20200312, 4),
    big(0x00120003, 4),
    big(1, 4),
    big(0x000b, 2),
    Uint8Array.of(3),
    bitmap,
    sized(digest),
  );
}

function big(value: number, size: number): Uint8Array {
  const bytes = new Uint8Array(8);
  viewOf(bytes).setBigUint64(0, BigInt(value));
  return bytes.subarray(8 - size);
}

function sized(bytes: Uint8Array): Uint8Array {
  return concatBytes(big(bytes.length, 2), bytes);
}

/** Fields of the paravisor's runtime JSON. */
export interface SimulatedRuntime {
  /** Modulus of HCLAkPub. */
  readonly modulus: Uint8Array;
  readonly secureBoot?: boolean | undefined;
  readonly consoleEnabled?: boolean | undefined;
  readonly userData?: Uint8Array | undefined;
}

/**
 * The runtime JSON as the paravisor writes it, in bytes; its hash belongs into REPORT_DATA.
 * @example const json = encodeRuntime({ modulus: tpm.modulus });
 */
export function encodeRuntime(runtime: SimulatedRuntime): Uint8Array {
  const key = { kid: 'HCLAkPub', key_ops: ['sign'], kty: 'RSA', e: 'AQAB', n: toBase64Url(runtime.modulus) };
  return utf8(
    JSON.stringify({
      keys: [key],
      'vm-configuration': {
        'console-enabled': runtime.consoleEnabled ?? false,
        'secure-boot': runtime.secureBoot ?? true,
        'tpm-enabled': true,
        'tpm-persisted': true,
        vmUniqueId: '00000000-0000-4000-8000-000000000051',
      },
      'user-data': toHex(runtime.userData ?? new Uint8Array(64)),
    }),
  );
}

/**
 * REPORT_DATA that vouches for a runtime JSON: its SHA-256 and zeros.
 * @example const report = await amd.signReport({ reportData: runtimeReportData(json) });
 */
export function runtimeReportData(json: Uint8Array): Uint8Array {
  return concatBytes(sha256(json), new Uint8Array(32));
}

/**
 * The HCL report around an SNP report, or around a TDREPORT made of the fields of a TD quote.
 * @example const hclReport = encodeHclReport({ kind: 'snp', hwReport: report, json });
 */
export function encodeHclReport(parts: {
  readonly kind: 'snp' | 'tdx';
  readonly hwReport: Uint8Array;
  readonly json: Uint8Array;
}): Uint8Array {
  const { kind, hwReport, json } = parts;
  const bytes = new Uint8Array(HCL_REPORT_BYTES);
  const padded = new Uint8Array(1184);
  padded.set(hwReport);
  const header = encodeLayout(
    HCL_REPORT,
    {
      signature: utf8('HCLA'),
      version: 2,
      reportSize: HCL_HEADER_BYTES + json.length,
      requestType: 2,
      hwReport: padded,
      dataSize: 20 + json.length,
      dataVersion: 1,
      reportType: kind === 'snp' ? 2 : 4,
      hashType: 1,
      jsonLength: json.length,
    },
    HCL_HEADER_BYTES,
  );
  bytes.set(header);
  bytes.set(json, HCL_HEADER_BYTES);
  return bytes;
}

/**
 * A TDREPORT that says what a TD quote says.
 * @example const tdReport = encodeTdReport({ reportData: bytes, tdAttributes, mrTd, rtmrs });
 */
export function encodeTdReport(fields: {
  readonly reportData: Uint8Array;
  readonly tdAttributes: Uint8Array;
  readonly mrTd: Uint8Array;
  readonly rtmrs: Uint8Array;
}): Uint8Array {
  return encodeLayout(TD_REPORT, fields, TD_REPORT_BYTES);
}

/** The fields of a Nitro document; `pcrs` of 48 bytes each. */
export interface SimulatedNitroFields {
  readonly pcrs: readonly Uint8Array[];
  readonly userData?: Uint8Array | undefined;
  readonly nonce?: Uint8Array | undefined;
  readonly kind?: 'nitrotpm' | 'enclave' | undefined;
}

/** A hypervisor that signs documents. */
export interface SimulatedNitro {
  readonly root: Uint8Array;
  document(fields: SimulatedNitroFields): Promise<Uint8Array>;
}

/**
 * A hypervisor with a CA of its own; certificates live three hours, as AWS's do.
 * @example const nitro = await createSimulatedNitro({ now: new Date() });
 */
export async function createSimulatedNitro({ now }: { readonly now: Date }): Promise<SimulatedNitro> {
  const ca = await createCloudCa('Simulated Nitro');
  const key = await generateEcKey('P-384');
  const from = new Date(now.getTime() - 3000);
  const certificate = await ca.issueLeaf(key.spki, from, new Date(from.getTime() + 10_800_000));
  return {
    root: ca.root,
    document: async ({ pcrs, userData = null, nonce = null, kind = 'nitrotpm' }) => {
      const fields = [
        ['module_id', kind === 'nitrotpm' ? 'i-51-tpm0000000000000000' : 'i-51-enc0000000000000000'],
        ['digest', 'SHA384'],
        ['timestamp', now.getTime()],
        [kind === 'nitrotpm' ? 'nitrotpm_pcrs' : 'pcrs', new Map(pcrs.map((value, i) => [i, value]))],
        ['certificate', certificate],
        ['cabundle', [ca.root, ca.intermediate]],
        ['public_key', null],
        ['user_data', userData],
        ['nonce', nonce],
      ] as const;
      const payload = concatBytes(
        Uint8Array.of(0xbf),
        ...fields.flatMap(([name, value]) => [encodeCbor(name), encodeCbor(value)]),
        Uint8Array.of(0xff),
      );
      const header = Uint8Array.of(0xa1, 0x01, 0x38, 0x22);
      const signed = encodeCbor(['Signature1', header, new Uint8Array(0), payload]);
      return encodeCbor([header, new Map(), payload, await signRaw(key, signed)]);
    },
  };
}

/** The list of a launch endorsement, and how it is signed. */
export interface SimulatedEndorsementFields {
  readonly tdx?: readonly { readonly ramGib: number; readonly mrTd: Uint8Array }[] | undefined;
  readonly snp?: readonly { readonly vcpus: number; readonly measurement: Uint8Array }[] | undefined;
  /** Default 32, Google's. */
  readonly saltLength?: number | undefined;
  /** Appended to the golden measurement before it is signed, and to the endorsement after. */
  readonly signedTail?: Uint8Array | undefined;
  readonly unsignedTail?: Uint8Array | undefined;
}

/** An endorser of firmware. */
export interface SimulatedEndorser {
  readonly root: Uint8Array;
  endorse(fields: SimulatedEndorsementFields): Promise<Uint8Array>;
}

/**
 * An endorser with an RSA-4096 key, which takes seconds to make.
 * @example const endorser = await createSimulatedEndorser({ now: new Date() });
 */
export async function createSimulatedEndorser({ now }: { readonly now: Date }): Promise<SimulatedEndorser> {
  const ca = await createCloudCa('Simulated GCE TCB');
  const key = await generateRsaKey(4096, 'SHA-256');
  const until = new Date(now.getTime() + 365 * DAY_MS);
  const certificate = await ca.issueLeaf(key.spki, new Date(now.getTime() - DAY_MS), until);
  return {
    root: ca.root,
    endorse: async ({ tdx, snp, saltLength = 32, signedTail, unsignedTail }) => {
      const none = new Uint8Array();
      const launches = (tdx ?? []).map(({ ramGib, mrTd }) => message(2, number(1, ramGib), message(3, mrTd)));
      const measured = (snp ?? []).map(({ vcpus, measurement }) =>
        message(2, number(1, vcpus), message(2, measurement)),
      );
      const golden = concatBytes(
        message(4, certificate),
        message(5, new Uint8Array(48).fill(0x51)),
        message(6, utf8(encodePem(ca.intermediate) + encodePem(ca.root))),
        measured.length === 0 ? none : message(7, number(1, 1), ...measured),
        launches.length === 0 ? none : message(8, number(1, 1), ...launches),
        signedTail ?? none,
      );
      const parameters = { name: 'RSA-PSS', saltLength };
      const signature = new Uint8Array(
        await crypto.subtle.sign(parameters, key.privateKey, golden as BufferSource),
      );
      return concatBytes(message(1, golden), message(2, signature), unsignedTail ?? none);
    },
  };
}

/** Protobuf: a field of bytes. */
function message(field: number, ...parts: readonly Uint8Array[]): Uint8Array {
  const content = concatBytes(...parts);
  return concatBytes(varint(field * 8 + 2), varint(content.length), content);
}

function number(field: number, value: number): Uint8Array {
  return concatBytes(varint(field * 8), varint(value));
}

function varint(value: number): Uint8Array {
  const bytes: number[] = [];
  let rest = value;
  for (; rest >= 128; rest = Math.floor(rest / 128)) bytes.push((rest % 128) | 0x80);
  return Uint8Array.from([...bytes, rest]);
}
