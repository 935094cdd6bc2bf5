// The program's side of the protocol between a jail and its workshop, for programs of ours in Node
// (docs/workshop.md, "The program's side"): reads the request, writes lines of JSON on standard output.

import { readFileSync, writeSync } from 'node:fs';
import { ApiError } from '../../base/errors.ts';
import { anyObject, integer, object, text } from '../../base/shape.ts';
import { parseStored } from '../../base/stored-json.ts';
import { PROGRAM_REFUSALS } from '../kind.ts';

const requestShape = object({
  kind: text({ max: 64 }),
  parameters: anyObject('Of the kind.'),
  inputs: anyObject('Paths by name.'),
  output: text({ max: 4096 }),
  threads: integer({ min: 1, max: 1024 }),
});

export interface ProgramRequest {
  readonly kind: string;
  readonly output: string;
  readonly threads: number;
  /** The path of an input. */
  input(name: string): string;
  /** A parameter that is a text. */
  text(name: string): string;
  /** A parameter that is a number; null where it is not given. */
  number(name: string): number | null;
}

/** `--request FILE` of the command line. */
export function readRequest(args: readonly string[]): ProgramRequest {
  const at = args.indexOf('--request');
  const path = at < 0 ? undefined : args[at + 1];
  if (path === undefined) throw new Error('--request FILE is missing');
  const { kind, parameters, inputs, output, threads } = parseStored(requestShape, readFileSync(path, 'utf8'));
  const textOf = (of: Readonly<Record<string, unknown>>, name: string): string => {
    const value = of[name];
    if (typeof value !== 'string') throw new Error(`${name} is no text`);
    return value;
  };
  return {
    kind,
    output,
    threads,
    input: (name) => textOf(inputs, name),
    text: (name) => textOf(parameters, name),
    number(name) {
      const value = parameters[name];
      return typeof value === 'number' ? value : null;
    },
  };
}

const STEPS = 200;

/** Tells the share that is done, from `from` to `to` of the whole, no more often than it can be seen. */
export function reporter(stage: string, from = 0, to = 1): (done: number, total: number) => void {
  let told = -1;
  return (done, total) => {
    const share = total > 0 ? Math.min(1, Math.max(0, done / total)) : 0;
    const step = Math.floor(share * STEPS);
    if (step === told) return;
    told = step;
    say({ progress: from + share * (to - from), stage });
  };
}

export function say(line: object): void {
  writeSync(1, `${JSON.stringify(line)}\n`);
}

/** Runs the program to its end: a result, a refusal, or the name of what was thrown. */
export async function speakOf(work: () => Promise<object>): Promise<void> {
  try {
    say({ result: await work() });
  } catch (error) {
    process.exitCode = 1;
    if (error instanceof ApiError) {
      const { code, message, param } = error;
      if (PROGRAM_REFUSALS.has(code))
        say({ refused: { code, message: message.slice(0, 300), param: param ?? undefined } });
      // A fault of the program, not of what it was given.
      else say({ log: `${code}: ${message}` });
    } else process.stderr.write(`${error instanceof Error ? error.name : 'Error'}\n`);
  }
}
