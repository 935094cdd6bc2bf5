// `make demo`: the whole path once. Starts the attested server, verifies it, prints the verdict, streams
// chat answers over the verified connection with the OpenAI SDK, shuts everything down. Exit 0 when all of
// it worked. `make demo MODEL=smollm2` does it with published weights, which it fetches where they are
// missing (docs/real-models.md).

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import OpenAI from 'openai';
import { allowSimulated, type AppraisalPolicy } from '@assay/attestation';
import { attestedFetch } from '@assay/attestation/node';
import { installModel } from './real-models/install.ts';

const top = fileURLToPath(new URL('..', import.meta.url));
/** The questions to each model, turn by turn. */
const QUESTIONS: Readonly<Record<string, readonly string[]>> = {
  'demo-chat': ['What is attestation?'],
  smollm2: ['Write one sentence about the sea.', 'Make it shorter.'],
};
const model = process.argv[2] ?? 'demo-chat';
const questions = QUESTIONS[model];
if (questions === undefined)
  throw new TypeError(`no demo of ${model}; there are ${Object.keys(QUESTIONS).join(', ')}`);
const published = model === 'demo-chat' ? [] : ['--model', `${model}=${(await installModel(model)).weights}`];
const folder = await mkdtemp(join(tmpdir(), 'assay-demo-'));
function say(text: string): void {
  return void process.stdout.write(`${text}\n`);
}

say('1. the server starts; its TEE is simulated where there is no hardware');
const server = spawn(
  process.execPath,
  ['dist/src/cli/main.js', 'serve', '--demo', '--listen', '127.0.0.1:0', '--data', folder, ...published],
  {
    cwd: top,
    stdio: ['ignore', 'ignore', 'pipe'],
  },
);
const ended = once(server, 'exit') as Promise<[number | null]>;
try {
  const url = await listening();
  say(`   ${url}\n`);

  say('2. a client looks before it sends: every check, what was found');
  const policyPath = join(folder, 'policy.json');
  const verdict = spawn(
    process.execPath,
    ['attestation/dist/node/cli/main.js', url, '--policy', policyPath, '--allow-simulated'],
    {
      cwd: top,
      stdio: ['ignore', 'inherit', 'inherit'],
    },
  );
  const [code] = (await once(verdict, 'exit')) as [number | null];
  if (code !== 0) throw new Error(`assay-verify ended with ${code}`);

  say('\n3. the OpenAI SDK over the verified connection');
  const policy: AppraisalPolicy = {
    ...(JSON.parse(await readFile(policyPath, 'utf8')) as AppraisalPolicy),
    [allowSimulated]: true,
  };
  const fetch = attestedFetch({ policy });
  const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'any', fetch });
  const messages: OpenAI.ChatCompletionMessageParam[] = [];
  for (const question of questions) {
    say(`   > ${question}`);
    messages.push({ role: 'user', content: question });
    messages.push({ role: 'assistant', content: await answer(client, messages) });
  }
  await fetch.close();
} finally {
  server.kill('SIGTERM');
  const [code] = await ended;
  say(`4. the server has drained and ended (exit ${code})`);
  if (code !== 0) process.exitCode = 1;
  await rm(folder, { recursive: true, force: true });
}

/** Printed as it comes. */
async function answer(
  client: OpenAI,
  messages: readonly OpenAI.ChatCompletionMessageParam[],
): Promise<string> {
  const stream = await client.chat.completions.create({
    model,
    temperature: 0,
    max_tokens: 200,
    messages: [...messages],
    stream: true,
  });
  let text = '';
  process.stdout.write('   ');
  for await (const chunk of stream) {
    const part = chunk.choices[0]?.delta.content ?? '';
    text += part;
    process.stdout.write(part.replaceAll('\n', '\n   '));
  }
  say('\n');
  return text;
}

/**
 * The server's own log line says when it answers; everything else it logs before that is
 * for the person watching.
 */
async function listening(): Promise<string> {
  const lines = createInterface({ input: server.stderr });
  const url = new Promise<string>((resolve) => {
    lines.on('line', (line) => {
      const entry = (line.startsWith('{') ? JSON.parse(line) : { msg: line }) as {
        msg: string;
        url?: string;
        level?: string;
      };
      if (entry.level === 'warn' || entry.level === 'error') say(`   ! ${entry.msg}`);
      if (entry.msg === 'listening' && entry.url !== undefined) resolve(entry.url);
    });
  });
  return Promise.race([
    url,
    ended.then(([code]) => {
      throw new Error(`the server ended with ${code} before it listened`);
    }),
  ]);
}
