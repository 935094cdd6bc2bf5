// The record of a workshop's job, `assay/job/v1` (docs/workshop.md, "The record"): what went in, what ran,
// what came out, signed by the receipt key of the workshop's boot. Refuses unknown keys, other types and
// sizes over their bounds, and any byte that is not the canonical encoding. An entry of its own: pages that
// verify connections do not load it.

import { type Cbor, type CborMap, decodeCbor, encodeCbor } from '../encoding/cbor.ts';
import { malformed, refused } from '../transcript/errors.ts';
import { decodeSign1, encodeSign1, sign1Verifies, signedBytesOf, type SignedForm } from './cose.ts';

/** Domain separation and version, key 0 of the payload. */
export const JOB_LABEL = 'assay/job/v1';
/** The content type in the protected header of a record (docs/workshop.md). */
export const JOB_CONTENT_TYPE = 'application/vnd.assay.job+cbor';
/** Most bytes of a whole record. */
export const MAX_JOB_RECORD_BYTES = 512 * 1024;

const FORM: SignedForm = {
  name: 'the job record',
  contentType: JOB_CONTENT_TYPE,
  maxBytes: MAX_JOB_RECORD_BYTES,
};

/** How a job can end, in the order of their numbers in a record. */
export const JOB_STATES = ['done', 'failed', 'cancelled', 'interrupted'] as const;
/** One of `JOB_STATES`. */
export type JobState = (typeof JOB_STATES)[number];

/** A parameter as it is signed; a fraction or a negative number is its text. */
export type JobParameter = string | number | boolean | null | readonly JobParameter[];

/** A file that a job read, with its SHA-256 of 32 bytes. */
export interface JobInput {
  readonly name: string;
  /** 32 bytes. */
  readonly sha256: Uint8Array;
}

/** A file that a job left, with its SHA-256 of 32 bytes and its size in bytes. */
export interface JobOutput extends JobInput {
  /** Bytes. */
  readonly size: number;
}

/** The content of the record of one job. Times are milliseconds since 1970 of the workshop's clock. */
export interface JobRecord {
  /** Ed25519, 32 bytes: the key that signs; claim 6 of the evidence of its boot. */
  readonly receiptKey: Uint8Array;
  readonly kind: string;
  readonly id: string;
  readonly inputs: readonly JobInput[];
  /** `sha256` is over the program's files, as docs/workshop.md says. */
  readonly tool: { readonly name: string; readonly version: string; readonly sha256: Uint8Array };
  readonly parameters: ReadonlyMap<string, JobParameter>;
  /** Empty unless the job is done. */
  readonly outputs: readonly JobOutput[];
  readonly startedAt: number;
  readonly finishedAt: number;
  readonly state: JobState;
  /** Why it is not done; null when it is. */
  readonly code: string | null;
  /** The barriers its jail had: `user`, `network`, `files`, `processes`, `memory`; sorted. */
  readonly barriers: readonly string[];
}

const MAX_INPUTS = 2048;
const MAX_OUTPUTS = 256;
const MAX_PARAMETERS = 64;
const MAX_LIST = 256;
const MAX_TEXT = 1024;
const WORD = /^[a-z0-9][a-z0-9/_-]{0,63}$/;
const PATH = /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}(?:\/[A-Za-z0-9][A-Za-z0-9._-]{0,127}){0,7}$/;

/**
 * The signer's half: `sign` makes the 64 bytes of an Ed25519 signature over what it is given.
 * @throws AttestationError malformed_record
 * @example const record = encodeJobRecord(job, sign);
 */
export function encodeJobRecord(record: JobRecord, sign: (bytes: Uint8Array) => Uint8Array): Uint8Array {
  const payload = encodeCbor(payloadOf(record));
  // The reader's rules hold for the writer: a record that no reader takes must not be signed.
  readPayload(payload);
  return encodeSign1(FORM, { payload, signature: sign(signedBytesOf(FORM, payload)) });
}

/**
 * The content of the record, once its signature by the key it names holds. Whether that key is one to trust
 * is for the caller: by evidence whose claim 6 it is, or by a key it knows.
 * @throws AttestationError malformed_record, malformed_cbor, input_too_large; refused record_signature
 * @example const { outputs, receiptKey } = await openJobRecord(bytes);
 */
export async function openJobRecord(bytes: Uint8Array): Promise<JobRecord> {
  const signed = decodeSign1(FORM, bytes);
  const record = readPayload(signed.payload);
  if (!(await sign1Verifies(FORM, signed, record.receiptKey)))
    throw refused('record_signature', 'the record is not signed by the key it names');
  return record;
}

function payloadOf(record: JobRecord): CborMap {
  const { tool } = record;
  const named = (each: JobInput): Cbor => [each.name, each.sha256];
  return new Map<number, Cbor>([
    [0, JOB_LABEL],
    [1, record.receiptKey],
    [2, record.kind],
    [3, record.id],
    [4, record.inputs.map(named)],
    [5, [tool.name, tool.version, tool.sha256]],
    [6, new Map(record.parameters)],
    [7, record.outputs.map(({ name, sha256, size }) => [name, sha256, size])],
    [8, record.startedAt],
    [9, record.finishedAt],
    [10, record.state],
    [11, record.code],
    [12, record.barriers],
  ]);
}

const KEYS = 13;

function readPayload(bytes: Uint8Array): JobRecord {
  const map = decodeCbor(bytes, 'the payload of the job record', MAX_JOB_RECORD_BYTES);
  if (!(map instanceof Map)) throw wrong('is no map');
  const fields = map as CborMap;
  if (fields.get(0) !== JOB_LABEL) throw wrong(`is not of the domain ${JOB_LABEL}`);
  for (const key of fields.keys())
    if (typeof key !== 'number' || key >= KEYS) throw wrong(`has the unknown key ${shown(key)}`);
  const tool = listOf(fields.get(5), 'tool', 3);
  if (tool.length !== 3) throw wrong('tool is not [name, version, sha256]');
  const state = JOB_STATES.find((each) => each === fields.get(10));
  if (state === undefined) throw wrong('state is none of done, failed, cancelled, interrupted');
  const record: JobRecord = {
    receiptKey: hashOf(fields.get(1), 'receipt_key'),
    kind: textOf(fields.get(2), 'kind', WORD),
    id: textOf(fields.get(3), 'id', WORD),
    inputs: listOf(fields.get(4), 'inputs', MAX_INPUTS).map(inputOf),
    tool: {
      name: textOf(tool[0], 'tool name'),
      version: textOf(tool[1], 'tool version'),
      sha256: hashOf(tool[2], 'tool digest'),
    },
    parameters: parametersOf(fields.get(6)),
    outputs: listOf(fields.get(7), 'outputs', MAX_OUTPUTS).map(outputOf),
    startedAt: uintOf(fields.get(8), 'started'),
    finishedAt: uintOf(fields.get(9), 'finished'),
    state,
    code: fields.get(11) === null ? null : textOf(fields.get(11), 'code', WORD),
    barriers: listOf(fields.get(12), 'barriers', 16).map((each) => textOf(each, 'barrier', WORD)),
  };
  agree(record);
  return record;
}

/** Fields that contradict each other are refused: a reader may look at one of them alone. */
function agree({ inputs, outputs, startedAt, finishedAt, state, code, barriers }: JobRecord): void {
  if (finishedAt < startedAt) throw wrong('finished before it started');
  if ((state === 'done') !== (code === null)) throw wrong('has a code if and only if it is not done');
  if (state !== 'done' && outputs.length > 0) throw wrong('has outputs, and is not done');
  ascending(inputs.map(({ name }) => name), 'inputs'); // prettier-ignore
  ascending(outputs.map(({ name }) => name), 'outputs'); // prettier-ignore
  ascending(barriers, 'barriers');
}

/** One order, and no name twice: two records of one job then have the same bytes. */
function ascending(names: readonly string[], what: string): void {
  for (let i = 1; i < names.length; i++)
    if ((names[i - 1] ?? '') >= (names[i] ?? '')) throw wrong(`${what} are not sorted by name, each once`);
}

function inputOf(value: Cbor): JobInput {
  const [name, sha256, ...more] = listOf(value, 'input', 2);
  if (more.length > 0) throw wrong('an input is not [name, sha256]');
  return { name: textOf(name, 'input name', PATH), sha256: hashOf(sha256, 'input digest') };
}

function outputOf(value: Cbor): JobOutput {
  const [name, sha256, size, ...more] = listOf(value, 'output', 3);
  if (more.length > 0) throw wrong('an output is not [name, sha256, size]');
  return {
    name: textOf(name, 'output name', PATH),
    sha256: hashOf(sha256, 'output digest'),
    size: uintOf(size, 'output size'),
  };
}

function parametersOf(value: Cbor | undefined): ReadonlyMap<string, JobParameter> {
  if (!(value instanceof Map)) throw wrong('parameters are no map');
  const given = value as CborMap;
  if (given.size > MAX_PARAMETERS) throw wrong(`has more than ${MAX_PARAMETERS} parameters`);
  const parameters = new Map<string, JobParameter>();
  for (const [key, item] of given) {
    if (typeof key !== 'string' || !/^[a-z][a-z0-9_]{0,63}$/.test(key))
      throw wrong('a parameter has a name of another form');
    parameters.set(key, parameterOf(item, 0));
  }
  return parameters;
}

function parameterOf(value: Cbor, depth: number): JobParameter {
  if (value === null || typeof value === 'boolean' || typeof value === 'number') return value;
  if (typeof value === 'string') return textOf(value, 'parameter');
  if (!Array.isArray(value) || depth > 2) throw wrong('a parameter is of another type');
  return listOf(value as Cbor, 'parameter', MAX_LIST).map((item) => parameterOf(item, depth + 1));
}

function listOf(value: Cbor | undefined, what: string, max: number): readonly Cbor[] {
  if (!Array.isArray(value)) throw wrong(`${what} is no list`);
  const list = value as readonly Cbor[];
  if (list.length > max) throw wrong(`${what} has ${list.length} entries, at most ${max} are read`);
  return list;
}

function textOf(value: Cbor | undefined, what: string, form?: RegExp): string {
  if (typeof value !== 'string') throw wrong(`${what} is no text`);
  if (value.length > MAX_TEXT) throw wrong(`${what} has more than ${MAX_TEXT} characters`);
  if (form !== undefined && !form.test(value)) throw wrong(`${what} is of another form`);
  return value;
}

function hashOf(value: Cbor | undefined, what: string): Uint8Array {
  if (value instanceof Uint8Array && value.length === 32) return value;
  throw wrong(`${what} is not 32 bytes`);
}

function uintOf(value: Cbor | undefined, what: string): number {
  if (typeof value === 'number') return value;
  throw wrong(`${what} is no whole number`);
}

function shown(key: number | string): string {
  return JSON.stringify(key).slice(0, 64);
}

function wrong(what: string): Error {
  return malformed('malformed_record', `the job record ${what}`);
}
