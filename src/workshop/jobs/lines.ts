// The words of a program in the jail. stdout: one JSON object a line (docs/workshop.md, "The program's side"),
// each of a closed set of forms. stderr may quote the data a job works on, so only lines of two forms are
// kept of it: frames of a traceback and names of exceptions. Both are bounded in lines and characters.

import { PROGRAM_REFUSALS } from '../kind.ts';
import { type ApiCode, isApiCode } from '../../base/api-codes.ts';
import { isRecord } from '../../base/shape.ts';

export type Said =
  | { readonly kind: 'progress'; readonly progress: number; readonly stage: string | undefined }
  | { readonly kind: 'log'; readonly text: string }
  | { readonly kind: 'result'; readonly result: unknown }
  | {
      readonly kind: 'refused';
      readonly code: ApiCode;
      readonly message: string;
      readonly param: string | undefined;
    };

const MAX_LINE_BYTES = 64 * 1024;
const MAX_LOG_CHARACTERS = 300;
const STAGE = /^[a-z0-9 _./-]{1,64}$/;
const PARAM = /^[a-z0-9_.[\]]{1,64}$/;
// eslint-disable-next-line no-control-regex
const UNPRINTABLE = /[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g;

/** Feeds pieces of stdout; calls back for each line. Throws at anything the protocol does not have. */
export function protocolReader(onSaid: (said: Said) => void): (piece: Buffer) => void {
  let held = Buffer.alloc(0);
  return (piece) => {
    held = Buffer.concat([held, piece]);
    for (let end = held.indexOf(0x0a); end >= 0; end = held.indexOf(0x0a)) {
      if (end > MAX_LINE_BYTES) throw new Error('a line of the program is too long');
      const line = held.toString('utf8', 0, end);
      held = held.subarray(end + 1);
      if (line.trim() !== '') onSaid(saidIn(line));
    }
    if (held.length > MAX_LINE_BYTES) throw new Error('a line of the program is too long');
  };
}

function saidIn(line: string): Said {
  const value: unknown = JSON.parse(line);
  if (!isRecord(value)) throw new Error('a line of the program is no object');
  const { progress, stage, log, result, refused } = value;
  if (typeof progress === 'number' && progress >= 0 && progress <= 1)
    return { kind: 'progress', progress, stage: stageOf(stage) };
  if (typeof log === 'string') return { kind: 'log', text: shortened(log) };
  if (isRecord(result)) return { kind: 'result', result };
  if (isRecord(refused)) return refusalOf(refused);
  throw new Error('a line of the program has none of the forms there are');
}

function stageOf(stage: unknown): string | undefined {
  if (stage === undefined) return undefined;
  if (typeof stage === 'string' && STAGE.test(stage)) return stage;
  throw new Error('a stage of the program is of another form');
}

function refusalOf({ code, message, param }: Readonly<Record<string, unknown>>): Said {
  if (
    typeof code !== 'string' ||
    !isApiCode(code) ||
    !PROGRAM_REFUSALS.has(code) ||
    typeof message !== 'string'
  )
    throw new Error('a refusal of the program is of another form');
  const named = typeof param === 'string' && PARAM.test(param) ? param : undefined;
  return { kind: 'refused', code, message: shortened(message), param: named };
}

function shortened(text: string): string {
  return text.replace(UNPRINTABLE, ' ').slice(0, MAX_LOG_CHARACTERS);
}

const FRAME = /^\s*File "(?:[^"]*\/)?([\w.-]{1,80})", line (\d{1,7})(?:, in ([\w<>.]{1,80}))?\s*$/;
const EXCEPTION =
  /^((?:[A-Za-z_]\w{0,60}\.){0,6}[A-Za-z_]\w{0,60}(?:Error|Exception|Interrupt|Exit|Warning))(?::.*)?$/;
const OOM = /JavaScript heap out of memory/;

/** The part of a line of stderr that quotes no data; undefined: no such part. */
export function harmless(line: string): string | undefined {
  const frame = FRAME.exec(line);
  if (frame !== null) return `at ${frame[1]}:${frame[2]}${frame[3] === undefined ? '' : ` in ${frame[3]}`}`;
  if (OOM.test(line)) return 'its heap is full';
  return EXCEPTION.exec(line)?.[1];
}

/** Lines of stderr, as far as they are harmless; a longer line than any of those is dropped as it comes. */
export function stderrReader(onLine: (text: string) => void): (piece: Buffer) => void {
  const longest = 4096;
  let held = '';
  let dropping = false;
  return (piece) => {
    for (const [i, part] of piece.toString('latin1').split('\n').entries()) {
      if (i > 0) {
        const text = dropping ? undefined : harmless(held);
        if (text !== undefined) onLine(text);
        held = '';
        dropping = false;
      }
      if (held.length + part.length > longest) dropping = true;
      else held += part;
    }
  };
}

const MAX_TAIL_LINES = 200;

/** The last lines of a job. */
export class LogTail {
  readonly #lines: string[];

  constructor(lines: readonly string[] = []) {
    this.#lines = [...lines];
  }

  add(text: string): void {
    this.#lines.push(text.slice(0, MAX_LOG_CHARACTERS));
    if (this.#lines.length > MAX_TAIL_LINES) this.#lines.splice(0, this.#lines.length - MAX_TAIL_LINES);
  }

  get lines(): readonly string[] {
    return [...this.#lines];
  }
}
