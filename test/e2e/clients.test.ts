// Clients in other languages against the real server: the official Python SDK and LangChain over the sealed
// transport by one line, and Go's client; the samples of the seeds with that line alone (docs/clients.md).

import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ensureDemoModels } from '../../scripts/demo-model/main.ts';
import { EXPECTED } from '../../scripts/demo-model/text.ts';
import { clientsPython } from '../../scripts/python-clients.ts';
import { type EndingProxy, startEndingProxy } from '../fixtures/attestation/ending-proxy.ts';
import { goTool } from '../../scripts/go-toolchain.ts';
import { pythonSamples } from '../fixtures/e2e/samples.ts';
import { type RealServer, startRealServer } from '../fixtures/e2e/real-server.ts';
import { seedFiles } from '../fixtures/shared.ts';

const top = fileURLToPath(new URL('../..', import.meta.url));
const python = clientsPython();
const go = goTool();
if (python === undefined) console.warn('\n! `make python-clients` was not run: no Python client is tried\n');
if (go === undefined) console.warn('\n! Go 1.26 is not here: its client is not tried\n');

const samples = seedFiles().flatMap((path) => pythonSamples(readFileSync(path, 'utf8')));
const question = EXPECTED[0]?.question ?? '';
const answer = EXPECTED[0]?.answer ?? '';

let server: RealServer;
let between: EndingProxy;
let policy: string;
beforeAll(async () => {
  const { 'demo-chat': chat, 'demo-embed': embed } = await ensureDemoModels(['demo-chat', 'demo-embed']);
  server = await startRealServer({
    args: [
      ...['demo-chat', 'llama3.2:3b', 'my-fine-tuned-model', 'Qwen3-4B', 'my-model'].map(
        (id) => `${id}=${chat.path}`,
      ),
      `my-embedding-model=${embed.path}`,
    ].flatMap((model) => ['--model', model]),
  });
  between = await startEndingProxy(server.url);
  policy = join(server.dataFolder, 'sealed-policy.json');
  await writeFile(policy, JSON.stringify({ ...server.policy, channel: 'sealed' }));
});
afterAll(async () => {
  await between.close();
  expect(await server.stop()).toBe(0);
});

interface Ran {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** The transport, as a program with a policy of its own would make it; this one accepts the simulated TEE. */
const VERIFIER = [process.execPath, join(top, 'attestation/bin/assay-verify.js')];

function run(program: string, args: readonly string[], cwd = top): Promise<Ran> {
  const env = {
    ...process.env,
    PYTHONPATH: join(top, 'clients/python'),
    ASSAY_URL: between.url,
    ASSAY_POLICY: policy,
    ASSAY_VERIFIER: JSON.stringify(VERIFIER),
    QUESTION: question,
    GOPROXY: 'off',
    GOTOOLCHAIN: 'local',
  };
  return new Promise((resolve) => {
    execFile(program, args, { cwd, encoding: 'utf8', env }, (error, stdout, stderr) =>
      resolve({ code: error === null ? 0 : Number(error.code), stdout, stderr }),
    );
  });
}

const PRELUDE = `
import httpx, json, os
from assay_client import SealedTransport, AsyncSealedTransport, Verifier, AssayError
url, policy = os.environ["ASSAY_URL"], os.environ["ASSAY_POLICY"]
verifier = Verifier(policy, command=json.loads(os.environ["ASSAY_VERIFIER"]), arguments=["--allow-simulated"])
`;

describe.skipIf(python === undefined)('Python', () => {
  const script = (code: string): Promise<Ran> => run(python ?? '', ['-c', PRELUDE + code]);

  test('the SDK and LangChain chat over it, streamed and not; who ends TLS reads nothing [B22] [B23]', async () => {
    const seenBefore = between.seen().length;
    const { code, stdout, stderr } = await script(`
import asyncio
from openai import AsyncOpenAI, OpenAI
from langchain_openai import ChatOpenAI
asked = dict(model="demo-chat", temperature=0, messages=[{"role": "user", "content": os.environ["QUESTION"]}])
shared = httpx.Client(transport=SealedTransport(url, verifier=verifier))
client = OpenAI(base_url=f"{url}/v1", api_key="sk-canary", http_client=shared)
out = {"whole": client.chat.completions.create(**asked).choices[0].message.content}
pieces = [c.choices[0].delta.content or "" for c in client.chat.completions.create(**asked, stream=True) if c.choices]
out["streamed"], out["pieces"] = "".join(pieces), len([p for p in pieces if p])
out["models"] = sorted(m.id for m in client.models.list())
async def run():
    http = httpx.AsyncClient(transport=AsyncSealedTransport(url, verifier=verifier))
    client = AsyncOpenAI(base_url=f"{url}/v1", api_key="sk-canary", http_client=http)
    text = ""
    async for c in await client.chat.completions.create(**asked, stream=True):
        text += (c.choices[0].delta.content or "") if c.choices else ""
    return text
out["async"] = asyncio.run(run())
chain = ChatOpenAI(base_url=f"{url}/v1", api_key="sk-canary", model="demo-chat", temperature=0, http_client=shared)
out["langchain"] = chain.invoke(os.environ["QUESTION"]).content
out["langchain_streamed"] = "".join(c.content for c in chain.stream(os.environ["QUESTION"]))
print(json.dumps(out))
`);
    expect([code, stderr]).toEqual([0, '']);
    const out = JSON.parse(stdout) as Record<string, unknown>;
    for (const way of ['whole', 'streamed', 'async', 'langchain', 'langchain_streamed'])
      expect([way, out[way]]).toEqual([way, answer]);
    expect(out['pieces']).toBeGreaterThan(5);
    expect(out['models']).toContain('demo-chat');
    const seen = between.seen();
    expect(seen.length).toBeGreaterThan(seenBefore);
    for (const secret of [question, answer, 'sk-canary', '/v1/chat', 'demo-chat'])
      expect(seen.includes(secret), secret).toBe(false);
  });

  test('its receipts are checked, of streams and of whole answers [R3] [R10]', async () => {
    const { code, stdout, stderr } = await script(`
from openai import OpenAI
kept = []
transport = SealedTransport(url, verifier=verifier, receipts="rolling", on_receipt=kept.append)
client = OpenAI(base_url=f"{url}/v1", api_key="sk-canary", http_client=httpx.Client(transport=transport))
asked = dict(model="demo-chat", temperature=0, messages=[{"role": "user", "content": os.environ["QUESTION"]}])
whole = client.chat.completions.create(**asked).choices[0].message.content
streamed = "".join(c.choices[0].delta.content or "" for c in client.chat.completions.create(**asked, stream=True) if c.choices)
def shown(opened):
    receipt = opened.receipt
    return [receipt.channel[0], receipt.model_id, receipt.end, receipt.events > 5, receipt.receipt_key == transport.evidence.receipt_key]
print(json.dumps({"whole": whole, "streamed": streamed, "receipts": [shown(each) for each in kept]}))
`);
    expect([code, stderr]).toEqual([0, '']);
    expect(JSON.parse(stdout)).toEqual({
      whole: answer,
      streamed: answer,
      receipts: [
        ['sealed', 'demo-chat', 'complete', false, true],
        ['sealed', 'demo-chat', 'complete', true, true],
      ],
    });
  });

  test('a verdict that is refused is an error with the verifier’s code, and nothing is sent', async () => {
    const { code, stdout, stderr } = await script(`
plain = Verifier(policy, command=json.loads(os.environ["ASSAY_VERIFIER"]))
try:
    httpx.Client(transport=SealedTransport(url, verifier=plain)).get(f"{url}/v1/models")
except AssayError as error:
    print(error.code)
`);
    expect([code, stderr]).toEqual([0, '']);
    expect(stdout.trim()).toMatch(/^[a-z][a-z0-9_]+$/);
    expect(stdout.trim()).not.toMatch(/^internal$/);
  });

  test.each(samples.map((sample) => [sample.name, sample.code] as const))(
    'a sample of the seeds and that one line: %s',
    async (_name, code) => {
      const line = 'http_client=httpx.Client(transport=SealedTransport(url, verifier=verifier)), ';
      const {
        code: exit,
        stdout,
        stderr,
      } = await script(code.replace(/(?<== )(Chat)?OpenAI\(/, `$&${line}`));
      expect([exit, stderr]).toEqual([0, '']);
      expect(stdout).toMatch(/\w/);
    },
  );
});

test.skipIf(go === undefined)('Go: a chat, streamed and not [B22] [B23]', async () => {
  const { code, stdout, stderr } = await run(go ?? '', ['run', './internal/chat'], join(top, 'clients/go'));
  expect([code, stderr]).toEqual([0, '']);
  const out = JSON.parse(stdout) as Record<string, unknown>;
  expect(out['whole']).toBe(answer);
  expect(out['streamed']).toBe(answer);
  expect(out['pieces']).toBeGreaterThan(5);
  expect(out['receipts']).toEqual(['sealed complete', 'sealed complete']);
  expect(out['refused']).toMatch(/^[a-z][a-z0-9_]+$/);
});
