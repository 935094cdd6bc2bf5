// `assay models …`: asks a running server. Without --policy it speaks only to a server on loopback, because
// the certificate is self-signed and a key must not be sent to a stranger. The admin key is read from
// ASSAY_API_ADMIN_KEY or a file.

import { readFileSync } from 'node:fs';
import { request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import type { IncomingMessage } from 'node:http';
import { CommandError, parseArguments, optionText, UsageError, type Parsed } from './arguments.ts';
import { environment } from '../config/read.ts';
import { isLoopback } from '../http/address.ts';
import { checkCommand, deriveCommand } from './derive.ts';
import { commandLines } from './command-lines.ts';

const USAGE = `assay models list                      registered models
assay models ps                        loaded models
assay models show NAME
assay models add NAME FILE [--format safetensors|vision] [--isq TYPE]   as the server sees it, below a model root
assay models pull NAME [--force]       owner/repo:QUANT or owner/repo/file.gguf, optional @revision
assay models rm NAME
assay models load NAME [--keep-alive D]
assay models unload NAME
assay models derive FOLDER [--format vision] [--isq TYPE] [--output FILE]   no server is asked
assay models derive [FOLDER] --check MODEL|MANIFEST
   --url URL        default https://127.0.0.1:8443
   --key-file FILE  admin key; else ASSAY_API_ADMIN_KEY
   --json           the server's answer as it is
`;

export async function modelsCommand(args: readonly string[]): Promise<number> {
  const { values, positionals } = parseArguments(
    args,
    {
      url: { type: 'string' },
      'key-file': { type: 'string' },
      json: { type: 'boolean' },
      force: { type: 'boolean' },
      'keep-alive': { type: 'string' },
      format: { type: 'string' },
      isq: { type: 'string' },
      output: { type: 'string' },
      check: { type: 'string' },
      help: { type: 'boolean' },
    },
    true,
  );
  if (values['help'] === true) {
    process.stdout.write(USAGE);
    return 0;
  }
  const [action, name, file] = positionals;
  if (action === 'derive') return deriveOf(name, values);
  const client = clientOf(values);
  const needName = (): string => {
    if (name === undefined) throw new UsageError(`assay models ${action} needs a model name`);
    return name;
  };
  const modelPath = (): string => `/v1/models/${encodeURIComponent(needName())}`;
  const json = values['json'] === true;
  switch (action) {
    case 'list':
      return show(await client.call('GET', '/v1/models'), json, listTable);
    case 'ps':
      return show(await client.call('GET', '/v1/models/status'), json, statusTable);
    case 'show':
      return show(await client.call('GET', modelPath()), true);
    case 'add': {
      if (file === undefined) throw new UsageError('usage: assay models add NAME FILE');
      return show(
        await client.call('POST', '/v1/models', registration(needName(), file, values)),
        json,
        () => `registered ${needName()}`,
      );
    }
    case 'rm':
      return show(await client.call('DELETE', modelPath()), json, () => `removed ${needName()}`);
    case 'load': {
      const keepAlive = optionText(values['keep-alive']);
      const body = { name: needName(), keep_alive: keepAlive };
      return show(
        await client.call('POST', '/v1/models/load', body),
        json,
        (answer) => `${text(answer, 'status')} ${needName()}`,
      );
    }
    case 'unload':
      return show(
        await client.call('POST', '/v1/models/unload', { name: needName() }),
        json,
        () => `unloaded ${needName()}`,
      );
    case 'pull':
      return pull(client, needName(), values['force'] === true, json);
    default:
      throw new UsageError(USAGE);
  }
}

function deriveOf(folder: string | undefined, values: Parsed['values']): Promise<number> {
  const named = [values['format'], values['isq'], values['output'], values['check']];
  const [format, isq, output, check] = named.map(optionText);
  const json = values['json'] === true;
  if (check === undefined) return deriveCommand({ folder, format, isq, output, json });
  if (format !== undefined || isq !== undefined || output !== undefined)
    throw new UsageError(
      'assay models derive --check takes format and type from what it checks, and writes no file',
    );
  const ask = (model: string): Promise<unknown> =>
    clientOf(values).call('GET', `/v1/models/${encodeURIComponent(model)}`);
  return checkCommand({ folder, check, ask, json });
}

function registration(name: string, path: string, values: Parsed['values']): object {
  const isq = optionText(values['isq']);
  return {
    name,
    path,
    format: optionText(values['format']),
    default_parameters: isq === undefined ? undefined : { isq },
  };
}

interface Client {
  call(method: string, path: string, body?: unknown): Promise<unknown>;
  stream(method: string, path: string, body: unknown): Promise<IncomingMessage>;
}

function clientOf(values: Parsed['values']): Client {
  const url = new URL(optionText(values['url']) ?? 'https://127.0.0.1:8443');
  if (!isLoopback(url.hostname))
    throw new UsageError(
      `${url.host} is not on this machine; go through ${commandLines().verify} proxy, which proves it first`,
    );
  const keyFile = optionText(values['key-file']);
  const key =
    keyFile === undefined ? environment()['ASSAY_API_ADMIN_KEY'] : readFileSync(keyFile, 'utf8').trim();
  const send = (method: string, path: string, body: unknown): Promise<IncomingMessage> =>
    new Promise((resolve, reject) => {
      const bytes = body === undefined ? undefined : Buffer.from(JSON.stringify(body));
      const request = (url.protocol === 'http:' ? httpRequest : httpsRequest)(
        new URL(path, url),
        {
          method,
          // The peer is this machine, so its certificate is not checked.
          rejectUnauthorized: false,
          headers: {
            ...(bytes === undefined
              ? {}
              : { 'content-type': 'application/json', 'content-length': bytes.length }),
            ...(key === undefined ? {} : { authorization: `Bearer ${key}` }),
          },
        },
        resolve,
      );
      request.on('error', (error: NodeJS.ErrnoException) =>
        reject(new CommandError(`no server answers at ${url.origin} (${error.code ?? error.name})`)),
      );
      request.end(bytes);
    });
  return {
    async call(method, path, body) {
      const response = await send(method, path, body);
      const answer = parse(await readAll(response));
      if ((response.statusCode ?? 500) >= 400) throw failure(answer, response.statusCode);
      return answer;
    },
    async stream(method, path, body) {
      const response = await send(method, path, body);
      if ((response.statusCode ?? 500) >= 400)
        throw failure(parse(await readAll(response)), response.statusCode);
      return response;
    },
  };
}

const MAX_ANSWER_BYTES = 16 * 1024 * 1024;

async function readAll(response: IncomingMessage): Promise<string> {
  const parts: Buffer[] = [];
  let length = 0;
  for await (const part of response as AsyncIterable<Buffer>) {
    length += part.length;
    if (length > MAX_ANSWER_BYTES) throw new Error('the answer is too long');
    parts.push(part);
  }
  return Buffer.concat(parts).toString('utf8');
}

function parse(body: string): unknown {
  try {
    return JSON.parse(body);
  } catch {
    throw new Error('the answer is not JSON');
  }
}

function failure(answer: unknown, status: number | undefined): Error {
  const error = (
    answer as { readonly error?: { readonly message?: unknown; readonly code?: unknown } | undefined } | null
  )?.error;
  const message = typeof error?.message === 'string' ? error.message : 'the server refused';
  return new CommandError(`${message} (${typeof error?.code === 'string' ? error.code : status})`);
}

function show(answer: unknown, json: boolean, format?: (answer: unknown) => string): number {
  process.stdout.write(
    json || format === undefined ? `${JSON.stringify(answer, null, 2)}\n` : `${format(answer)}\n`,
  );
  return 0;
}

function listTable(answer: unknown): string {
  return table(['NAME', 'TYPE', 'SIZE', 'CONTEXT', 'LOADED', 'SHA256'], rows(answer, 'data'), (row) => [
    text(row, 'id'),
    text(row, 'type'),
    bytes(Number(row['size_bytes'])),
    text(row, 'context_length'),
    row['loaded'] === true ? 'yes' : 'no',
    text(row, 'sha256').slice(0, 16),
  ]);
}

function statusTable(answer: unknown): string {
  return table(['NAME', 'TYPE', 'UPTIME'], rows(answer, 'models'), (row) => [
    text(row, 'name'),
    text(row, 'type'),
    `${text(row, 'uptime_seconds')} s`,
  ]);
}

function rows(answer: unknown, key: string): readonly Record<string, unknown>[] {
  const list = (answer as Record<string, unknown> | null)?.[key];
  return Array.isArray(list) ? (list as Record<string, unknown>[]) : [];
}

function table(
  head: readonly string[],
  list: readonly Record<string, unknown>[],
  cells: (row: Record<string, unknown>) => readonly string[],
): string {
  const lines = [head, ...list.map(cells)];
  const widths = head.map((_, column) => Math.max(...lines.map((line) => (line[column] ?? '').length)));
  return lines.map((line) => line.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join('  ').trimEnd()).join('\n'); // prettier-ignore
}

/** Replaces control characters, which texts of a server may hold. */
function text(row: unknown, key: string): string {
  const value = (row as Record<string, unknown> | null)?.[key];
  const text = typeof value === 'string' || typeof value === 'number' ? String(value) : '';
  // eslint-disable-next-line no-control-regex
  return text.replaceAll(/[\u0000-\u001f\u007f-\u009f]/g, '?');
}

export function bytes(count: number): string {
  if (!Number.isFinite(count)) return '?';
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let value = count;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit]}`;
}

async function pull(client: Client, name: string, force: boolean, json: boolean): Promise<number> {
  const response = await client.stream('POST', '/v1/models/pull', { name, force });
  const bar = createBar(process.stderr.isTTY);
  let held = '';
  for await (const part of response.setEncoding('utf8') as AsyncIterable<string>) {
    held += part;
    if (held.length > MAX_ANSWER_BYTES) throw new Error('an event of the server is too long');
    const lines = held.split('\n');
    held = lines.pop() ?? '';
    for (const line of lines) {
      if (!line.startsWith('data: ') || line === 'data: [DONE]') continue;
      const event = parse(line.slice('data: '.length)) as Record<string, unknown>;
      if (json) process.stdout.write(`${line.slice('data: '.length)}\n`);
      const status = text(event, 'status');
      if (event['error'] !== undefined) throw failure(event, undefined);
      if (status === 'error') throw new CommandError(`${text(event, 'message')} (${text(event, 'code')})`);
      if (!json)
        bar(
          status,
          Number(event['completed'] ?? event['offset'] ?? 0),
          Number(event['total'] ?? 0),
          Date.now(),
        );
      if (status === 'success' || status === 'already_exists') {
        if (!json)
          process.stdout.write(`${status === 'success' ? 'pulled' : 'already here:'} ${text(event, 'id')}\n`);
        return 0;
      }
    }
  }
  throw new CommandError('the server ended the pull without a result; the same command again resumes it');
}

/** One line that is rewritten: percent, amount, speed, time left. Silent when stderr is no terminal. */
export function createBar(terminal: boolean, write = (line: string): unknown => process.stderr.write(line)) {
  let first: { readonly at: number; readonly completed: number } | undefined;
  return (status: string, completed: number, total: number, now: number): void => {
    if (!terminal) return;
    if (status !== 'downloading') {
      write(`\r\u001b[K${status}${status === 'success' || status === 'already_exists' ? '\n' : ''}`);
      return;
    }
    first ??= { at: now, completed };
    const seconds = (now - first.at) / 1000;
    const speed = seconds > 0 ? (completed - first.completed) / seconds : 0;
    const percent = total > 0 ? Math.floor((completed / total) * 100) : 0;
    const filled = Math.floor(percent / 5);
    const left = speed > 0 && total > 0 ? `, ${Math.ceil((total - completed) / speed)} s left` : '';
    write(
      `\r\u001b[K[${'#'.repeat(filled)}${'-'.repeat(20 - filled)}] ${percent} % ${bytes(completed)} of ${bytes(total)}, ${bytes(speed)}/s${left}`,
    );
  };
}
