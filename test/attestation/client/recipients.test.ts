// sealedFetch to several replicas behind a balancer that may choose, retry and lie (docs/sealed.md §8 [B18]):
// real servers, evidence of each by its own address.

import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { answererOf, receiptOf, type SealedFetchOptions } from '../../../attestation/client/sealed-fetch.ts';
import { allowAnyModel } from '../../../attestation/appraise/policy.ts';
import { requestDigest } from '../../../attestation/sealed/request.ts';
import { toHex } from '../../../attestation/encoding/bytes.ts';
import type { ReceiptIssuer } from '../../../src/receipts/issuer.ts';
import { type Client, type Guest, type GuestOptions, SEALED_POLICY, sealedClient, startGuest } from '../../fixtures/attestation/sealed-guest.ts'; // prettier-ignore
import { codeOf, digestOf } from '../../fixtures/http/sealed.ts';
import { issuer } from '../../fixtures/receipts/issued.ts';
import { refusalOf } from '../../fixtures/refusal.ts';

const BALANCER = 'https://sealed.example';
const BODY = JSON.stringify({ model: 'demo', messages: [{ role: 'user', content: 'hello' }] });
const STREAM = BODY.replace('{', '{"stream":true,');

let guests: Guest[] = [];
let signers: ReceiptIssuer[] = [];
let client: Client;
/** The guest that the balancer sends to next. */
let chosen = 0;

async function startAll(count: number, options: GuestOptions = {}): Promise<void> {
  signers = Array.from({ length: count }, () => issuer());
  guests = await Promise.all(
    signers.map((signer, i) =>
      startGuest({ ...options, receiptKey: signer.publicKey, deps: { receipts: signer } }, i + 1),
    ),
  );
}

/** Replica i has the name `ri.example`; anything else is the balancer's. */
function replicaClient(options: Partial<SealedFetchOptions> = {}): Client {
  const carry: typeof fetch = async (input, init) => {
    const url = new URL(input as string);
    const own = /^r(\d)\.example$/.exec(url.hostname)?.[1];
    const guest = guests[own === undefined ? chosen : Number(own)]!;
    const body = init?.body as Uint8Array | undefined;
    SENT.push({ host: url.hostname, path: url.pathname, headers: init?.headers ?? {}, body });
    const pass = (): Promise<Response> => globalThis.fetch(`${guest.url}${url.pathname}${url.search}`, init);
    return url.pathname === '/v1/sealed' ? between(pass) : pass();
  };
  return sealedClient(() => '', {
    replicas: guests.map((_, i) => `https://r${i}.example`),
    fetch: carry,
    ...options,
  });
}

const SENT: { readonly host: string; readonly path: string; readonly headers: unknown; readonly body: Uint8Array | undefined }[] = []; // prettier-ignore
let between: (pass: () => Promise<Response>) => Promise<Response> | Response;

beforeEach(async () => {
  chosen = 0;
  SENT.length = 0;
  between = (pass) => pass();
  await startAll(3);
  client = replicaClient();
});
afterEach(async () => {
  await Promise.all(guests.map((guest) => guest.close()));
});

function chat(body = BODY, by = client): Promise<Response> {
  return by.fetch(`${BALANCER}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body,
  });
}

async function code(response: Response): Promise<unknown> {
  return codeOf({ body: await response.text() } as never);
}

function runs(): readonly number[] {
  return guests.map(({ api }) => api.models.acquired.length);
}

function sealedSent(): readonly string[] {
  return SENT.filter(({ path }) => path === '/v1/sealed').map(({ body }) => toHex(body!));
}

describe('[B18] whoever the balancer chooses', () => {
  test('answers, and the receipt that was not asked for by the caller shows which one it was', async () => {
    for (chosen = 0; chosen < 3; chosen++) {
      const response = await chat();
      expect(response.status).toBe(200);
      await response.text();
      expect(receiptOf(response)?.state).toBe('verified');
      expect(answererOf(response)).toMatchObject({
        kind: 'one',
        guests: [{ origin: `https://r${chosen}.example` }],
      });
    }
    expect(runs()).toEqual([1, 1, 1]);
  });

  test('of a stream, only its end shows it', async () => {
    await Promise.all(guests.map((guest) => guest.close()));
    let goOn: () => void = () => undefined;
    const gate = new Promise<void>((resolve) => (goOn = resolve));
    await startAll(3, { engine: { beforeToken: (position) => (position > 0 ? gate : Promise.resolve()) } });
    client = replicaClient();
    chosen = 1;
    const response = await chat(STREAM);
    expect(answererOf(response)).toMatchObject({ kind: 'set', guests: [{}, {}, {}] });
    goOn();
    expect(await response.text()).toContain('[DONE]');
    expect(answererOf(response)).toMatchObject({ kind: 'one', guests: [{ origin: 'https://r1.example' }] });
  });

  test('the answer of a route without receipts is one of the set', async () => {
    const response = await client.fetch(`${BALANCER}/v1/models`);
    expect(response.status).toBe(200);
    expect(answererOf(response)).toMatchObject({ kind: 'set', guests: [{}, {}, {}] });
  });

  test('one of them alone may be asked, and each is verified by its own address', async () => {
    const results = await Promise.all([0, 1].map((i) => client.fetch.verify(`https://r${i}.example`)));
    expect(new Set(results.map(({ receiptKey }) => receiptKey))).toEqual(
      new Set(signers.slice(0, 2).map(({ publicKey }) => toHex(publicKey))),
    );
    expect(client.fetch.result('https://r1.example')).toBe(results[1]);
    expect(SENT.map(({ host }) => host).toSorted()).toEqual(['r0.example', 'r1.example']);
  });

  test('a sink gets the evidence of the replica that signed', async () => {
    const kept: unknown[] = [];
    client = replicaClient({
      receipts: { sink: ({ evidence }) => void kept.push(evidence.result.receiptKey) },
    });
    chosen = 2;
    await (await chat()).text();
    expect(kept).toEqual([toHex(signers[2]!.publicKey)]);
  });

  test('a retry may go to another: the same bytes', async () => {
    between = async (pass) => {
      between = (again) => again();
      chosen = 1;
      await (await pass()).body?.cancel();
      return new Response(null, { status: 503 });
    };
    expect((await chat()).status).toBe(200);
    expect(new Set(sealedSent()).size).toBe(1);
  });
});

describe('[B18] only listed replicas', () => {
  test('the balancer sends to one that is not listed: it does not open, and the key is not stale', async () => {
    client = replicaClient({ replicas: ['https://r0.example', 'https://r1.example'] });
    chosen = 2;
    expect(await code(await chat())).toBe('sealed_refused');
    expect(runs()).toEqual([0, 0, 0]);
  });

  test('one that cannot be reached is left out; with none there is no request', async () => {
    client = replicaClient({ replicas: ['https://r0.example', 'https://r9.example'] });
    expect((await chat()).status).toBe(200);
    const body = SENT.at(-1)!.body!;
    expect(body[3]).toBe(1);
    client = replicaClient({ replicas: ['https://r8.example', 'https://r9.example'] });
    expect((await refusalOf(() => chat()))?.code).toBe('sealed_replicas');
  });

  test('one whose evidence is refused ends the call before a byte was sent', async () => {
    await Promise.all(guests.map((guest) => guest.close()));
    await startAll(2);
    client = replicaClient({ policy: { ...SEALED_POLICY, models: { demo: digestOf('other') } } });
    const before = sealedSent().length;
    expect((await refusalOf(() => chat()))?.kind).toBe('refused');
    expect(sealedSent()).toHaveLength(before);
  });

  test('replicas that show two digests of the model that is named are not sealed to', async () => {
    await guests.pop()!.close();
    guests.push(await startGuest({ attests: 'other', receiptKey: signers[2]!.publicKey }, 3));
    // The one policy that accepts both digests of a name.
    const policy = { ...SEALED_POLICY, models: undefined, [allowAnyModel]: true as const };
    client = replicaClient({ policy });
    const refused = await refusalOf(() => chat());
    expect([refused?.kind, refused?.code]).toEqual(['refused', 'sealed_replicas']);
    expect(refused?.message).toContain('do not all show one digest');
    expect(sealedSent()).toEqual([]);
    const agree = replicaClient({ policy, replicas: ['https://r0.example', 'https://r1.example'] });
    expect((await chat(BODY, agree)).status).toBe(200);
  });

  test('two names of one guest are one replica', async () => {
    guests = [guests[0]!, guests[0]!, guests[1]!, guests[2]!];
    client = replicaClient();
    expect((await chat()).status).toBe(200);
    expect(SENT.at(-1)!.body![3]).toBe(3);
    guests = guests.slice(1);
  });

  test('none, and nine, are no list', async () => {
    for (const count of [0, 9]) {
      const replicas = Array.from({ length: count }, (_, i) => `https://r${i}.example`);
      const refused = await refusalOf(() => chat(BODY, replicaClient({ replicas })));
      expect(refused?.code, String(count)).toBe('sealed_replicas');
    }
  });

  test('the list of the request inside is of its own one-time key', async () => {
    await (await chat()).text();
    const body = SENT.at(-1)!.body!;
    const enc = body.subarray(4 + 3 * 96 + 7, 4 + 3 * 96 + 7 + 32);
    for (const { sealed } of guests) {
      const entry = toHex(requestDigest(sealed.keys.current(), enc).subarray(0, 16));
      expect(sealed.entries.has(entry)).toBe(false);
    }
  });
});

describe('[B18] an answer that is not of a listed replica is none', () => {
  test('a receipt by another key than claim 6 of any', async () => {
    await Promise.all(guests.map((guest) => guest.close()));
    await startAll(2);
    // A guest that signs with a key its evidence does not show.
    const foreign = await startGuest({ receiptKey: signers[1]!.publicKey, deps: { receipts: issuer() } });
    guests.push(foreign);
    client = replicaClient();
    chosen = 2;
    expect(await code(await chat())).toBe('receipt_key');
    const stream = await chat(STREAM);
    const end = await stream.text().catch((error: unknown) => (error as { code: string }).code);
    expect(end).toMatch(/receipt_key/);
  });

  test('one replica gives the receipt of another: it is of another request', async () => {
    await (await chat()).text();
    // Replica 0 answers with the key of replica 1: the receipt then names replica 1 as the answerer.
    await Promise.all(guests.map((guest) => guest.close()));
    const signer = issuer();
    guests = await Promise.all([
      startGuest({ receiptKey: issuer().publicKey, deps: { receipts: signer } }, 1),
      startGuest({ receiptKey: signer.publicKey, deps: { receipts: signer } }, 2),
    ]);
    client = replicaClient();
    chosen = 0;
    const response = await chat();
    await response.text();
    expect(answererOf(response)).toMatchObject({ guests: [{ origin: 'https://r1.example' }] });
  });

  test('no receipt at all', async () => {
    await Promise.all(guests.map((guest) => guest.close()));
    guests = await Promise.all([0, 1].map((i) => startGuest({ deps: { receipts: null } }, i + 1)));
    client = replicaClient();
    expect(await code(await chat())).toBe('receipt_missing');
  });

  test('the answer to another request', async () => {
    const answers: Response[] = [];
    between = async (pass) => {
      const response = await pass();
      answers.push(response.clone());
      return response;
    };
    await (await chat()).text();
    between = () => answers[0]!;
    expect(await code(await chat())).toBe('sealed_altered');
  });
});

describe('[B18] keys and clocks of the replicas', () => {
  test('all rotated twice: sealed anew once, to all of them', async () => {
    await (await chat()).text();
    for (const { sealed } of guests) {
      await sealed.rotate();
      await sealed.rotate();
    }
    const rotated: string[] = [];
    client.fetch.on('rotated', ({ origin, boot }) => rotated.push(`${origin} ${boot}`));
    expect((await chat()).status).toBe(200);
    expect(rotated.toSorted()).toEqual([0, 1, 2].map((i) => `https://r${i}.example same`));
    expect(SENT.at(-1)!.body![3]).toBe(3);
    expect(runs()).toEqual([2, 0, 0]);
  });

  test('a forged 400 after execution: the replica that ran it does not run it again', async () => {
    between = async (pass) => {
      between = (again) => again();
      await (await pass()).body?.cancel();
      for (const { sealed } of guests) await sealed.rotate();
      const body = JSON.stringify({ type: 'https://iana.org/assignments/http-problem-types#ohttp-key' });
      return new Response(body, { status: 400 });
    };
    expect(await code(await chat())).toBe('sealed_outcome_unknown');
    expect(runs()).toEqual([1, 0, 0]);
  });

  test('another boot, with `once`, is not sealed to anew', async () => {
    client = replicaClient({ once: true });
    await (await chat()).text();
    const [first] = guests.splice(0, 1);
    await first!.close();
    const signer = issuer();
    guests.unshift(await startGuest({ receiptKey: signer.publicKey, deps: { receipts: signer } }));
    expect(await code(await chat())).toBe('sealed_outcome_unknown');
    expect(runs()).toEqual([0, 0, 0]);
  });

  test('a clock of one that moved is read from fresh evidence of each', async () => {
    await (await chat()).text();
    guests[1]!.sealed.pass(400_000);
    chosen = 1;
    const response = await chat();
    expect(response.status).toBe(200);
    await response.text();
    expect(answererOf(response)).toMatchObject({ guests: [{ origin: 'https://r1.example' }] });
    chosen = 0;
    expect((await chat()).status).toBe(200);
  });
});

describe('[B18] `assay-route`', () => {
  const route = (): unknown => (SENT.at(-1)!.headers as Record<string, string>)['assay-route'];

  test('is not sent unless asked for', async () => {
    await (await chat()).text();
    expect(route()).toBeUndefined();
  });

  test('shows model, size and equal beginnings, within one client only', async () => {
    const hints: unknown[] = [];
    for (const each of [replicaClient({ routeHints: true }), replicaClient({ routeHints: true })]) {
      for (const body of [BODY, BODY, BODY.replace('hello', 'other'), `${BODY}${' '.repeat(5000)}`]) {
        await (await chat(body, each)).text();
        hints.push(route());
      }
    }
    expect(hints[0]).toMatch(/^model="demo", size=11, prefix=:[A-Za-z0-9+/]{11}=:$/);
    expect(hints[1]).toBe(hints[0]);
    expect(new Set(hints).size).toBe(6);
    expect(hints[3]).toMatch(/size=13/);
  });
});
