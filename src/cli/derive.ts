// `assay models derive FOLDER`: makes of a folder of safetensors the GGUF file, of a model that sees both
// files, that a server makes of it, and prints the digests; with --check, compares them with those a server
// shows or keeps. Needs no server, and trusts none: the same program on any machine makes the same bytes.
// Exit 0 made or equal, 1 not.

import { readFileSync, existsSync } from 'node:fs';
import { link, rm, stat } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { basename, dirname, join, resolve } from 'node:path';
import { attestedModel, fromHex, toHex } from '@assay/attestation';
import { temporaryPath } from '../base/durable-files.ts';
import { anything, list, object, optional, text } from '../base/shape.ts';
import { readStored } from '../base/stored-json.ts';
import { CONVERTER, deriveFile, measureSources, partsOf, type DerivedFile } from '../models/derive.ts';
import { typeOfIsq } from '../models/isq.ts';
import { openModelFolder, type SourceDigest } from '../models/model-folder.ts';
import { CommandError, UsageError, currentFolder } from './arguments.ts';
import { converters } from './converters.ts';

export interface DeriveArguments {
  readonly folder: string | undefined;
  /** `vision`, of a model that sees; others are folders of text. */
  readonly format: string | undefined;
  readonly isq: string | undefined;
  readonly output: string | undefined;
  readonly json: boolean;
}

/** Resolves with the exit code. */
export async function deriveCommand({
  folder,
  format = 'safetensors',
  isq,
  output,
  json,
}: DeriveArguments): Promise<number> {
  if (folder === undefined) throw new UsageError('assay models derive needs a folder');
  if (!FORMATS.has(format)) throw new UsageError(`--format is none of ${[...FORMATS].join(', ')}`);
  const sees = format === 'vision';
  const path = output === undefined ? undefined : resolve(currentFolder(), output);
  const paths = path === undefined ? [] : [path, ...(sees ? [besides(path)] : [])];
  const there = paths.find((each) => existsSync(each));
  if (there !== undefined) throw new UsageError(`${basename(there)} is there already`);
  const made = await derive(folder, { isq, sees }, path);
  process.stdout.write(json ? `${JSON.stringify(asJson(made))}\n` : asText(made));
  return 0;
}

const FORMATS: ReadonlySet<string> = new Set(['safetensors', 'huggingface', 'vision']);

/** A projector goes where a folder of GGUF files has it. */
function besides(path: string): string {
  return join(dirname(path), `mmproj-${basename(path)}`);
}

export interface CheckArguments {
  /** Absent: the folder that a manifest of a store names. */
  readonly folder: string | undefined;
  /** A manifest or an answer of a server in a file, or a model of a server. */
  readonly check: string;
  /** Asks a server for a model. */
  readonly ask: (model: string) => Promise<unknown>;
  readonly json: boolean;
}

/** Resolves with the exit code: 0 equal, 1 not. */
export async function checkCommand({ folder, check, ask, json }: CheckArguments): Promise<number> {
  const given = existsSync(check) ? fileOf(check) : await ask(check);
  const { derived, source } = readClaim(given, check);
  const from = folder ?? source;
  if (from === undefined) throw new UsageError('assay models derive --check needs the folder as well');
  const differences = await differencesOf(derived, from);
  const equal = differences.length === 0;
  if (json) process.stdout.write(`${JSON.stringify({ equal, sha256: derived.sha256, differences })}\n`);
  else if (equal) process.stdout.write(`equal: ${from} as ${derived.type} has sha256 ${derived.sha256}\n`);
  else process.stdout.write(`not equal: ${differences.join('; ')}\n`);
  return equal ? 0 : 1;
}

const words = text({ max: 4096 });
const digest = text({ max: 64, pattern: /^[0-9a-f]{64}$/, form: '64 lower-case hex digits' });
const claim = object({
  from: list(digest, { min: 1, max: 64 }),
  converter: words,
  type: words,
  sha256: digest,
  projector: optional(object({ type: words, sha256: digest })),
  otherTypes: optional(anything),
  other_types: optional(anything),
});

interface Claim {
  readonly from: readonly string[];
  readonly converter: string;
  readonly type: string;
  readonly sha256: string;
  readonly projector?: { readonly type: string; readonly sha256: string } | undefined;
}

/** `derived` of a manifest in a store and of an answer of GET /v1/models/ID alike. */
function readClaim(
  given: unknown,
  name: string,
): { readonly derived: Claim; readonly source: string | undefined } {
  const fields = new Map(Object.entries(typeof given === 'object' && given !== null ? given : {}));
  if (fields.get('derived') === undefined)
    throw new CommandError(`${name} was not made of a folder: it has no "derived"`);
  const source: unknown = fields.get('source');
  const path: unknown =
    typeof source === 'object' && source !== null ? Reflect.get(source, 'path') : undefined;
  try {
    const derived = readStored(claim, fields.get('derived'));
    return { derived, source: typeof path === 'string' ? path : undefined };
  } catch (error) {
    throw new CommandError(`"derived" of ${name} ${error instanceof Error ? error.message : 'is wrong'}`);
  }
}

function fileOf(path: string): unknown {
  try {
    return JSON.parse(readFileSync(path, 'utf8'));
  } catch {
    throw new CommandError(`${path} is no JSON: it must be a manifest, or what "assay models show" prints`);
  }
}

async function differencesOf(claimed: Claim, folder: string): Promise<readonly string[]> {
  if (claimed.converter !== CONVERTER)
    return [`it was made by ${printable(claimed.converter)}, this is ${CONVERTER}`];
  const wanted = { isq: claimed.type, sees: claimed.projector !== undefined };
  const { sources, made, projector } = await derive(folder, wanted, undefined);
  const differences: string[] = [];
  const known = new Set(claimed.from);
  const here = new Set(sources.map(({ sha256 }) => sha256));
  for (const { name, sha256 } of sources) if (!known.has(sha256)) differences.push(`${name} is another file`);
  const missing = claimed.from.filter((sha256) => !here.has(sha256)).length;
  if (missing > 0) differences.push(`${missing} of its sources are not in the folder`);
  if (differences.length === 0 && sources.map(({ sha256 }) => sha256).join() !== claimed.from.join())
    differences.push('its sources have other names');
  if (made.sha256 !== claimed.sha256)
    differences.push(`the folder makes sha256 ${made.sha256}, expected ${claimed.sha256}`);
  if (projector?.sha256 !== claimed.projector?.sha256)
    differences.push(
      `the folder makes a projector of sha256 ${projector?.sha256}, expected ${claimed.projector?.sha256}`,
    );
  return differences;
}

interface Made {
  readonly sources: readonly SourceDigest[];
  readonly made: DerivedFile;
  readonly projector: DerivedFile | undefined;
}

/** Without an output the files are removed. */
async function derive(
  folder: string,
  { isq, sees }: { readonly isq: string | undefined; readonly sees: boolean },
  output: string | undefined,
): Promise<Made> {
  const type = isq === undefined ? undefined : typeOfIsq(isq, '--isq');
  const from = resolve(currentFolder(), folder);
  if (!(await stat(from).catch(() => undefined))?.isDirectory())
    throw new CommandError(`${folder} is no folder`);
  const place = output === undefined ? currentFolder() : dirname(output);
  const abort = new AbortController();
  const stop = (): void => abort.abort(new CommandError('interrupted'));
  for (const signal of SIGNALS) process.once(signal, stop);
  const opened = await openModelFolder(from, sees ? 'vision' : 'model');
  const files: DerivedFile[] = [];
  try {
    const { digests, check } = await measureSources(opened, abort.signal);
    const temporary = (): string => temporaryPath(place);
    const request = { folder: opened, temporary, signal: abort.signal };
    for (const part of partsOf(sees, type))
      files.push(await deriveFile({ ...request, ...part }, converters(availableParallelism())));
    await check();
    const [made, projector] = files.toReversed();
    if (output !== undefined) {
      if (projector !== undefined) await link(projector.path, besides(output));
      await link(made!.path, output);
    }
    return { sources: digests, made: made!, projector };
  } finally {
    for (const { path } of files) await rm(path, { force: true });
    await opened.close();
    for (const signal of SIGNALS) process.off(signal, stop);
  }
}

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** The digest a client pins, where the server reads the weights from measured memory. */
function modelDigest({ sources, made, projector }: Made): string {
  const blobs = [
    { role: 'weights', sha256: made.sha256, size: made.size },
    ...(projector === undefined
      ? []
      : [{ role: 'projector', sha256: projector.sha256, size: projector.size }]),
    ...sources.map(({ sha256, size }) => ({ role: 'source', sha256, size })),
  ].map((blob) => ({ ...blob, sha256: fromHex(blob.sha256) }));
  return toHex(attestedModel('derived', blobs).sha256);
}

function asJson(all: Made): object {
  const { sources, made, projector } = all;
  const { type, sha256, size, otherTypes } = made;
  const from = sources.map((source) => source.sha256);
  return {
    sha256: modelDigest(all),
    kind: 'manifest',
    derived: {
      from,
      converter: CONVERTER,
      type,
      sha256,
      other_types: otherTypes,
      projector: projector === undefined ? undefined : { type: projector.type, sha256: projector.sha256 },
    },
    size_bytes: size + (projector?.size ?? 0),
    sources,
  };
}

function asText(all: Made): string {
  const { sources, made, projector } = all;
  const lines = [
    ...sources.map(({ name, sha256 }) => `source   ${sha256}  ${printable(name)}`),
    `weights  ${made.sha256}  ${made.type}, ${made.size} bytes, by ${CONVERTER}`,
    ...(projector === undefined
      ? []
      : [`mmproj   ${projector.sha256}  ${projector.type}, ${projector.size} bytes: the projector`]),
    `model    ${modelDigest(all)}  to pin`,
  ];
  if (made.otherTypes > 0)
    lines.push(`${made.otherTypes} tensors have rows that do not fit ${made.type}: they have other types`);
  return `${lines.join('\n')}\n`;
}

function printable(text: string): string {
  return text.slice(0, 200).replaceAll(/[^\x20-\x7e]/g, '?');
}
