// `assay models …`: asks a running server. Without --policy it speaks only to a server on loopback, because
// the certificate is self-signed and a key must not be sent to a stranger. The admin key is read from
// ASSAY_API_ADMIN_KEY or a file.

import { readFileSync } from 'node:fs';
import { CommandError, parseArguments, optionText, UsageError, type Parsed } from './arguments.ts';
import { checkCommand, deriveCommand } from './derive.ts';
import {
  failure,
  localClient,
  MAX_ANSWER_BYTES,
  parseAnswer,
  shownText,
  type LocalClient,
} from './local-client.ts';

const USAGE = `assay models list                      registered models
assay models ps                        loaded models
assay models show NAME
assay models add NAME FILE [--format safetensors|vision] [--isq TYPE]   as the server sees it, below a model root
                 [--job-record FILE [--job-evidence FILE]]       of the workshop's job that made it
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
      'job-record': { type: 'string' },
      'job-evidence': { type: 'string' },
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
        (answer) => `${shownText(answer, 'status')} ${needName()}`,
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
    job_record: fileOf(values['job-record'])?.toString('base64'),
    job_evidence: fileOf(values['job-evidence'])?.toString('utf8'),
  };
}

function fileOf(value: Parsed['values'][string]): Buffer | undefined {
  const path = optionText(value);
  return path === undefined ? undefined : readFileSync(path);
}

function clientOf(values: Parsed['values']): LocalClient {
  return localClient({
    url: optionText(values['url']) ?? 'https://127.0.0.1:8443',
    keyFile: optionText(values['key-file']),
    keyVariable: 'ASSAY_API_ADMIN_KEY',
  });
}

function show(answer: unknown, json: boolean, format?: (answer: unknown) => string): number {
  process.stdout.write(
    json || format === undefined ? `${JSON.stringify(answer, null, 2)}\n` : `${format(answer)}\n`,
  );
  return 0;
}

function listTable(answer: unknown): string {
  return table(['NAME', 'TYPE', 'SIZE', 'CONTEXT', 'LOADED', 'SHA256'], rows(answer, 'data'), (row) => [
    shownText(row, 'id'),
    shownText(row, 'type'),
    bytes(Number(row['size_bytes'])),
    shownText(row, 'context_length'),
    row['loaded'] === true ? 'yes' : 'no',
    shownText(row, 'sha256').slice(0, 16),
  ]);
}

function statusTable(answer: unknown): string {
  return table(['NAME', 'TYPE', 'UPTIME'], rows(answer, 'models'), (row) => [
    shownText(row, 'name'),
    shownText(row, 'type'),
    `${shownText(row, 'uptime_seconds')} s`,
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

async function pull(client: LocalClient, name: string, force: boolean, json: boolean): Promise<number> {
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
      const event = parseAnswer(line.slice('data: '.length)) as Record<string, unknown>;
      if (json) process.stdout.write(`${line.slice('data: '.length)}\n`);
      const status = shownText(event, 'status');
      if (event['error'] !== undefined) throw failure(event, undefined);
      if (status === 'error')
        throw new CommandError(`${shownText(event, 'message')} (${shownText(event, 'code')})`);
      if (!json)
        bar(
          status,
          Number(event['completed'] ?? event['offset'] ?? 0),
          Number(event['total'] ?? 0),
          Date.now(),
        );
      if (status === 'success' || status === 'already_exists') {
        if (!json)
          process.stdout.write(
            `${status === 'success' ? 'pulled' : 'already here:'} ${shownText(event, 'id')}\n`,
          );
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
