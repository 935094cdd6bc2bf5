// multipart/form-data (RFC 7578, RFC 2046 §5.1) as it arrives: small fields are gathered, the one file is
// streamed to its sink, and no more is held than a part's header and one delimiter. Strict: one file at
// most, fields bounded in number and size, no nested forms, no transfer encoding; no part of the body is
// ever quoted.

import { ApiError } from '../base/errors.ts';

export interface FormFile {
  /** Name of its part. */
  readonly field: string;
  readonly filename: string;
  readonly contentType: string | undefined;
}

export interface FormSink {
  /** Resolves when it takes more. */
  write(bytes: Buffer): Promise<void>;
}

export interface FormOptions {
  /** Called once, when the file begins; the fields before it are there already. */
  readonly onFile: (file: FormFile, fields: readonly FormField[]) => Promise<FormSink>;
  readonly maxFields?: number | undefined;
  readonly maxFieldBytes?: number | undefined;
}

export type FormField = readonly [name: string, value: string];

export interface ReceivedForm {
  /** In the order of the body; a name may be there twice. */
  readonly fields: readonly FormField[];
  /** The file that went to the sink. */
  readonly file: FormFile | undefined;
}

const MAX_FIELDS = 64;
const MAX_FIELD_BYTES = 16 * 1024;
const MAX_PART_HEADER_BYTES = 8 * 1024;
const MAX_FILENAME_CHARACTERS = 512;
const CRLF = Buffer.from('\r\n');
const END_OF_HEADER = Buffer.from('\r\n\r\n');
/** RFC 2046 §5.1.1. */
const BOUNDARY = /^[\w'()+,./:=?\- ]{0,69}[\w'()+,./:=?-]$/;

/** The boundary of a `content-type` header; undefined when it is not multipart/form-data with one. */
export function formBoundary(contentType: string | undefined): string | undefined {
  const match = /^multipart\/form-data\s*;(?:[^"]*;)?\s*boundary=(?:"([^"]*)"|([^\s;"]+))/i.exec(
    contentType ?? '',
  );
  const boundary = match?.[1] ?? match?.[2];
  return boundary !== undefined && BOUNDARY.test(boundary) ? boundary : undefined;
}

/** Reads a form to its end. Throws ApiError invalid_form, or the error of the sink. */
export async function readForm(
  body: AsyncIterable<Buffer>,
  boundary: string,
  options: FormOptions,
): Promise<ReceivedForm> {
  const reader = new FormReader(boundary, options);
  for await (const bytes of body) await reader.push(bytes);
  return reader.end();
}

type Part =
  { readonly kind: 'field'; readonly name: string } | { readonly kind: 'file'; readonly sink: FormSink };

/** start: before the first delimiter. after: behind a delimiter, where `--` ends the form. */
type Place = 'start' | 'after' | 'header' | 'part' | 'end';

class FormReader {
  readonly #options: FormOptions;
  readonly #delimiter: Buffer;
  readonly #fields: FormField[] = [];
  #file: FormFile | undefined;
  #place: Place = 'start';
  /** Bytes that are not taken yet. */
  #waiting: Buffer;
  #part: Part = { kind: 'field', name: '' };
  #value: Buffer[] = [];
  #valueBytes = 0;
  /** Bytes at the beginning of a part that are not its content. */
  #skip = 0;

  constructor(boundary: string, options: FormOptions) {
    this.#options = options;
    this.#delimiter = Buffer.from(`\r\n--${boundary}`, 'latin1');
    // The first delimiter stands at the beginning, without the line break of the others.
    this.#waiting = CRLF;
  }

  async push(bytes: Buffer): Promise<void> {
    this.#waiting = this.#waiting.length === 0 ? bytes : Buffer.concat([this.#waiting, bytes]);
    while (await this.#step());
  }

  end(): ReceivedForm {
    if (this.#place !== 'end') throw invalid('it ends before its last delimiter');
    return { fields: this.#fields, file: this.#file };
  }

  /** False when it needs more bytes. */
  async #step(): Promise<boolean> {
    switch (this.#place) {
      case 'start':
        return this.#start();
      case 'after':
        return this.#after();
      case 'header':
        return this.#header();
      case 'part':
        return this.#content();
      case 'end':
        // An epilogue is ignored (RFC 2046 §5.1.1).
        this.#waiting = Buffer.alloc(0);
        return false;
    }
  }

  #start(): boolean {
    if (this.#waiting.length < this.#delimiter.length) return false;
    if (!this.#waiting.subarray(0, this.#delimiter.length).equals(this.#delimiter))
      throw invalid('it does not begin with its delimiter');
    this.#take(this.#delimiter.length);
    this.#place = 'after';
    return true;
  }

  #after(): boolean {
    if (this.#waiting.length < 2) return false;
    const two = this.#waiting.toString('latin1', 0, 2);
    if (two !== '--' && two !== '\r\n') throw invalid('a delimiter is not followed by a line break');
    this.#take(2);
    this.#place = two === '--' ? 'end' : 'header';
    return true;
  }

  async #header(): Promise<boolean> {
    const end = this.#waiting.indexOf(END_OF_HEADER);
    if (end < 0 || end > MAX_PART_HEADER_BYTES) {
      if (this.#waiting.length > MAX_PART_HEADER_BYTES) throw invalid('the header of a part is too long');
      return false;
    }
    const file = fileOrField(this.#waiting.toString('utf8', 0, end));
    this.#take(end + END_OF_HEADER.length - CRLF.length);
    // The line break stays: the delimiter of an empty part begins with it.
    this.#skip = CRLF.length;
    this.#place = 'part';
    if ('name' in file) {
      if (this.#fields.length >= (this.#options.maxFields ?? MAX_FIELDS))
        throw invalid('it has too many fields');
      this.#part = { kind: 'field', name: file.name };
      return true;
    }
    if (this.#file !== undefined) throw invalid('it has more than one file');
    this.#file = file;
    this.#part = { kind: 'file', sink: await this.#options.onFile(file, this.#fields) };
    return true;
  }

  async #content(): Promise<boolean> {
    const at = this.#waiting.indexOf(this.#delimiter, 0);
    const whole = at >= 0;
    const end = whole ? at : this.#waiting.length - this.#delimiter.length + 1;
    if (!whole && end <= this.#skip) return false;
    if (end > this.#skip) await this.#give(this.#waiting.subarray(this.#skip, end));
    this.#skip = 0;
    if (!whole) {
      this.#take(end);
      return false;
    }
    this.#take(end + this.#delimiter.length);
    this.#finishPart();
    this.#place = 'after';
    return true;
  }

  async #give(bytes: Buffer): Promise<void> {
    if (this.#part.kind === 'file') return this.#part.sink.write(bytes);
    this.#valueBytes += bytes.length;
    if (this.#valueBytes > (this.#options.maxFieldBytes ?? MAX_FIELD_BYTES))
      throw invalid('a field of it is too long');
    this.#value.push(Buffer.from(bytes));
    return undefined;
  }

  #finishPart(): void {
    if (this.#part.kind === 'field') this.#fields.push([this.#part.name, textOf(Buffer.concat(this.#value))]);
    this.#value = [];
    this.#valueBytes = 0;
  }

  #take(bytes: number): void {
    this.#waiting = this.#waiting.subarray(bytes);
  }
}

/** A part with a filename is a file (RFC 7578 §4.2). */
function fileOrField(header: string): FormFile | { readonly name: string } {
  const lines = new Map<string, string>();
  for (const line of header.split('\r\n')) {
    const colon = line.indexOf(':');
    const name = line.slice(0, colon).toLowerCase();
    if (colon <= 0 || !/^[a-z-]+$/.test(name) || lines.has(name))
      throw invalid('the header of a part is broken');
    lines.set(name, line.slice(colon + 1).trim());
  }
  const encoding = lines.get('content-transfer-encoding')?.toLowerCase() ?? 'binary';
  if (!['binary', '8bit', '7bit'].includes(encoding)) throw invalid('a part of it is encoded');
  const parameters = parametersOf(lines.get('content-disposition') ?? '');
  const name = parameters.get('name');
  if (name === undefined || name === '' || name.length > 128) throw invalid('a part has no name');
  const filename = parameters.get('filename') ?? extendedName(parameters.get('filename*'));
  if (filename === undefined) return { name };
  if (filename.length > MAX_FILENAME_CHARACTERS) throw invalid('the name of its file is too long');
  return { field: name, filename, contentType: lines.get('content-type') };
}

/** Where the next parameter begins: quoted as browsers and SDKs write it, or a token. */
const PARAMETER = /\s*;\s*([!#$%&'*+.^`|~\w-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;"]+))/y;

/** Read from the left: the text of one is not searched for another. A name that is there twice is refused. */
function parametersOf(disposition: string): ReadonlyMap<string, string> {
  const type = /^form-data(?=\s*;)/i.exec(disposition)?.[0];
  if (type === undefined) throw invalid('a part has no content-disposition of form-data');
  const found = new Map<string, string>();
  let at = type.length;
  while (at < disposition.length) {
    PARAMETER.lastIndex = at;
    const match = PARAMETER.exec(disposition);
    if (match === null) {
      if (/^\s*;?\s*$/.test(disposition.slice(at))) break;
      throw invalid('a content-disposition is broken');
    }
    const [whole, name = '', quoted, token = ''] = match;
    const key = name.toLowerCase();
    if (found.has(key)) throw invalid('a content-disposition has a parameter twice');
    found.set(key, quoted === undefined ? token : unquoted(quoted));
    at += whole.length;
  }
  return found;
}

/** RFC 8187, as a few clients write names that are not ASCII. */
function extendedName(value: string | undefined): string | undefined {
  if (value === undefined) return undefined;
  const encoded = /^utf-8'[^']*'(.*)$/i.exec(value)?.[1];
  try {
    if (encoded !== undefined) return decodeURIComponent(encoded);
  } catch {
    // Refused below.
  }
  throw invalid('the name of its file is not in UTF-8');
}

/** As HTML writes it ("multipart form data"). */
function unquoted(quoted: string): string {
  return quoted
    .replaceAll(/\\(["\\])/g, '$1')
    .replaceAll(/%(22|0D|0A)/gi, (_whole, code: string) => String.fromCodePoint(Number.parseInt(code, 16)));
}

function textOf(bytes: Buffer): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw invalid('a field of it is not UTF-8, and a file needs a filename');
  }
}

function invalid(why: string): ApiError {
  return new ApiError('invalid_form', `the request body is no form that can be read: ${why}`);
}
