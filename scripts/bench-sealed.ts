// `npx tsx scripts/bench-sealed.ts`: what sealed bodies cost (docs/sealed.md [B27]). Sealing and opening a
// request and its answer beside a TLS handshake, both ends of each in this process; then first tokens and
// streams of the whole server, sealed and not, in turn. Prints a table and has no assertions.

import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { setTimeout as pause } from 'node:timers/promises';
import { connect, createServer } from 'node:tls';
import { fileURLToPath } from 'node:url';
import {
  AAD,
  ByteReader,
  generateRecipient,
  nextChunk,
  openRequest,
} from '@assay/attestation/sealed-envelope';
import { sealedFetch } from '../attestation/client/sealed-fetch.ts';
import { sealRequest } from '../attestation/sealed/request.ts';
import { openResponse } from '../attestation/sealed/response.ts';
import type { Engine } from '../src/engine/seam/engine.ts';
import { SealedAnswer } from '../src/sealed/answer.ts';
import { SEALED_POLICY, startGuest } from '../test/fixtures/attestation/sealed-guest.ts';
import { openDemo } from '../test/fixtures/engine/demo-engine.ts';
import { createFakeEngine } from '../test/fixtures/engine/fake-engine.ts';
import { NOW_SECONDS } from '../test/fixtures/http/sealed.ts';
import { inTurns, median, pairedDifference, pairedRatio } from './bench-turns.ts';
import { ownCertificate } from '../test/fixtures/attester/own-certificate.ts';

const CONTENT = Buffer.from(
  JSON.stringify({ model: 'demo', messages: [{ role: 'user', content: 'x'.repeat(500) }] }),
);
const ANSWER = Buffer.alloc(600, 'a');
const WARM = 10;

async function* pieces(all: readonly Uint8Array[]): AsyncGenerator<Uint8Array, void> {
  yield* all;
}

/** A request and its answer from end to end, without a server between. */
async function sealedRound(recipient: Awaited<ReturnType<typeof generateRecipient>>): Promise<void> {
  const fields = [
    ['content-type', 'application/json'],
    ['authorization', `Bearer ${'k'.repeat(40)}`],
    ['assay-sealed-at', String(NOW_SECONDS)],
  ] as const;
  const sealed = await sealRequest(
    recipient.publicKey,
    { method: 'POST', path: '/v1/chat/completions', fields },
    CONTENT,
  );
  const reader = new ByteReader(pieces([sealed.bytes]));
  const opened = await openRequest(reader, () => recipient);
  for (let final = false; !final;) {
    const chunk = await nextChunk(reader);
    ({ final } = chunk);
    await opened.context.open(chunk.sealed, final ? AAD.final : AAD.chunk);
  }
  const sent: Uint8Array[] = [];
  const { answer, nonce } = await SealedAnswer.open(opened, (bytes) => sent.push(bytes) > 0);
  answer.head({ status: 200, fields: [['content-type', 'application/json']] }, ANSWER.length);
  answer.write(ANSWER);
  answer.end();
  const response = await openResponse(sealed.context, pieces([nonce, ...sent]));
  let length = 0;
  for await (const piece of response.content) length += piece.length;
  if (length !== ANSWER.length) throw new Error('the answer did not open');
}

async function primitives(): Promise<void> {
  const own = await ownCertificate();
  const server = createServer({ ...own, minVersion: 'TLSv1.3' }, (socket) => {
    socket.on('error', () => undefined);
    socket.resume();
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const recipient = await generateRecipient();
  const made = await inTurns(600, 50, {
    handshake: async () => {
      const socket = connect({ port, host: '127.0.0.1', servername: 'localhost', ca: own.cert });
      await once(socket, 'secureConnect');
      socket.destroy();
    },
    sealed: () => sealedRound(recipient),
  });
  server.close();
  for (const [name, { wall, cpu }] of Object.entries(made))
    console.log(
      `${name.padEnd(10)} median ${median(wall).toFixed(3)} ms, least ${Math.min(...wall).toFixed(3)} ms, processor ${median(cpu).toFixed(3)} ms`,
    );
  const { handshake, sealed } = made;
  console.log(
    `seal and open, request and answer, of a handshake: ${pairedRatio(sealed.wall, handshake.wall).toFixed(2)} in the median pair, ${pairedRatio(sealed.cpu, handshake.cpu).toFixed(2)} of its processor time`,
  );
}

interface Asked {
  readonly url: string;
  readonly sealed: boolean;
  readonly tokens: number;
}

/** Milliseconds up to the first token, and to the end. */
interface Read {
  readonly first: number;
  readonly whole: number;
}

type Fetch = (input: string, init: RequestInit) => Promise<Response>;

async function read(fetch: Fetch, { url, tokens }: Asked): Promise<Read> {
  const start = performance.now();
  const response = await fetch(`${url}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ model: 'demo', messages: [{ role: 'user', content: 'once upon a time' }], temperature: 0, max_tokens: tokens, stream: true }), // prettier-ignore
  });
  if (response.status !== 200 || response.body === null) throw new Error(await response.text());
  let first: number | undefined;
  let events = 0;
  const decoder = new TextDecoder();
  for await (const piece of response.body as unknown as AsyncIterable<Uint8Array>) {
    const count = decoder.decode(piece, { stream: true }).split('"content":"').length - 1;
    events += count;
    if (count > 0) first ??= performance.now() - start;
  }
  if (events < tokens / 2) throw new Error(`${events} tokens of ${tokens} came`);
  return { first: first ?? NaN, whole: performance.now() - start };
}

/** The client, in a process of its own, as it is elsewhere: it answers each question with its times. */
function beClient(): void {
  const fetches = new Map<string, Fetch>();
  const fetchFor = ({ url, sealed }: Asked): Fetch => {
    if (!sealed) return globalThis.fetch;
    const known = fetches.get(url);
    if (known !== undefined) return known;
    const made = sealedFetch({
      policy: SEALED_POLICY,
      endpoint: url.replace('http:', 'https:'),
      now: () => NOW_SECONDS * 1000,
      monotonic: () => 0,
      fetch: (input, init) =>
        globalThis.fetch(
          (input instanceof Request ? input.url : String(input)).replace('https:', 'http:'),
          init,
        ),
    });
    fetches.set(url, made);
    return made;
  };
  process.on('message', (asked: Asked) => {
    void read(fetchFor(asked), asked).then((times) => process.send?.(times));
  });
}

async function streams(
  client: ChildProcess,
  name: string,
  { engine, tokens, rounds }: { readonly engine: Engine; readonly tokens: number; readonly rounds: number },
): Promise<void> {
  const guest = await startGuest({ realEngines: { demo: engine } });
  const times: Record<'plain' | 'sealed', Read[]> = { plain: [], sealed: [] };
  const ask = async (kind: 'plain' | 'sealed'): Promise<void> => {
    client.send({ url: guest.url, sealed: kind === 'sealed', tokens } satisfies Asked);
    const [answer] = (await once(client, 'message')) as [Read];
    times[kind].push(answer);
  };
  const made = await inTurns(rounds, WARM, { plain: () => ask('plain'), sealed: () => ask('sealed') });
  await guest.close();
  const of = (kind: 'plain' | 'sealed', time: keyof Read): readonly number[] =>
    times[kind].slice(WARM).map((each) => each[time]);
  const [plain, sealed] = [of('plain', 'whole'), of('sealed', 'whole')];
  const [plainFirst, sealedFirst] = [of('plain', 'first'), of('sealed', 'first')];
  const rate = (values: readonly number[]): string => ((tokens / Math.min(...values)) * 1000).toFixed(0);
  console.log(
    `${name}: first token ${pairedDifference(sealedFirst, plainFirst).toFixed(3)} ms later in the median pair (least ${Math.min(...plainFirst).toFixed(3)} and ${Math.min(...sealedFirst).toFixed(3)} ms)\n` +
      `  tokens/s at best ${rate(plain)} plain, ${rate(sealed)} sealed: ${(Math.min(...plain) / Math.min(...sealed)).toFixed(3)}; in the median pair ${pairedRatio(plain, sealed).toFixed(3)}; processor of the server ${pairedDifference(made.sealed.cpu, made.plain.cpu).toFixed(3)} ms more`,
  );
}

async function main(): Promise<void> {
  await primitives();
  const client = fork(fileURLToPath(import.meta.url), ['client'], { execArgv: ['--import', 'tsx'] });
  const small = await openDemo('demo-context', { slots: 1, threads: 1 });
  await streams(client, 'a model writes 400 tokens', { engine: small, tokens: 400, rounds: 100 });
  await small.close();
  // About as fast as a model of some billion parameters on a graphics card.
  const paced = createFakeEngine({
    script: () => Array.from({ length: 100 }, () => ' word'),
    beforeToken: () => pause(5),
  });
  await streams(client, 'an engine writes 100 tokens, one each 5 ms', {
    engine: paced,
    tokens: 100,
    rounds: 20,
  });
  client.disconnect();
}

if (process.argv[2] === 'client') beClient();
else await main();
