// The hermetic contract of `assay-verify evidence`: one JSON object in, one JSON object out, no network, no
// clock, no files. Exit 0 genuine and within the policy given, 10 refused, 20 unsupported, 30 malformed
// input, 1 internal. The input is a closed shape: unknown or repeated keys, wrong types, non-canonical base64
// and PEM, and anything over its stated size are refused before anything is decoded. `code` is one of
// codes.ts; claims appear only once signatures hold.

import { fromBase64, fromUtf8, utf8 } from '../encoding/bytes.ts';
import type { Check, Transcript } from '../transcript/checks.ts';
import type { JudgedEntry, judgeArchive } from './archive.ts';
import type { CloudVerifier } from './hardware.ts';
import { type HintOf, hintsOnDemand, noHint } from './hints-on-demand.ts';
import type { AttestationCode } from '../transcript/codes.ts';
import { AttestationError, malformed, unsupported } from '../transcript/errors.ts';
import { parseJson, shapeReaders, type Json, type JsonObject } from '../encoding/json.ts';
import { isCloudTee, TDX_OPTIONAL, TDX_REQUIRED } from '../protocol/document.ts';
import type { SnpPolicy } from '../snp/policy.ts';
import type { SnpEvidence } from '../snp/subject.ts';
import type { verifySnp } from '../snp/verify.ts';
import type { TdxPolicy } from '../tdx/policy.ts';
import type { TdxEvidence } from '../tdx/subject.ts';
import type { verifyTdx } from '../tdx/verify.ts';
import { parsePem } from '../x509/pem.ts';

/** Bytes of UTF-8 of the whole input. */
export const MAX_EVIDENCE_BYTES = 4 << 20;

/**
 * Exit code of `assay-verify evidence` (docs/formats.md): 0 accepted, 10 refused, 20 unsupported, 30
 * malformed, 1 an internal error.
 */
export type EvidenceExitCode = 0 | 1 | 10 | 20 | 30;

/** One rule, whole: a script reads `code`, a person `title`, `detail` and, of a failure, `hint`. */
export interface EvidenceCheck extends Pick<
  Check,
  'id' | 'spec' | 'title' | 'status' | 'detail' | 'code' | 'expected' | 'actual' | 'authenticated'
> {
  /** Of a failure: what its reader can do. */
  readonly hint?: string | undefined;
}

/** The JSON object `assay-verify evidence` prints (docs/formats.md). */
export interface EvidenceOutput {
  readonly accepted: boolean;
  /**
   * Null when accepted; else the code of the rule that failed first or explains the
   * failure, or of the input error.
   */
  readonly code: AttestationCode | null;
  /**
   * `authenticated: false` on those that read values no trusted signature vouches for; absent on the others.
   */
  readonly checks: readonly EvidenceCheck[];
  /**
   * Hex and plain JSON; empty unless the evidence is authentic.
   * `rootsReplaced` is true when `roots` was given.
   */
  readonly claims: Readonly<Record<string, unknown>>;
}

/** The result of `runEvidence`: the exit code and the object to print. */
export interface EvidenceResult {
  readonly exitCode: EvidenceExitCode;
  readonly output: EvidenceOutput;
}

/** Loads the verifiers, each when it is asked for. */
export interface EvidenceVerifiers {
  readonly snp: () => Promise<typeof verifySnp>;
  readonly tdx: () => Promise<typeof verifyTdx>;
  readonly archive: () => Promise<typeof judgeArchive>;
  /** Absent: evidence of the clouds is refused by its own code. */
  readonly clouds?: (() => Promise<Clouds>) | undefined;
}

/** The module that `import('@assay/attestation/vtpm')` gives. */
export interface Clouds {
  readonly vtpm: CloudVerifier;
  readonly judgeCloudEvidence: CloudEvidenceJudge;
}

/** Judges one evidence input of a cloud; made by `@assay/attestation/vtpm`. */
export type CloudEvidenceJudge = (json: Json, tee: string) => Promise<EvidenceVerification>;

/** The verdict of a vendor's or cloud's verifier on one piece of evidence. */
export interface EvidenceVerification {
  readonly transcript: Transcript;
  readonly accepted: boolean;
  readonly rootsReplaced: boolean;
  readonly claims: Readonly<Record<string, unknown>>;
}

/** As `runEvidence`, with verifiers that need not be loaded yet. */
export async function judgeEvidence(
  input: string | Uint8Array,
  verifiers: EvidenceVerifiers,
): Promise<EvidenceResult> {
  try {
    if (input.length > MAX_EVIDENCE_BYTES)
      throw malformed(
        'input_too_large',
        `evidence is ${input.length} bytes, at most ${MAX_EVIDENCE_BYTES} are read`,
      );
    const text = typeof input === 'string' ? input : fromUtf8(input, 'evidence');
    return await verifyInput(parseJson(text, 'evidence', MAX_EVIDENCE_BYTES), verifiers);
  } catch (error) {
    return await failed(error);
  }
}

const shape = shapeReaders('malformed_evidence');

// Characters of base64 or PEM: what each field can need, well under the limits of the parsers behind them.
const MAX_REPORT = 64 * 1024;
const MAX_CERTIFICATE = 32 * 1024;
const MAX_CRL = 1 << 20;
const MAX_COLLATERAL = 512 * 1024;
const MAX_EVENT_LOG = 2 << 20;
const MAX_ROOTS = 16;

async function verifyInput(json: Json, verifiers: EvidenceVerifiers): Promise<EvidenceResult> {
  if (typeof json === 'object' && json !== null && 'format' in json)
    return verifyArchive(json, await verifiers.archive(), verifiers.clouds);
  const given = shape.object(json, 'evidence', ['tee'], [...COMMON, ...SNP, ...TDX, ...CLOUD]);
  const tee = shape.string(given['tee'], 'tee', 64);
  switch (tee) {
    case 'snp':
      return verifySnpInput(
        shape.object(json, 'evidence', ['tee', 'report', 'vek', 'chain', 'now'], [...COMMON, ...SNP]),
        await verifiers.snp(),
      );
    case 'tdx':
      return verifyTdxInput(
        shape.object(json, 'evidence', ['tee', 'quote', 'collateral', 'now'], [...COMMON, ...TDX]),
        await verifiers.tdx(),
      );
    default: {
      if (!isCloudTee(tee) && tee !== 'aws-nitro-enclave')
        throw unsupported(
          'unsupported_tee',
          `tee ${JSON.stringify(tee)} is not one of snp, tdx or a cloud’s`,
          {
            expected: 'snp or tdx',
            actual: tee,
          },
        );
      const clouds = await verifiers.clouds?.();
      if (clouds === undefined)
        throw unsupported('vtpm_not_given', `evidence of ${tee} has a verifier of its own`);
      return await finished(await clouds.judgeCloudEvidence(json, tee));
    }
  }
}

const CLOUD = ['document', 'platform'] as const;
const COMMON = ['now', 'policy', 'roots'] as const;
const SNP = ['report', 'vek', 'chain', 'crl'] as const;
const TDX = ['quote', 'collateral', 'event_log'] as const;

async function verifySnpInput(given: JsonObject, verify: typeof verifySnp): Promise<EvidenceResult> {
  const policy = (given['policy'] === undefined ? {} : given['policy']) as SnpPolicy;
  return await finished(await verify(snpEvidenceOf(given), policy, contextOf(given)));
}

/** Clock and roots of an input. */
export function contextOf(given: JsonObject): {
  readonly now: Date;
  readonly roots: readonly Uint8Array[] | undefined;
} {
  return { now: readNow(given['now']), roots: readRoots(given['roots']) };
}

/** The members `report`, `vek`, `chain` and `crl` of an input. */
export function snpEvidenceOf(given: JsonObject): SnpEvidence {
  const chain = shape
    .list(given['chain'], 'chain', 1, 2)
    .flatMap((item, i) =>
      parsePem(shape.string(item, `chain[${i}]`, 2 * MAX_CERTIFICATE), 'CERTIFICATE', 2, `chain[${i}]`),
    );
  return {
    report: base64(given['report'], 'report', MAX_REPORT),
    vek: base64(given['vek'], 'vek', MAX_CERTIFICATE),
    chain,
    crl: given['crl'] === undefined ? undefined : base64OrPem(given['crl'], 'crl', MAX_CRL),
  };
}

async function verifyTdxInput(given: JsonObject, verify: typeof verifyTdx): Promise<EvidenceResult> {
  const policy = (given['policy'] === undefined ? {} : given['policy']) as TdxPolicy;
  return await finished(await verify(tdxEvidenceOf(given), policy, contextOf(given)));
}

/** The members `quote`, `collateral` and `event_log` of an input. */
export function tdxEvidenceOf(given: JsonObject): TdxEvidence {
  const collateral = shape.object(given['collateral'], 'collateral', TDX_REQUIRED, TDX_OPTIONAL);
  const text = (key: string): string => shape.string(collateral[key], `collateral ${key}`, MAX_COLLATERAL);
  const optional = (key: string): string | undefined =>
    collateral[key] === undefined ? undefined : text(key);
  return {
    quote: base64(given['quote'], 'quote', MAX_REPORT),
    collateral: {
      tcbInfo: text('tcb_info'),
      tcbInfoIssuerChain: text('tcb_info_issuer_chain'),
      qeIdentity: text('qe_identity'),
      qeIdentityIssuerChain: text('qe_identity_issuer_chain'),
      pckChain: optional('pck_chain'),
      pckCrl: base64OrPem(collateral['pck_crl'], 'collateral pck_crl', MAX_CRL),
      rootCaCrl: base64OrPem(collateral['root_ca_crl'], 'collateral root_ca_crl', MAX_CRL),
      pckCrlIssuerChain: optional('pck_crl_issuer_chain'),
    },
    eventLog:
      given['event_log'] === undefined ? undefined : base64(given['event_log'], 'event_log', MAX_EVENT_LOG),
  };
}

async function finished(verification: EvidenceVerification): Promise<EvidenceResult> {
  const { transcript, accepted, rootsReplaced, claims } = verification;
  const hintOf = accepted ? noHint : await hintsOnDemand();
  return {
    exitCode: accepted ? 0 : 10,
    output: {
      accepted,
      code: accepted ? null : (transcript.firstFailure?.code ?? 'internal'),
      checks: transcript.checks.map((check) => plainCheck(check, hintOf)),
      claims: rootsReplaced ? { ...claims, rootsReplaced } : claims,
    },
  };
}

/**
 * An archive of `assay-verify --save`: the whole document is judged, at its own time unless `now` is given.
 */
async function verifyArchive(
  json: JsonObject,
  judge: typeof judgeArchive,
  clouds: EvidenceVerifiers['clouds'],
): Promise<EvidenceResult> {
  const now = json['now'] === undefined ? undefined : readNow(json['now']);
  const judged = await judge(json, { now, policy: json['policy'], clouds });
  const errors = judged.flatMap(({ outcome }) => ('error' in outcome ? [outcome.error] : []));
  const unreadable = errors.find(({ kind }) => kind !== 'refused');
  if (unreadable !== undefined) throw unreadable;
  const claims = judged.map(archivedClaims);
  const hintOf = errors.length === 0 ? noHint : await hintsOnDemand();
  return {
    exitCode: errors.length === 0 ? 0 : 10,
    output: {
      accepted: errors.length === 0,
      code: errors[0]?.code ?? null,
      checks: judged.flatMap(({ outcome }) =>
        ('error' in outcome ? outcome.error : outcome.result).transcript.map((check) =>
          plainCheck(check, hintOf),
        ),
      ),
      claims: claims.length === 1 && claims[0] !== undefined ? claims[0] : { evidence: claims },
    },
  };
}

/** Claims of a refused entry are not repeated: they may not be authentic. */
function archivedClaims({ origin, at, outcome }: JudgedEntry): Readonly<Record<string, unknown>> {
  const archive = { origin, at: at.toISOString() };
  if ('error' in outcome) return { archive };
  const { evidence, models, simulated, build, config, receiptKey, hpkeKey, tlsSpki } = outcome.result;
  const more = { models: Object.fromEntries(models), simulated, build, config, receiptKey, hpkeKey, tlsSpki };
  return { ...evidence, ...more, archive };
}

function plainCheck(check: Check, hintOf: HintOf): EvidenceCheck {
  const { id, spec, title, status, detail, code, expected, actual, authenticated } = check;
  const failure = status === 'fail' ? { code, expected, actual, hint: hintOf(code) } : {};
  return withoutUndefined({ id, spec, title, status, detail, ...failure, authenticated });
}

/** Absent fields have no key, so that the output is the same before and after a trip through JSON. */
function withoutUndefined(check: EvidenceCheck): EvidenceCheck {
  return Object.fromEntries(
    Object.entries(check).filter(([, value]) => value !== undefined),
  ) as unknown as EvidenceCheck;
}

const EXIT_CODES = { refused: 10, unsupported: 20, malformed: 30, internal: 1 } as const;

/** The error as output: checks made before it, then one failing entry that says what was wrong. */
async function failed(error: unknown): Promise<EvidenceResult> {
  const hintOf = await hintsOnDemand();
  // The message of a foreign error may contain input: print only its name.
  const known =
    error instanceof AttestationError
      ? error
      : new AttestationError(
          'internal',
          'internal',
          `unexpected ${error instanceof Error ? error.name : typeof error}`,
        );
  const checks = [
    ...known.transcript.map((check) => plainCheck(check, hintOf)),
    withoutUndefined({
      id: known.check ?? 'input',
      spec: '',
      title: 'the input can be read',
      status: 'fail',
      detail: known.message,
      code: known.code,
      expected: known.expected,
      actual: known.actual,
      hint: known.hint ?? hintOf(known.code),
    }),
  ];
  return {
    exitCode: EXIT_CODES[known.kind],
    output: { accepted: false, code: known.code, checks, claims: {} },
  };
}

/** A member that is base64 of bytes; PEM is named for what it is. */
export function base64(value: Json | undefined, name: string, maxLength: number): Uint8Array {
  const text = shape.string(value, name, maxLength);
  if (text.trimStart().startsWith('-----BEGIN'))
    throw malformed('malformed_base64', `${name} is PEM text, expected base64`, {
      hint: 'encode the file in base64 as it is (base64 -w0 FILE)',
    });
  return fromBase64(text, name);
}

/** CRLs come as services give them: PEM as it is, or base64 of DER, PEM or hex. */
function base64OrPem(value: Json | undefined, name: string, maxLength: number): Uint8Array {
  const text = shape.string(value, name, maxLength);
  return text.trimStart().startsWith('-----BEGIN') ? utf8(text) : fromBase64(text, name);
}

function readRoots(value: Json | undefined): readonly Uint8Array[] | undefined {
  if (value === undefined) return undefined;
  return shape
    .list(value, 'roots', 1, MAX_ROOTS)
    .flatMap((item, i) =>
      parsePem(shape.string(item, `roots[${i}]`, MAX_CERTIFICATE), 'CERTIFICATE', 1, `roots[${i}]`),
    );
}

/** RFC 3339 §5.6 date-time, to the millisecond. */
function readNow(value: Json | undefined): Date {
  const text = shape.string(value, 'now', 64);
  const match =
    /^(\d{4}-\d{2}-\d{2})[Tt]([01]\d|2[0-3]):(\d{2}):(\d{2})(\.\d{1,9})?([Zz]|[+-]\d{2}:\d{2})$/.exec(text);
  const date = match === null ? new Date(Number.NaN) : new Date(text.toUpperCase());
  // The calendar must agree: JavaScript turns February 30 into March.
  const day = match?.[1] ?? '';
  if (Number.isNaN(date.getTime()) || new Date(`${day}T00:00:00Z`).toISOString().slice(0, 10) !== day) {
    throw malformed('malformed_evidence', `now ${JSON.stringify(text)} is not an RFC 3339 time`);
  }
  return date;
}
