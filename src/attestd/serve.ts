// The root part of the appliance and its client. Only root may use configfs-tsm, and the API server does not run as root: a small
// process without capabilities owns the TSM and answers, on a unix socket, the file operations tsm.ts needs and no others.
// One request per connection: a JSON line, answered by a JSON line. Refuses every name except our own report folders and the
// attributes of the kernel's interface (Linux Documentation/ABI/testing/configfs-tsm), and every size the kernel would refuse.

import { chmod, chown, unlink } from 'node:fs/promises';
import { createConnection, createServer, type Server, type Socket } from 'node:net';
import type { TsmFs } from './tsm.ts';

export interface AttestdOptions {
  /** Unix socket to listen on. */
  readonly socket: string;
  /** Group that may connect; the socket is `root:gid`, mode 0660. */
  readonly gid: number;
  /** `/sys/kernel/config/tsm/report`. */
  readonly folder: string;
  readonly fs: TsmFs;
}

const FOLDER = /^assay-(?:probe-)?[0-9a-f]{16}$/;
const READABLE = new Set(['provider', 'generation', 'outblob', 'auxblob']);
const MAX_BLOB_BYTES = 32 * 1024;
const MAX_REQUEST_BYTES = 1024;
/** A JSON line around a blob in base64. */
const MAX_ANSWER_BYTES = 64 * 1024;
const MAX_CONNECTIONS = 64;
/** A connection without a request within this time is dropped. */
const IDLE_MS = 5000;

/** Listens until closed. Throws when the socket cannot be made. */
export async function serveAttestd(options: AttestdOptions): Promise<Server> {
  const server = createServer({ allowHalfOpen: true }, (socket) => answer(socket, options));
  server.maxConnections = MAX_CONNECTIONS;
  await unlink(options.socket).catch(() => undefined);
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(options.socket, resolve);
  });
  await chown(options.socket, process.getuid?.() ?? 0, options.gid);
  await chmod(options.socket, 0o660);
  return server;
}

/** The operations of tsm.ts through the socket, relative to `folder` as the caller knows it. Errors carry the kernel's `code`. */
export function attestdFs(socket: string, folder: string): TsmFs {
  const run = (op: string, path: string, data?: string): Promise<Uint8Array> =>
    ask(socket, { op, path: path.startsWith(`${folder}/`) ? path.slice(folder.length + 1) : path, data });
  return {
    mkdir: async (path) => void (await run('mkdir', path)),
    rmdir: async (path) => void (await run('rmdir', path)),
    read: async (path, maxBytes) => {
      const bytes = await run('read', path);
      if (bytes.length > maxBytes) throw fault('EFBIG');
      return bytes;
    },
    write: async (path, bytes) => void (await run('write', path, Buffer.from(bytes).toString('base64'))),
  };
}

interface Request {
  readonly op: string;
  readonly path: string;
  readonly data?: string | undefined;
}

function answer(socket: Socket, options: AttestdOptions): void {
  const fail = (): void => void socket.destroy();
  socket.on('error', fail);
  socket.setTimeout(IDLE_MS, fail);
  void handle(socket, options).catch(fail);
}

async function handle(socket: Socket, options: AttestdOptions): Promise<void> {
  const line = await readLine(socket, MAX_REQUEST_BYTES);
  socket.setTimeout(0);
  const reply = await perform(parseRequest(line), options).then(
    (bytes) => ({ data: Buffer.from(bytes).toString('base64') }),
    (error: unknown) => ({ code: codeOf(error) }),
  );
  socket.end(`${JSON.stringify(reply)}\n`);
}

async function perform(request: Request | undefined, { folder, fs }: AttestdOptions): Promise<Uint8Array> {
  if (request === undefined) throw fault('EINVAL');
  const [report, attribute, ...more] = request.path.split('/');
  if (report === undefined || !FOLDER.test(report) || more.length > 0) throw fault('EPERM');
  const path = `${folder}/${report}`;
  if (attribute === undefined) {
    if (request.op === 'mkdir') await fs.mkdir(path);
    else if (request.op === 'rmdir') await fs.rmdir(path);
    else throw fault('EPERM');
    return new Uint8Array(0);
  }
  if (request.op === 'read' && READABLE.has(attribute))
    return fs.read(`${path}/${attribute}`, MAX_BLOB_BYTES);
  if (request.op !== 'write') throw fault('EPERM');
  const data = Buffer.from(request.data ?? '', 'base64');
  const level = attribute === 'privlevel' && /^[0-3]\n$/.test(data.toString('latin1'));
  if (!level && !(attribute === 'inblob' && data.length === 64)) throw fault('EPERM');
  await fs.write(`${path}/${attribute}`, data);
  return new Uint8Array(0);
}

function parseRequest(line: string): Request | undefined {
  try {
    const value = JSON.parse(line) as Partial<Request> | null;
    if (typeof value?.op !== 'string' || typeof value.path !== 'string') return undefined;
    if (value.data !== undefined && typeof value.data !== 'string') return undefined;
    return { op: value.op, path: value.path, data: value.data };
  } catch {
    return undefined;
  }
}

async function ask(path: string, request: Request): Promise<Uint8Array> {
  const socket = createConnection(path);
  try {
    const line = readLine(socket, MAX_ANSWER_BYTES);
    socket.on('error', () => undefined);
    socket.end(`${JSON.stringify(request)}\n`);
    const answer = JSON.parse(await line) as { readonly data?: unknown; readonly code?: unknown };
    if (typeof answer.data === 'string') return new Uint8Array(Buffer.from(answer.data, 'base64'));
    throw fault(typeof answer.code === 'string' ? answer.code : 'EIO');
  } finally {
    socket.destroy();
  }
}

/** The first line; rejects on an error, an early end, or more than `max` bytes. */
function readLine(socket: Socket, max: number): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = '';
    socket.setEncoding('latin1');
    socket.on('data', (chunk: string) => {
      text += chunk;
      const end = text.indexOf('\n');
      if (end >= 0) resolve(text.slice(0, end));
      else if (text.length > max) reject(fault('EFBIG'));
    });
    socket.on('error', reject);
    socket.on('end', () => reject(fault('EPIPE')));
    socket.on('close', () => reject(fault('EPIPE')));
  });
}

/** An error as the file system would give it. */
function fault(code: string): NodeJS.ErrnoException {
  return Object.assign(new Error(`attestd: ${code}`), { code });
}

function codeOf(error: unknown): string {
  const code = (error as NodeJS.ErrnoException).code ?? '';
  return /^E[A-Z0-9]{1,14}$/.test(code) ? code : 'EIO';
}
