// Options read strictly: unknown ones, those given twice and values out of range are refused with the usage.

import { parseArgs, type ParseArgsConfig } from 'node:util';
import { malformed } from '../../transcript/errors.ts';
import type { ProxyReceiptOptions } from '../proxy/receipts.ts';

/** The value of --allow-simulated where none is given. */
export const ANY = 'any';

type Options = NonNullable<ParseArgsConfig['options']>;

interface Config<O extends Options> {
  readonly args: readonly string[];
  readonly options: O;
  readonly strict: true;
  readonly allowPositionals: true;
  readonly tokens: true;
}

/** Throws `wrong_usage`. */
export function parse<const O extends Options>(
  argv: readonly string[],
  options: O,
): ReturnType<typeof parseArgs<Config<O>>> {
  // An option whose value may be left out, which parseArgs does not know.
  const args = argv.map((word) => (word === '--allow-simulated' ? `--allow-simulated=${ANY}` : word));
  try {
    const parsed = parseArgs<Config<O>>({
      args,
      options,
      strict: true,
      allowPositionals: true,
      tokens: true,
    });
    const seen = new Set<string>();
    for (const token of parsed.tokens) {
      if (token.kind !== 'option') continue;
      if (seen.has(token.name) && options[token.name]?.multiple !== true)
        throw wrong(`--${token.name} is given twice`);
      seen.add(token.name);
    }
    return parsed;
  } catch (error) {
    if (error instanceof TypeError) throw wrong(error.message.split('. ')[0] ?? error.message);
    throw error;
  }
}

/** Decimal digits, 1 to `maximum`. Throws `wrong_usage`. */
export function boundedCount(text: string, name: string, maximum: number): number {
  const value = Number(text);
  if (!/^\d+$/.test(text) || value < 1 || value > maximum)
    throw wrong(`${name} is ${text}, expected 1 to ${maximum}`);
  return value;
}

export function wrong(message: string): Error {
  return malformed('wrong_usage', message, { hint: 'see assay-verify --help' });
}

/** The parts of answers that a proxy keeps; undefined: none. */
export function keptReceipts(values: {
  readonly receipts?: string | undefined;
  readonly 'with-content'?: boolean | undefined;
  readonly 'with-tokens'?: boolean | undefined;
  readonly alone?: boolean | undefined;
}): ProxyReceiptOptions | undefined {
  const { receipts: folder, 'with-content': withContent = false } = values;
  const { 'with-tokens': withTokens = false, alone = false } = values;
  if (folder !== undefined) return { folder, withContent, withTokens, alone };
  if (withContent || withTokens || alone)
    throw wrong('--with-content, --with-tokens and --alone go with --receipts DIR');
  return undefined;
}
