// The OpenAI SDK over attested TLS: no byte of a prompt leaves before the server has proved its build and its model.
// ASSAY_URL=https://127.0.0.1:8443 ASSAY_POLICY=.assay/policy.json npx tsx examples/openai-node/main.ts 'What is attestation?'

import { readFileSync } from 'node:fs';
import OpenAI from 'openai';
import { allowSimulated, type AppraisalPolicy } from '@assay/attestation';
import { attestedFetch } from '@assay/attestation/node';

const url = process.env['ASSAY_URL'] ?? 'https://127.0.0.1:8443';
const file = process.env['ASSAY_POLICY'] ?? '.assay/policy.json';
const listed = JSON.parse(readFileSync(file, 'utf8')) as AppraisalPolicy;
// ASSAY_SIMULATED=1 accepts the simulated TEE of `make run`. It proves nothing about hardware: never for real prompts.
const policy: AppraisalPolicy =
  process.env['ASSAY_SIMULATED'] === '1' ? { ...listed, [allowSimulated]: true } : listed;

const fetch = attestedFetch({ policy });
const client = new OpenAI({
  baseURL: `${url}/v1`,
  apiKey: process.env['ASSAY_API_KEY'] ?? 'any',
  fetch,
  maxRetries: 0,
});

try {
  const stream = await client.chat.completions.create({
    model: 'demo-chat',
    temperature: 0,
    stream: true,
    messages: [{ role: 'user', content: process.argv[2] ?? 'What is attestation?' }],
  });
  for await (const part of stream) process.stdout.write(part.choices[0]?.delta.content ?? '');
  process.stdout.write('\n');
  console.error(`answered by build ${fetch.result(url)?.build}`);
} finally {
  await fetch.close();
}
