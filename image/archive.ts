// Reads the archives the image is made from: Debian packages (ar, deb(5)) and tar (POSIX ustar and pax, GNU
// long names). Only regular files, directories and links come out; anything else, and any length past the
// end, is refused. Data of trixie's packages is xz: Node has no decoder, so the `xz` program decodes it; its
// output does not vary by version.

import { spawn } from 'node:child_process';
import { gunzipSync } from 'node:zlib';
import { badInput, ImageError } from './errors.ts';

export interface TarEntry {
  /** Without leading `./` or trailing `/`. */
  readonly path: string;
  readonly kind: 'file' | 'directory' | 'link' | 'hardlink';
  readonly mode: number;
  readonly data: Uint8Array;
  /** For links. */
  readonly target: string;
}

/** Entries of a .deb's data archive. */
export async function readDeb(deb: Uint8Array): Promise<readonly TarEntry[]> {
  const members = readAr(deb);
  if (text(members.get('debian-binary') ?? new Uint8Array(0)) !== '2.0\n')
    throw badInput('not a Debian package of format 2.0');
  for (const [name, data] of members) if (name.startsWith('data.tar')) return readTar(await decompress(data));
  throw badInput('Debian package has no data.tar member');
}

/** Entries of a gzipped tar, as npm packs it. */
export function readTgz(tgz: Uint8Array): readonly TarEntry[] {
  return readTar(gunzip(tgz));
}

const AR_MAGIC = '!<arch>\n';
const AR_HEADER_BYTES = 60;

export function readAr(bytes: Uint8Array): ReadonlyMap<string, Uint8Array> {
  if (text(bytes.subarray(0, 8)) !== AR_MAGIC) throw badInput('not an ar archive');
  const members = new Map<string, Uint8Array>();
  for (let at = 8; at < bytes.length;) {
    const header = text(bytes.subarray(at, at + AR_HEADER_BYTES));
    const size = /^\d{1,10} *$/.test(header.slice(48, 58)) ? Number.parseInt(header.slice(48, 58), 10) : -1;
    if (header.length !== AR_HEADER_BYTES || header.slice(58) !== '`\n' || size < 0)
      throw badInput(`ar archive has a malformed member header at ${at}`);
    const start = at + AR_HEADER_BYTES;
    if (start + size > bytes.length)
      throw badInput(`ar member at ${at} is ${size} bytes, past the end of the archive`);
    members.set(header.slice(0, 16).trimEnd().replace(/\/$/, ''), bytes.subarray(start, start + size));
    at = start + size + (size % 2);
  }
  return members;
}

/** Decodes gzip, xz or plain data by its magic number. */
export async function decompress(data: Uint8Array): Promise<Uint8Array> {
  const magic = Buffer.from(data.subarray(0, 6)).toString('hex');
  if (magic.startsWith('1f8b')) return gunzip(data);
  if (magic === 'fd377a585a00') return runDecoder('xz', ['--decompress', '--stdout', '--threads=1'], data);
  if (magic.startsWith('28b52ffd')) return runDecoder('zstd', ['--decompress', '--stdout', '--quiet'], data);
  return data;
}

/** No input unpacks to more: the largest, a kernel package, is about 150 MB. */
const MAX_UNPACKED_BYTES = 1 << 30;

function gunzip(data: Uint8Array): Uint8Array {
  try {
    return gunzipSync(data, { maxOutputLength: MAX_UNPACKED_BYTES });
  } catch (cause) {
    throw badInput('gzip data is damaged', cause);
  }
}

function runDecoder(program: string, args: readonly string[], data: Uint8Array): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'pipe'] });
    const chunks: Buffer[] = [];
    let size = 0;
    let complaint = '';
    child.on('error', (cause) =>
      reject(new ImageError('tool', `the program ${program} is needed and could not be started`, cause)),
    );
    child.stdout.on('data', (chunk: Buffer) => {
      size += chunk.length;
      if (size > MAX_UNPACKED_BYTES) child.kill();
      else chunks.push(chunk);
    });
    child.stderr.on('data', (chunk: Buffer) => (complaint = (complaint + chunk.toString()).slice(0, 500)));
    // The decoder's exit status reports the failure; a broken pipe before that is ignored.
    child.stdin.on('error', () => undefined);
    child.on('close', (status) => {
      if (status === 0) resolve(Buffer.concat(chunks));
      else
        reject(badInput(`${program} could not decode an input: ${complaint.trim() || `status ${status}`}`));
    });
    child.stdin.end(data);
  });
}

const BLOCK = 512;

export function readTar(bytes: Uint8Array): readonly TarEntry[] {
  const entries: TarEntry[] = [];
  let next: { path?: string; target?: string; size?: number } = {};
  for (let at = 0; at + BLOCK <= bytes.length;) {
    const header = bytes.subarray(at, at + BLOCK);
    if (header.every((byte) => byte === 0)) return entries;
    checkSum(header, at);
    const type = String.fromCharCode(header[156] ?? 0);
    const size = next.size ?? octal(header, 124, 12, at);
    const data = bytes.subarray(at + BLOCK, at + BLOCK + size);
    if (data.length !== size)
      throw badInput(`tar member at ${at} is ${size} bytes, past the end of the archive`);
    at += BLOCK + Math.ceil(size / BLOCK) * BLOCK;
    if (type === 'L') next = { ...next, path: cString(data) };
    else if (type === 'K') next = { ...next, target: cString(data) };
    else if (type === 'x') next = { ...next, ...paxRecords(data) };
    else if (type !== 'g') {
      entries.push(entryOf({ header, type, data, at }, next));
      next = {};
    }
  }
  throw badInput('tar archive has no end mark');
}

interface TarMember {
  readonly header: Uint8Array;
  readonly type: string;
  readonly data: Uint8Array;
  /** Where in the archive it ends; for messages. */
  readonly at: number;
}

function entryOf(
  { header, type, data, at }: TarMember,
  long: { readonly path?: string; readonly target?: string },
): TarEntry {
  const prefix =
    text(header.subarray(257, 262)) === 'ustar' && header[262] === 0
      ? cString(header.subarray(345, 500))
      : '';
  const name = long.path ?? (prefix === '' ? '' : `${prefix}/`) + cString(header.subarray(0, 100));
  const kinds: Readonly<Record<string, TarEntry['kind']>> = {
    '0': 'file',
    '\0': 'file',
    '5': 'directory',
    '2': 'link',
    '1': 'hardlink',
  };
  const kind = kinds[type];
  if (kind === undefined)
    throw badInput(
      `tar member ${JSON.stringify(name)} has type ${JSON.stringify(type)}, which does not belong in an input`,
    );
  return {
    path: name
      .replace(/^(?:\.\/)+/, '')
      .replace(/\/+$/, '')
      .replace(/^\.$/, ''),
    kind,
    mode: octal(header, 100, 8, at) & 0o7777,
    data: kind === 'file' ? data : new Uint8Array(0),
    target: long.target ?? cString(header.subarray(157, 257)),
  };
}

function checkSum(header: Uint8Array, at: number): void {
  const sum = header.reduce((total, byte, index) => total + (index >= 148 && index < 156 ? 32 : byte), 0);
  if (octal(header, 148, 8, at) !== sum) throw badInput(`tar header at ${at} has a wrong checksum`);
}

function octal(header: Uint8Array, from: number, length: number, at: number): number {
  const digits = /^([0-7]{1,11})[ \0]*$/.exec(
    Buffer.from(header.subarray(from, from + length)).toString('latin1'),
  )?.[1];
  if (digits === undefined) throw badInput(`tar header at ${at} has a malformed number at offset ${from}`);
  return Number.parseInt(digits, 8);
}

/** pax records `length key=value\n`; only the keys that name a member matter. */
function paxRecords(data: Uint8Array): { path?: string; target?: string; size?: number } {
  const found: { path?: string; target?: string; size?: number } = {};
  const bytes = Buffer.from(data);
  for (let at = 0; at < bytes.length;) {
    const space = bytes.indexOf(32, at);
    const length = Number(bytes.toString('latin1', at, Math.max(at, space)));
    if (!Number.isInteger(length) || length < space - at + 3 || at + length > bytes.length)
      throw badInput('tar archive has a malformed pax record');
    const record = bytes.toString('utf8', space + 1, at + length - 1);
    const value = record.slice(record.indexOf('=') + 1);
    if (record.startsWith('path=')) found.path = value;
    if (record.startsWith('linkpath=')) found.target = value;
    if (record.startsWith('size=') && /^\d{1,12}$/.test(value)) found.size = Number(value);
    at += length;
  }
  return found;
}

function text(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('latin1');
}

function cString(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  return Buffer.from(end < 0 ? bytes : bytes.subarray(0, end)).toString('utf8');
}
