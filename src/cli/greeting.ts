// The lines `assay serve` prints for people, ready to paste: verify, a request through the local proxy, the
// line for the OpenAI SDK. They are made from the effective configuration, so that every command works on
// this machine as printed.

import { createHash } from 'node:crypto';
import { mkdir, writeFile } from 'node:fs/promises';
import { networkInterfaces } from 'node:os';
import { join } from 'node:path';
import type { SimulatedSource } from '../attester/simulated.ts';
import { isFull } from '../base/durable-files.ts';
import { configDigest, type Config } from '../config/read.ts';
import { isLoopback } from '../http/address.ts';
import { addressOf, serverConfig } from '../start/http.ts';
import type { RunningServer } from '../start/start.ts';
import { dataDir } from '../start/tee.ts';
import { version } from './arguments.ts';
import { commandLines, shellWord } from './command-lines.ts';
import type { Paint } from './terminal.ts';

/** The printed lines take the key from this variable of the OpenAI SDKs. No printed line holds a key. */
const KEY_VARIABLE = 'OPENAI_API_KEY';

/** Any client that reaches the address may use the server. */
export function openToAll(config: Config): boolean {
  return !isLoopback(addressOf(config.api.address).host) && !serverConfig(config).auth.required;
}

/** Why it is, in the words of the configuration. */
export function whyOpen(config: Config): string {
  return serverConfig(config).auth.keys.some((key) => !key.admin)
    ? 'api.require_auth is false'
    : 'no key is configured';
}

/** The URL for clients on this machine: a wildcard address cannot be connected to. */
export function usableUrl(url: string): string {
  return url.replace('//0.0.0.0:', '//127.0.0.1:').replace('//[::]:', '//[::1]:');
}

/** For clients elsewhere, when the server listens on all addresses. */
function otherUrls(url: string): readonly string[] {
  if (usableUrl(url) === url) return [];
  const { port } = new URL(url);
  const v6 = url.includes('//[');
  return Object.values(networkInterfaces())
    .flat()
    .filter((address) => address !== undefined && !address.internal)
    .filter((address) => address?.family === 'IPv4' || (v6 && address?.scopeid === 0))
    .map(
      (address) =>
        `https://${address?.family === 'IPv6' ? `[${address.address}]` : address?.address}:${port}`,
    );
}

interface Printed {
  /** Reachable from this machine. */
  readonly url: string;
  /** Quoted for the shell. */
  readonly policy: string;
  readonly policyPath: string;
  readonly simulated: boolean;
  readonly needsKey: boolean;
}

export async function greeting(server: RunningServer, config: Config, paint: Paint): Promise<string> {
  const models = server.models.list();
  const lines = ['', `Assay ${version()} serves ${models.length} models on ${server.url}`];
  for (const model of models)
    lines.push(`  ${model.id}  ${model.type}  sha256 ${model.sha256}  ${model.residency}`);
  const { assay } = commandLines();
  if (models.length === 0)
    lines.push(`  no models yet: --model FILE, or ${assay} models pull NAME --url ${usableUrl(server.url)}`);
  for (const other of otherUrls(server.url)) lines.push(`  from elsewhere: ${other}`);
  lines.push('');
  if (openToAll(config))
    lines.push(
      paint('yellow', `EVERYBODY who reaches this address may use it: ${whyOpen(config)}.`),
      ...(config.api.requireAuth === false ? [] : [`A key for a caller: ${assay} api-key add NAME`]),
      '',
    );
  const simulated = server.tee?.simulated;
  if (server.tee === null) {
    lines.push(
      'NO TEE: /v1/attestation answers 503. Use --tee simulated to try everything without hardware.',
      '',
    );
    return lines.join('\n');
  }
  if (simulated !== undefined)
    lines.push(
      paint(
        'yellow',
        '*** SIMULATED TEE: this proves nothing about the machine. For development and tests only. ***',
      ),
      '',
    );
  const policyPath = simulated === undefined ? 'policy.json' : await writePolicy(server, config, simulated);
  const printed: Printed = {
    url: usableUrl(server.url),
    policy: shellWord(policyPath),
    policyPath,
    simulated: simulated !== undefined,
    needsKey: serverConfig(config).auth.required,
  };
  lines.push(...pastable(printed, models));
  return lines.join('\n');
}

function pastable(printed: Printed, models: ReturnType<RunningServer['models']['list']>): readonly string[] {
  const { url, policy, policyPath, needsKey } = printed;
  const { verify, verifierPackage } = commandLines();
  const install = verifierPackage === undefined ? '' : ` (npm install openai ${verifierPackage})`;
  const flag = printed.simulated ? ' --allow-simulated' : '';
  const proxy = new URL(url).port === '8080' ? '127.0.0.1:8081' : '127.0.0.1:8080';
  const read = `JSON.parse(readFileSync(${JSON.stringify(policyPath)}, 'utf8'))`;
  return [
    ...(printed.simulated
      ? [`The policy of this server is ${policyPath}: clients need a copy, over a way they trust.`]
      : ['policy.json is what you accept, see docs/policy.md; clients need a copy, over a way they trust.']),
    ...(needsKey ? [`Set ${KEY_VARIABLE} to your key first.`] : []),
    'Verify:',
    `  ${verify} ${url} --policy ${policy}${flag}`,
    'In a browser, through the verifying local proxy:',
    `  ${verify} console ${url} --policy ${policy}${flag}`,
    'Any client, the same way:',
    `  ${verify} proxy ${url} --policy ${policy}${flag} --listen ${proxy}`,
    ...request(`http://${proxy}`, models, needsKey),
    `OpenAI SDK, the fetch is what changes${install}:`,
    `  import { readFileSync } from 'node:fs';`,
    `  import OpenAI from 'openai';`,
    ...(printed.simulated ? [`  import { allowSimulated } from '@assay/attestation';`] : []),
    `  import { attestedFetch } from '@assay/attestation/node';`,
    `  const policy = ${printed.simulated ? `{ ...${read}, [allowSimulated]: true }` : read};`,
    `  const apiKey = ${needsKey ? `process.env.${KEY_VARIABLE}` : `'unused'`};`,
    `  const client = new OpenAI({ baseURL: '${url}/v1', apiKey, fetch: attestedFetch({ policy }) });`,
    '',
    '',
  ];
}

const QUESTION = 'What is attestation?';
/** By type of model: its route, and the rest of a request body. */
const REQUESTS = {
  chat: ['/v1/chat/completions', `"messages":[{"role":"user","content":"${QUESTION}"}]`],
  completion: ['/v1/completions', `"prompt":"${QUESTION}","max_tokens":32`],
  embedding: ['/v1/embeddings', `"input":"${QUESTION}"`],
  rerank: ['/v1/rerank', `"query":"${QUESTION}","documents":["a report","a river"]`],
} as const;

/** curl for the first model that chats, or else for the first one. */
function request(
  origin: string,
  models: ReturnType<RunningServer['models']['list']>,
  needsKey: boolean,
): readonly string[] {
  const model = models.find(({ type }) => type === 'chat') ?? models[0];
  const key = needsKey ? [`-H "authorization: Bearer $${KEY_VARIABLE}"`] : [];
  const type = model?.type ?? 'chat';
  if (type === 'transcription')
    return [
      `  curl ${origin}/v1/audio/transcriptions ${[...key, `-F 'model=${model?.id ?? 'MODEL'}'`].join(' ')} \\`,
      '    -F file=@speech.wav',
    ];
  const [route, rest] = REQUESTS[type];
  const headers = ["-H 'content-type: application/json'", ...key];
  return [
    `  curl ${origin}${route} ${headers.join(' ')} \\`,
    `    -d '{"model":"${model?.id ?? 'MODEL'}",${rest}}'`,
  ];
}

/**
 * The reference policy of a simulated server: its measurement, its models, its configuration;
 * the root is for the flag.
 */
async function writePolicy(
  server: RunningServer,
  config: Config,
  simulated: SimulatedSource,
): Promise<string> {
  const folder = dataDir(config);
  const policy = {
    measurements: [await simulated.reference(`assay ${version()}, simulated`)],
    models: Object.fromEntries(server.models.list().map((model) => [model.id, model.sha256])),
    configs: [Buffer.from(configDigest(config)).toString('hex')],
    guestPolicy: 'baseline',
    // For the console and clients that seal; a simulated server loses no protection by it.
    channel: 'sealed',
  };
  const path = join(folder, 'policy.json');
  try {
    await mkdir(folder, { recursive: true });
    await writeFile(path, `${JSON.stringify(policy, null, 2)}\n`);
    const root = createHash('sha256').update(simulated.root).digest('hex');
    await writeFile(join(folder, 'simulated-root.sha256'), `${root}\n`);
  } catch (error) {
    // A full disk does not stop the server; an older policy may remain there.
    if (!isFull(error)) throw error;
  }
  return path;
}
