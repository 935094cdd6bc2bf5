// LangChain.js over attested TLS: its OpenAI client takes the attested fetch, and the rest of a chain is as ever.
// In a project that has @langchain/openai: ASSAY_URL=… ASSAY_POLICY=… npx tsx main.ts 'What is attestation?'

import { readFileSync } from 'node:fs';
import { HumanMessage } from '@langchain/core/messages';
import { ChatOpenAI } from '@langchain/openai';
import { allowSimulated, type AppraisalPolicy } from '@assay/attestation';
import { attestedFetch } from '@assay/attestation/node';

const url = process.env['ASSAY_URL'] ?? 'https://127.0.0.1:8443';
const file = process.env['ASSAY_POLICY'] ?? '.assay/policy.json';
const listed = JSON.parse(readFileSync(file, 'utf8')) as AppraisalPolicy;
// ASSAY_SIMULATED=1 accepts the simulated TEE of `make run`. It proves nothing about hardware: never for real prompts.
const policy: AppraisalPolicy =
  process.env['ASSAY_SIMULATED'] === '1' ? { ...listed, [allowSimulated]: true } : listed;

const fetch = attestedFetch({ policy });
const chat = new ChatOpenAI({
  model: 'demo-chat',
  temperature: 0,
  apiKey: process.env['ASSAY_API_KEY'] ?? 'any',
  maxRetries: 0,
  configuration: { baseURL: `${url}/v1`, fetch },
});

try {
  const parts = await chat.stream([new HumanMessage(process.argv[2] ?? 'What is attestation?')]);
  for await (const part of parts) process.stdout.write(part.text);
  process.stdout.write('\n');
} finally {
  await fetch.close();
}
