// Reads single members of a zip archive (APPNOTE.TXT 6.3.10), which is what a wheel is, without ever
// unpacking the rest. Memory is bounded by the directory; a member is a stream that ends as soon as it has
// more bytes than the directory says. Refuses the whole archive for a name that leaves its folder (zip slip),
// a repeated name, a link, an encrypted or otherwise compressed member, several disks, and ZIP64: no archive
// read here is that large.

import { open, type FileHandle } from 'node:fs/promises';
import { pipeline, type Readable } from 'node:stream';
import { createInflateRaw, crc32 } from 'node:zlib';

const END_BYTES = 22;
const MAX_COMMENT_BYTES = 0xffff;
const MAX_DIRECTORY_BYTES = 8 * 1024 * 1024;
const CENTRAL_BYTES = 46;
const LOCAL_BYTES = 30;
const STORED = 0;
const DEFLATED = 8;
const FLAG_ENCRYPTED = 1;

export class ZipError extends Error {
  override readonly name = 'ZipError';
}

interface Member {
  readonly name: string;
  readonly method: number;
  readonly crc: number;
  readonly compressedBytes: number;
  readonly bytes: number;
  /** Of its local header. */
  readonly offset: number;
}

export interface Zip {
  readonly names: readonly string[];
  /** The bytes of a member; throws where they are not those the directory promises. */
  read(name: string): AsyncIterable<Uint8Array>;
  close(): Promise<void>;
}

export async function openZip(path: string): Promise<Zip> {
  const file = await open(path, 'r');
  try {
    const { members, start } = await readDirectory(file);
    return {
      names: [...members.keys()],
      read: (name) => contents(file, members.get(name) ?? fail(`there is no member ${quote(name)}`), start),
      close: () => file.close(),
    };
  } catch (error) {
    await file.close();
    throw error;
  }
}

async function readDirectory(
  file: FileHandle,
): Promise<{ readonly members: ReadonlyMap<string, Member>; readonly start: number }> {
  const { size } = await file.stat();
  const tailBytes = Math.min(size, END_BYTES + MAX_COMMENT_BYTES);
  const tail = await bytesAt(file, size - tailBytes, tailBytes);
  const at = endRecord(tail);
  const [disk, startDisk, here, count] = [4, 6, 8, 10].map((field) => tail.readUInt16LE(at + field));
  const bytes = tail.readUInt32LE(at + 12);
  const start = tail.readUInt32LE(at + 16);
  if (count === 0xffff || bytes === 0xffffffff || start === 0xffffffff) fail('ZIP64 archives are not read');
  if (disk !== 0 || startDisk !== 0 || here !== count) fail('archives of several disks are not read');
  if (bytes > MAX_DIRECTORY_BYTES) fail(`a directory of ${bytes} bytes is over ${MAX_DIRECTORY_BYTES}`);
  if (start + bytes > size - tailBytes + at) fail('the directory ends behind its own end record');
  const directory = await bytesAt(file, start, bytes);
  const members = new Map<string, Member>();
  let next = 0;
  for (let i = 0; i < (count ?? 0); i += 1) {
    const { member, length } = entryAt(directory, next);
    if (members.has(member.name)) fail(`member ${quote(member.name)} is there twice`);
    members.set(member.name, member);
    next += length;
  }
  return { members, start };
}

/** Place of the end record: the last one whose comment reaches exactly to the end of the file. */
function endRecord(tail: Buffer): number {
  for (let at = tail.length - END_BYTES; at >= 0; at -= 1)
    if (tail.readUInt32LE(at) === 0x06054b50 && at + END_BYTES + tail.readUInt16LE(at + 20) === tail.length)
      return at;
  return fail('this is no zip archive: it has no end record');
}

function entryAt(directory: Buffer, at: number): { readonly member: Member; readonly length: number } {
  if (at + CENTRAL_BYTES > directory.length || directory.readUInt32LE(at) !== 0x02014b50)
    fail(`the directory has no entry at ${at}`);
  const [nameBytes, extraBytes, commentBytes] = [28, 30, 32].map((field) =>
    directory.readUInt16LE(at + field),
  ) as [number, number, number];
  const length = CENTRAL_BYTES + nameBytes + extraBytes + commentBytes;
  if (at + length > directory.length) fail(`the directory's entry at ${at} is cut off`);
  const name = safeName(directory.subarray(at + CENTRAL_BYTES, at + CENTRAL_BYTES + nameBytes));
  const unixType = (directory.readUInt32LE(at + 38) >>> 16) & 0o170000;
  if (unixType !== 0 && unixType !== 0o100000 && unixType !== 0o040000)
    fail(`member ${quote(name)} is neither file nor folder`);
  if ((directory.readUInt16LE(at + 8) & FLAG_ENCRYPTED) !== 0) fail(`member ${quote(name)} is encrypted`);
  const method = directory.readUInt16LE(at + 10);
  if (method !== STORED && method !== DEFLATED)
    fail(`member ${quote(name)} is compressed by method ${method}`);
  const member = {
    name,
    method,
    crc: directory.readUInt32LE(at + 16),
    compressedBytes: directory.readUInt32LE(at + 20),
    bytes: directory.readUInt32LE(at + 24),
    offset: directory.readUInt32LE(at + 42),
  };
  if (member.bytes === 0xffffffff || member.compressedBytes === 0xffffffff || member.offset === 0xffffffff)
    fail('ZIP64 archives are not read');
  return { member, length };
}

/** A relative path of plain segments; what a folder's name ends with stays. */
function safeName(raw: Uint8Array): string {
  let name = '';
  try {
    name = new TextDecoder('utf-8', { fatal: true }).decode(raw);
  } catch {
    fail('a member has a name that is not UTF-8');
  }
  const segments = name.replace(/\/$/, '').split('/');
  const plain = segments.every((segment) => segment !== '' && segment !== '.' && segment !== '..');
  // eslint-disable-next-line no-control-regex
  if (!plain || /[\u0000-\u001f\\:]/.test(name))
    fail(`member ${quote(name)} has a name that leaves its folder`);
  return name;
}

async function* contents(file: FileHandle, member: Member, end: number): AsyncGenerator<Uint8Array> {
  const header = await bytesAt(file, member.offset, LOCAL_BYTES);
  if (header.readUInt32LE(0) !== 0x04034b50) fail(`member ${quote(member.name)} has no local header`);
  const nameBytes = header.readUInt16LE(26);
  const name = await bytesAt(file, member.offset + LOCAL_BYTES, nameBytes);
  if (!name.equals(Buffer.from(member.name)))
    fail(`member ${quote(member.name)} has another name in its local header`);
  const start = member.offset + LOCAL_BYTES + nameBytes + header.readUInt16LE(28);
  if (start + member.compressedBytes > end) fail(`member ${quote(member.name)} ends behind the directory`);
  let [length, crc] = [0, 0];
  for await (const chunk of decoded(file, member, start)) {
    length += chunk.length;
    if (length > member.bytes) fail(`member ${quote(member.name)} has more than its ${member.bytes} bytes`);
    crc = crc32(chunk, crc);
    yield chunk;
  }
  if (length !== member.bytes || crc !== member.crc)
    fail(`member ${quote(member.name)} is not the ${member.bytes} bytes the directory promises`);
}

function decoded(file: FileHandle, member: Member, start: number): AsyncIterable<Buffer> {
  if (member.compressedBytes === 0) return emptyStream();
  const raw: Readable = file.createReadStream({
    start,
    end: start + member.compressedBytes - 1,
    autoClose: false,
    highWaterMark: 1 << 20,
  });
  // pipeline destroys both when the reader stops early; the reader sees the error of either.
  return member.method === STORED ? raw : pipeline(raw, createInflateRaw({ chunkSize: 1 << 18 }), () => {});
}

async function* emptyStream(): AsyncGenerator<Buffer> {}

async function bytesAt(file: FileHandle, position: number, length: number): Promise<Buffer> {
  const buffer = Buffer.alloc(length);
  const { bytesRead } = await file.read(buffer, 0, length, position);
  return bytesRead === length ? buffer : fail(`the archive ends before byte ${position + length}`);
}

function quote(name: string): string {
  return JSON.stringify(name.slice(0, 200));
}

function fail(message: string): never {
  throw new ZipError(message);
}
