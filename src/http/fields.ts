// The fields of a form as the object its route reads: application/x-www-form-urlencoded, or
// multipart/form-data without files. Texts become numbers and booleans where the shape's schema has those.
// Small by its nature: few fields, each of a few kilobytes.

import { ApiError } from '../base/errors.ts';
import type { JsonSchema } from '../base/shape.ts';
import { bodyTooLarge, unsupportedMediaType } from './errors.ts';
import { formBoundary, type FormField, readForm } from './multipart.ts';

const MAX_FORM_BYTES = 256 * 1024;
const MAX_FIELDS = 64;
const MAX_FIELD_BYTES = 16 * 1024;
const URLENCODED = /^application\/x-www-form-urlencoded\s*(?:;\s*charset\s*=\s*"?utf-?8"?\s*)?$/i;

/** Reads a whole form. 400 invalid_form, 413 request_too_large, 415. */
export async function readFormFields(
  contentType: string,
  body: AsyncIterable<Buffer>,
  schema: JsonSchema,
): Promise<Readonly<Record<string, unknown>>> {
  const boundary = formBoundary(contentType);
  if (boundary !== undefined) {
    const { fields } = await readForm(bounded(body), boundary, {
      onFile: () => Promise.reject(invalid('it has a file, which is given by its id')),
      maxFields: MAX_FIELDS,
      maxFieldBytes: MAX_FIELD_BYTES,
    });
    return objectOf(fields, schema);
  }
  if (!URLENCODED.test(contentType)) throw unsupportedMediaType();
  const pieces: Buffer[] = [];
  for await (const piece of bounded(body)) pieces.push(piece);
  return objectOf(urlencoded(pieces), schema);
}

async function* bounded(body: AsyncIterable<Buffer>): AsyncGenerator<Buffer, void> {
  let bytes = 0;
  for await (const piece of body) {
    bytes += piece.length;
    if (bytes > MAX_FORM_BYTES) throw bodyTooLarge();
    yield piece;
  }
}

function urlencoded(pieces: readonly Buffer[]): readonly FormField[] {
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(Buffer.concat(pieces));
  } catch {
    throw invalid('it is not UTF-8');
  }
  const fields = [...new URLSearchParams(text)];
  if (fields.length > MAX_FIELDS) throw invalid('it has too many fields');
  if (fields.some(([name, value]) => name.length + value.length > MAX_FIELD_BYTES))
    throw invalid('a field of it is too long');
  return fields;
}

function objectOf(fields: readonly FormField[], schema: JsonSchema): Readonly<Record<string, unknown>> {
  const types = typesOf(schema);
  const values: Record<string, unknown> = {};
  for (const [name, value] of fields) {
    if (name in Object.prototype || Object.hasOwn(values, name))
      throw invalid('a field of it is there twice, or has a name none has');
    // An empty field is how a form says that there is none.
    if (value !== '') values[name] = typed(value, types.get(name));
  }
  return values;
}

function typesOf(schema: JsonSchema): ReadonlyMap<string, string> {
  const properties = Object.entries((schema['properties'] ?? {}) as Readonly<Record<string, JsonSchema>>);
  return new Map(properties.map(([name, { type }]) => [name, typeof type === 'string' ? type : 'string']));
}

/** A text that is none of the type stays a text: the shape refuses it by its name. */
function typed(value: string, type: string | undefined): unknown {
  if (type === 'integer' && /^-?\d{1,15}$/.test(value)) return Number(value);
  if (type === 'number' && /^-?(?:\d{1,15}(?:\.\d{1,15})?|\.\d{1,15})(?:e[+-]?\d{1,2})?$/i.test(value))
    return Number(value);
  if (type === 'boolean' && /^(?:true|1|on|yes)$/i.test(value)) return true;
  if (type === 'boolean' && /^(?:false|0|off|no)$/i.test(value)) return false;
  return value;
}

function invalid(why: string): ApiError {
  return new ApiError('invalid_form', `the request body is no form that can be read: ${why}`);
}
