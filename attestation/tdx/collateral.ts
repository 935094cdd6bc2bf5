// Intel's collateral: TCB info V3 and the TD quoting enclave's identity V2 (Intel PCS API v4), as the JSON
// texts the service returns. A signature is over the bytes of the inner object as received, so those bytes
// are cut out of the text, checked, and only then parsed: no field is used before its signature is checked,
// and no JSON is written back to be verified. Refuses: anything but the two expected members, duplicate keys,
// missing or mistyped members, times without a zone.

import { fromHex, utf8, viewOf } from '../encoding/bytes.ts';
import { malformed, type AttestationError } from '../transcript/errors.ts';
import { parseJson, shapeReaders, type Json, type JsonObject } from '../encoding/json.ts';
import type { SignedBytes } from '../x509/signature.ts';

/** Intel's collateral for one quote, as PCS and PCCS return it. None of it is trusted unchecked. */
export interface TdxCollateral {
  /** The whole response body: `{"tcbInfo":{…},"signature":"…"}`. */
  readonly tcbInfo: string;
  /** PEM: TCB signing certificate, root. */
  readonly tcbInfoIssuerChain: string;
  /** The whole response body: `{"enclaveIdentity":{…},"signature":"…"}`. */
  readonly qeIdentity: string;
  readonly qeIdentityIssuerChain: string;
  /** CRL of the PCK's issuer: DER (PEM is accepted too). */
  readonly pckCrl: Uint8Array;
  /**
   * PEM: PCK Platform or Processor CA, root. Redundant with the quote's chain; compared with it when given.
   */
  readonly pckCrlIssuerChain?: string | undefined;
  /** CRL of the root: DER (PEM is accepted too). */
  readonly rootCaCrl: Uint8Array;
  /**
   * PEM, leaf first: for quotes that only say which PCK signed (certification data types 1
   * to 4). Ignored for type 5.
   */
  readonly pckChain?: string | undefined;
}

const MAX_COLLATERAL_JSON = 256 * 1024;
const shape = shapeReaders('tdx_collateral_malformed');

export const TCB_STATUSES = [
  'UpToDate',
  'SWHardeningNeeded',
  'ConfigurationNeeded',
  'ConfigurationAndSWHardeningNeeded',
  'TDRelaunchAdvised',
  'TDRelaunchAdvisedConfigurationNeeded',
  'OutOfDate',
  'OutOfDateConfigurationNeeded',
  'Revoked',
] as const;
export type TcbStatus = (typeof TCB_STATUSES)[number];

/** The signed text of one collateral document and the signature beside it. */
export interface SignedText extends SignedBytes {
  readonly text: string;
}

interface Window {
  readonly issueDate: Date;
  readonly nextUpdate: Date;
  readonly tcbEvaluationDataNumber: number;
}

export interface SvnComponent {
  readonly svn: number;
  /** Intel's words for what the component is, when given: `TDX Late Microcode Update`. */
  readonly type: string | undefined;
}

export interface TcbLevel {
  readonly sgx: readonly SvnComponent[];
  readonly pceSvn: number;
  readonly tdx: readonly SvnComponent[];
  readonly status: TcbStatus;
  readonly tcbDate: Date;
  readonly advisoryIds: readonly string[];
}

export interface IsvLevel {
  readonly isvSvn: number;
  readonly status: TcbStatus;
  readonly tcbDate: Date;
  readonly advisoryIds: readonly string[];
}

export interface ModuleIdentity {
  /** `TDX_03`, upper case. */
  readonly id: string;
  readonly mrSigner: Uint8Array;
  readonly attributes: Uint8Array;
  readonly attributesMask: Uint8Array;
  readonly levels: readonly IsvLevel[];
}

export interface TcbInfo extends Window {
  readonly id: string;
  readonly version: number;
  readonly tcbType: number;
  readonly fmspc: Uint8Array;
  readonly pceId: Uint8Array;
  readonly module: Pick<ModuleIdentity, 'mrSigner' | 'attributes' | 'attributesMask'> | undefined;
  readonly moduleIdentities: readonly ModuleIdentity[];
  /** As sent; `sortedLevels` orders them. */
  readonly levels: readonly TcbLevel[];
}

export interface QeIdentity extends Window {
  readonly id: string;
  readonly version: number;
  readonly miscSelect: number;
  readonly miscSelectMask: number;
  readonly attributes: Uint8Array;
  readonly attributesMask: Uint8Array;
  readonly mrSigner: Uint8Array;
  readonly isvProdId: number;
  readonly levels: readonly IsvLevel[];
}

/**
 * Cuts `{"<member>":{…},"signature":"<hex>"}` into signed bytes and signature without
 * interpreting the former.
 */
export function cutSigned(text: string, member: 'tcbInfo' | 'enclaveIdentity'): SignedText {
  if (text.length > MAX_COLLATERAL_JSON) {
    throw malformed(
      'input_too_large',
      `${member} response is ${text.length} characters, limit ${MAX_COLLATERAL_JSON}`,
    );
  }
  const spans = topLevel(text, member);
  const body = spans.get(member);
  const signature = spans.get('signature');
  if (spans.size !== 2 || body === undefined || signature === undefined) {
    throw bad(
      `${member} response has members ${[...spans.keys()].slice(0, 4).join(', ')}; expected ${member} and signature`,
    );
  }
  if (!body.startsWith('{') || !/^"[0-9a-fA-F]{128}"$/.test(signature)) {
    throw bad(`${member} response needs an object and a signature of 128 hex digits`);
  }
  return { text: body, bytes: utf8(body), signature: fromHex(signature.slice(1, -1), 'signature') };
}

/**
 * Parses the signed text of a TCB info, after its signature has been checked. Throws
 * `tdx_collateral_malformed`.
 */
export function parseTcbInfo(text: string): TcbInfo {
  const at = new Fields(parseJson(text, 'tcbInfo', MAX_COLLATERAL_JSON), 'tcbInfo');
  return {
    id: at.string('id'),
    version: at.integer('version', 255),
    tcbType: at.integer('tcbType', 255),
    fmspc: at.hex('fmspc', 6),
    pceId: at.hex('pceId', 2),
    ...window(at),
    module: at.has('tdxModule') ? moduleCore(at.object('tdxModule')) : undefined,
    moduleIdentities: (at.has('tdxModuleIdentities') ? at.list('tdxModuleIdentities', 64) : []).map(
      (item) => ({
        id: item.string('id').toUpperCase(),
        ...moduleCore(item),
        levels: item.list('tcbLevels', 64).map(isvLevel),
      }),
    ),
    levels: at.list('tcbLevels', 256).map(tcbLevel),
  };
}

/**
 * Parses the signed text of an enclave identity, after its signature has been checked. Throws
 * `tdx_collateral_malformed`.
 */
export function parseQeIdentity(text: string): QeIdentity {
  const at = new Fields(parseJson(text, 'enclaveIdentity', MAX_COLLATERAL_JSON), 'enclaveIdentity');
  return {
    id: at.string('id'),
    version: at.integer('version', 255),
    ...window(at),
    miscSelect: viewOf(at.hex('miscselect', 4)).getUint32(0, true),
    miscSelectMask: viewOf(at.hex('miscselectMask', 4)).getUint32(0, true),
    attributes: at.hex('attributes', 16),
    attributesMask: at.hex('attributesMask', 16),
    mrSigner: at.hex('mrsigner', 32),
    isvProdId: at.integer('isvprodid', 65535),
    levels: at.list('tcbLevels', 64).map(isvLevel),
  };
}

function window(at: Fields): Window {
  return {
    issueDate: at.time('issueDate'),
    nextUpdate: at.time('nextUpdate'),
    tcbEvaluationDataNumber: at.integer('tcbEvaluationDataNumber', 0xffffffff),
  };
}

function moduleCore(at: Fields): Pick<ModuleIdentity, 'mrSigner' | 'attributes' | 'attributesMask'> {
  return {
    mrSigner: at.hex('mrsigner', 48),
    attributes: at.hex('attributes', 8),
    attributesMask: at.hex('attributesMask', 8),
  };
}

function isvLevel(at: Fields): IsvLevel {
  return { isvSvn: at.object('tcb').integer('isvsvn', 65535), ...levelStatus(at) };
}

function tcbLevel(at: Fields): TcbLevel {
  const tcb = at.object('tcb');
  return {
    sgx: components(tcb, 'sgxtcbcomponents'),
    pceSvn: tcb.integer('pcesvn', 65535),
    // Levels of a TCB info for SGX have none; a TDX one without them does not match any quote
    // (all zero would match all).
    tdx: components(tcb, 'tdxtcbcomponents'),
    ...levelStatus(at),
  };
}

function levelStatus(at: Fields): Pick<TcbLevel, 'status' | 'tcbDate' | 'advisoryIds'> {
  return {
    status: at.oneOf('tcbStatus', TCB_STATUSES),
    tcbDate: at.time('tcbDate'),
    advisoryIds: at.has('advisoryIDs') ? at.strings('advisoryIDs', 256) : [],
  };
}

function components(tcb: Fields, name: string): readonly SvnComponent[] {
  return tcb.list(name, 16, 16).map((item) => ({
    svn: item.integer('svn', 255),
    type: item.has('type') ? item.string('type') : undefined,
  }));
}

/** The fields of one JSON object, by name. Unknown members are allowed: Intel adds some, and signs them. */
class Fields {
  readonly #object: JsonObject;
  readonly #name: string;

  constructor(value: Json | undefined, name: string) {
    this.#object = shape.record(value, name);
    this.#name = name;
  }

  has(key: string): boolean {
    return Object.hasOwn(this.#object, key);
  }

  object(key: string): Fields {
    return new Fields(this.#object[key], this.#nameOf(key));
  }

  string(key: string): string {
    return shape.string(this.#object[key], this.#nameOf(key), MAX_COLLATERAL_JSON);
  }

  oneOf<const T extends string>(key: string, allowed: readonly T[]): T {
    return shape.oneOf(this.#object[key], this.#nameOf(key), allowed);
  }

  integer(key: string, maximum: number): number {
    return shape.integer(this.#object[key], this.#nameOf(key), 0, maximum);
  }

  hex(key: string, size: number): Uint8Array {
    const bytes = fromHex(this.string(key), this.#nameOf(key));
    if (bytes.length !== size) throw bad(`${this.#nameOf(key)} is ${bytes.length} bytes, expected ${size}`);
    return bytes;
  }

  time(key: string): Date {
    return parseUtc(this.string(key), this.#nameOf(key));
  }

  list(key: string, maximum: number, minimum = 0): readonly Fields[] {
    return shape
      .list(this.#object[key], this.#nameOf(key), minimum, maximum)
      .map((item, i) => new Fields(item, `${this.#nameOf(key)}[${i}]`));
  }

  strings(key: string, maximum: number): readonly string[] {
    return shape
      .list(this.#object[key], this.#nameOf(key), 0, maximum)
      .map((item, i) => shape.string(item, `${this.#nameOf(key)}[${i}]`, MAX_COLLATERAL_JSON));
  }

  #nameOf(key: string): string {
    return `${this.#name}.${key}`;
  }
}

/** `YYYY-MM-DDThh:mm:ssZ`, a real date; anything else throws. */
function parseUtc(text: string, name: string): Date {
  const date = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z$/.test(text) ? new Date(text) : undefined;
  if (
    date === undefined ||
    Number.isNaN(date.getTime()) ||
    date.toISOString().slice(0, 19) !== text.slice(0, 19)
  ) {
    throw bad(`${name} is not a UTC time: ${JSON.stringify(text.slice(0, 40))}`);
  }
  return date;
}

/**
 * The raw text of each member of a top-level object. Only finds the ends of values (strings and brackets
 * are tracked); the value that matters is parsed strictly later. Escapes in keys are refused: there are
 * none in what Intel sends.
 */
function topLevel(text: string, name: string): ReadonlyMap<string, string> {
  const spans = new Map<string, string>();
  const space = (from: number): number => {
    let at = from;
    while (at < text.length && ' \t\r\n'.includes(text.charAt(at))) at++;
    return at;
  };
  let at = space(0);
  if (text[at] !== '{') throw bad(`${name} response is not a JSON object`);
  for (let separator = '{'; separator !== '}';) {
    const open = space(at + 1);
    const close = text.indexOf('"', open + 1);
    if (text[open] !== '"' || close < 0) throw bad(`${name} response is not a JSON object`);
    const key = text.slice(open + 1, close);
    const colon = space(close + 1);
    if (text[colon] !== ':' || key.includes('\\') || spans.has(key) || spans.size >= 8)
      throw bad(`${name} response has a bad or repeated member`);
    const from = space(colon + 1);
    const end = valueEnd(text, from, name);
    spans.set(key, text.slice(from, end));
    at = space(end);
    separator = text.charAt(at);
    if (separator !== ',' && separator !== '}') throw bad(`${name} response is not a JSON object`);
  }
  if (space(at + 1) !== text.length) throw bad(`${name} response has text after its end`);
  return spans;
}

function valueEnd(text: string, from: number, name: string): number {
  let depth = 0;
  for (let at = from; at < text.length; at++) {
    const char = text.charAt(at);
    if (char === '"') {
      at++;
      while (at < text.length && text.charAt(at) !== '"') at += text.charAt(at) === '\\' ? 2 : 1;
      if (depth === 0) return at + 1;
    } else if (char === '{' || char === '[') depth++;
    else if (char === '}' || char === ']') {
      if (depth === 0) return at;
      if (--depth === 0) return at + 1;
    } else if (depth === 0 && (char === ',' || ' \t\r\n'.includes(char))) return at;
  }
  throw bad(`${name} response ends inside a value`);
}

function bad(message: string): AttestationError {
  return malformed('tdx_collateral_malformed', message);
}
