// Output for a person at a terminal: log lines in words, colours only there and only while NO_COLOR is not
// set (https://no-color.org). Everywhere else the log stays JSON, one object per line.

import type { LogOptions } from '../base/log.ts';
import { environment } from '../config/read.ts';
import { UsageError } from './arguments.ts';

export const LOG_FORMATS = ['auto', 'json', 'text'] as const;

type Output = Pick<NodeJS.WriteStream, 'write' | 'isTTY'>;

/** Undefined: JSON, as the log writes it by itself. */
export function logStream(format: string | undefined, stderr: Output = process.stderr): LogOptions['stream'] {
  const chosen = LOG_FORMATS.find((known) => known === (format ?? 'auto'));
  if (chosen === undefined)
    throw new UsageError(
      `--log-format must be one of ${LOG_FORMATS.join(', ')}, not ${JSON.stringify(format)}`,
    );
  if (chosen === 'json' || (chosen === 'auto' && !stderr.isTTY)) return undefined;
  const paint = painter(stderr);
  return { write: (line) => void stderr.write(inWords(line, paint)) };
}

export type Colour = 'red' | 'yellow' | 'green' | 'dim';
export type Paint = (colour: Colour, text: string) => string;

const CODES: Readonly<Record<Colour, number>> = { red: 31, yellow: 33, green: 32, dim: 2 };

const LEVEL_COLOURS: Readonly<Record<string, Colour>> = { error: 'red', warn: 'yellow' };

/** Adds colours only when the output is a terminal and NO_COLOR is not set. */
export function painter(output: Pick<Output, 'isTTY'>, env = environment()): Paint {
  const plain = !output.isTTY || (env['NO_COLOR'] ?? '') !== '' || env['TERM'] === 'dumb';
  return plain ? (_, text) => text : (colour, text) => `\u001b[${CODES[colour]}m${text}\u001b[0m`;
}

/** Replaces control characters: the text may come from a caller, a server or a model. Line breaks stay. */
export function shown(text: string): string {
  // eslint-disable-next-line no-control-regex
  return text.replaceAll(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069]/g, '\ufffd');
}

/** One JSON line of the log → `12:34:56 warn  words  key=value`. */
export function inWords(line: string, paint: Paint): string {
  let entry: Record<string, unknown>;
  try {
    entry = JSON.parse(line) as Record<string, unknown>;
  } catch {
    return shown(line);
  }
  const { level, time, msg, ...rest } = entry;
  const clock = /T(\d\d:\d\d:\d\d)/.exec(String(time))?.[1] ?? '';
  const details = Object.entries(rest).map(([key, value]) => `${key}=${detail(value)}`);
  const words = shown(typeof msg === 'string' ? msg : '');
  const colour = LEVEL_COLOURS[String(level)];
  const said = `${String(level).padEnd(5)} ${words}`;
  const rests =
    details.length === 0 ? '' : `  ${paint('dim', shown(details.join(' ')).replaceAll('\n', ' '))}`;
  return `${paint('dim', clock)} ${colour === undefined ? said : paint(colour, said)}${rests}\n`;
}

/** Of an error its message or code; its frames are for the JSON log. */
function detail(value: unknown): string {
  if (typeof value === 'string') return /^[^\s"=]+$/.test(value) ? value : JSON.stringify(value);
  const { name, code, message } = (value ?? {}) as Readonly<Record<string, unknown>>;
  if (typeof name !== 'string') return JSON.stringify(value);
  return JSON.stringify([name, message ?? code].filter((part) => typeof part === 'string').join(': '));
}
