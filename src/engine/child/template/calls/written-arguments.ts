// Calls whose arguments are not one JSON object, as a format writes them.

import type { ElementCall, LiteralCall, TaggedCall } from '../../../seam/tool-format.ts';

/**
 * The ways in which a call may be written, up to the end of its arguments. `call.arguments` is JSON of an
 * object.
 */
export function argumentTexts(
  syntax: TaggedCall | ElementCall | LiteralCall,
  call: { readonly name: string; readonly arguments: string },
): readonly string[] {
  const given: unknown = JSON.parse(call.arguments);
  const members = Object.entries(given ?? {});
  const { name } = call;
  if (syntax.kind === 'tagged') {
    const named = syntax.again === null ? name : name + syntax.again + name;
    const number = syntax.afterNumber === null ? '' : `1${syntax.afterNumber}`;
    const parameters = members.map(([key, value]) => parameter(syntax, key, value));
    return [syntax.start + named + syntax.afterName + number + parameters.join('')];
  }
  const start = syntax.start + name + syntax.afterName;
  if (syntax.kind === 'elements') return [start + elements(syntax.mark, given)];
  const { form } = syntax;
  if (form.kind === 'bare') return [start + bare(form.quote, given)];
  return ['"', "'"].map(
    (quote) => start + members.map(([key, each]) => `${key}=${python(each, quote)}`).join(', '),
  );
}

function parameter(syntax: TaggedCall, key: string, value: unknown): string {
  const { typed, quoted, parameterStart, afterKey, parameterEnd } = syntax;
  const type = typed === null ? '' : typed[typeOf(value)] + typed.after;
  return parameterStart + key + afterKey + type + textIn(value, quoted) + parameterEnd;
}

function textIn(value: unknown, quoted: TaggedCall['quoted']): string {
  if (typeof value !== 'string') return JSON.stringify(value);
  return quoted?.needs.some((text) => value.includes(text)) === true
    ? quoted.open + value + quoted.close
    : value;
}

function typeOf(value: unknown): 'string' | 'number' | 'boolean' | 'null' | 'object' | 'array' {
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'array';
  const type = typeof value;
  return type === 'string' || type === 'number' || type === 'boolean' ? type : 'object';
}

function elements(mark: string, value: unknown): string {
  const element = (name: string, each: unknown): string =>
    `${mark}<${name}>${elements(mark, each)}${mark}</${name}>`;
  if (Array.isArray(value)) return value.map((item) => element('item', item)).join('');
  if (typeof value === 'object' && value !== null)
    return Object.entries(value)
      .map(([name, each]) => element(name, each))
      .join('');
  return typeof value === 'string' ? value : JSON.stringify(value);
}

function bare(quote: string, value: unknown): string {
  if (typeof value === 'string') return quote + value + quote;
  if (Array.isArray(value)) return `[${value.map((item) => bare(quote, item)).join(',')}]`;
  if (typeof value !== 'object' || value === null) return JSON.stringify(value);
  const members = Object.entries(value).map(([name, each]) => {
    const key = /^[\w.-]+$/.test(name) ? name : quote + name + quote;
    return `${key}:${bare(quote, each)}`;
  });
  return `{${members.join(',')}}`;
}

function python(value: unknown, quote: string): string {
  if (typeof value === 'boolean') return value ? 'True' : 'False';
  if (value === null) return 'None';
  const text = JSON.stringify(value);
  return typeof value === 'string' && quote !== '"' ? quote + text.slice(1, -1) + quote : text;
}
