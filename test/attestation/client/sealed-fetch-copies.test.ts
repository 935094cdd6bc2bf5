// sealedFetch against a party that sends copies of its sealed bytes and chooses which answer to give, or that
// leads it to another accepted guest (docs/sealed.md §5): of one call at most one request runs per boot.

import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { ApiError } from '../../../src/base/errors.ts';
import {
  type Client,
  type Guest,
  sealedClient,
  startGuest,
} from '../../fixtures/attestation/sealed-guest.ts';
import { codeOf } from '../../fixtures/http/sealed.ts';

const BODY = JSON.stringify({ model: 'demo', messages: [{ role: 'user', content: 'hello' }] });

let guest: Guest;
let client: Client;
/** Milliseconds of the client's clock. */
let time: number;
beforeEach(async () => {
  time = 0;
  guest = await startGuest();
  client = sealedClient(() => guest.url, { monotonic: () => time });
});
afterEach(() => guest.close());

function chat(): Promise<Response> {
  return client.fetch('https://sealed.example/v1/chat/completions', {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: BODY,
  });
}

async function told(response: Response): Promise<unknown[]> {
  return [response.status, codeOf({ body: await response.text() } as never)];
}

/** Runs of the engine. */
function runs(of = guest): number {
  return of.api.engine.requests.length;
}

/** Takes the answer off the wire and keeps it from the client. */
async function swallowed(pass: () => Promise<Response>): Promise<void> {
  await (await pass()).arrayBuffer();
}

describe("a copy's sealed answer, given as the answer [B13]", () => {
  test('sealed_replayed: it ran once, and that is not known', async () => {
    client.between = async (path, _init, pass) => {
      if (path === '/v1/sealed') await swallowed(pass);
      return pass();
    };
    expect(await told(await chat())).toEqual([502, 'sealed_outcome_unknown']);
    expect([runs(), client.sealed().length]).toEqual([1, 1]);
  });

  test.each([
    ['429', new ApiError('engine_overloaded', 'full'), [429, 'engine_overloaded']],
    ['503', new ApiError('engine_crashed', 'ended'), [503, 'engine_crashed']],
  ])('%s: the bytes that had it never run', async (_, error, expected) => {
    const { models } = guest.api;
    const acquire = models.acquire.bind(models);
    models.acquire = () => Promise.reject(error);
    const copies: (() => Promise<Response>)[] = [];
    client.between = (path, _init, pass) => {
      if (path === '/v1/sealed') copies.push(pass);
      return pass();
    };
    const answer = await chat();
    expect(await told(answer)).toEqual(expected);
    models.acquire = acquire;
    // There is room now, and the party in between sends what the client has given up.
    for (const copy of copies) await swallowed(copy);
    expect(runs()).toBe(0);
    // The client, or its SDK, asks again: that is another request.
    expect((await chat()).status).toBe(200);
    for (const copy of copies) await swallowed(copy);
    expect(runs()).toBe(1);
  });

  test('sealed_clock, held until the window was over: not sealed anew', async () => {
    client.between = async (path, _init, pass) => {
      if (path !== '/v1/sealed') return pass();
      await swallowed(pass);
      time += 301_000;
      guest.sealed.pass(301_000);
      return pass();
    };
    expect(await told(await chat())).toEqual([502, 'sealed_outcome_unknown']);
    expect([runs(), client.sealed().length]).toEqual([1, 1]);
  });

  test('sealed_clock of the first try, and its bytes again after those sealed anew', async () => {
    await client.fetch.verify('https://sealed.example');
    guest.sealed.pass(1_000_000);
    const copies: (() => Promise<Response>)[] = [];
    client.between = (path, _init, pass) => {
      if (path === '/v1/sealed') copies.push(pass);
      return pass();
    };
    expect((await chat()).status).toBe(200);
    for (const copy of copies) await swallowed(copy);
    expect([runs(), copies.length]).toEqual([1, 2]);
  });
});

/** Both clocks. */
function pass(seconds: number): void {
  time += seconds * 1000;
  guest.sealed.pass(seconds * 1000);
}

function ohttpKey(): Response {
  const type = 'https://iana.org/assignments/http-problem-types#ohttp-key';
  return Response.json({ type }, { status: 400 });
}

/** Each request is given to `first`, `second` … by its number; later ones pass. */
function scripted(...steps: ((pass: () => Promise<Response>) => Promise<Response>)[]): void {
  let count = 0;
  client.between = (path, init, onward) => {
    const step = path === '/v1/sealed' ? steps[count++] : undefined;
    // A copy is sent whatever the client has given up.
    return step === undefined ? onward() : step(() => onward({ ...init, signal: null }));
  };
}

describe('a party that holds bytes and answers back, up to the edges of the window [B12]', () => {
  test('evidence held for 200 s, so that the guest is ahead: a late copy is known as one', async () => {
    await client.fetch.verify('https://sealed.example');
    guest.sealed.pass(200_000);
    scripted(async (onward) => {
      await swallowed(onward);
      pass(101);
      return onward();
    });
    expect(await told(await chat())).toEqual([502, 'sealed_outcome_unknown']);
    expect([runs(), client.sealed().length]).toEqual([1, 1]);
  });

  test('a forged stale key after 250 s and rotation, and what was sealed anew held for 60 s more', async () => {
    scripted(
      async (onward) => {
        await swallowed(onward);
        pass(250);
        await guest.sealed.rotate();
        return ohttpKey();
      },
      (onward) => {
        pass(60);
        return onward();
      },
    );
    expect(await told(await chat())).toEqual([502, 'sealed_outcome_unknown']);
    expect([runs(), client.sealed().length]).toEqual([1, 2]);
  });

  test.each([300, 301])('a forged stale key after rotation and %i s: at most one runs', async (seconds) => {
    scripted(async (onward) => {
      await swallowed(onward);
      pass(seconds);
      await guest.sealed.rotate();
      return ohttpKey();
    });
    expect(await told(await chat())).toEqual([502, 'sealed_outcome_unknown']);
    expect([runs(), client.sealed().length]).toEqual([1, seconds > 300 ? 1 : 2]);
  });

  test('a client 400 s ahead of its guest: its bytes run later, so nothing is sealed anew for them', async () => {
    await client.fetch.verify('https://sealed.example');
    time += 400_000;
    const copies: (() => Promise<Response>)[] = [];
    scripted((onward) => {
      copies.push(onward);
      return onward();
    });
    expect(await told(await chat())).toEqual([502, 'sealed_outcome_unknown']);
    pass(350);
    for (const copy of copies) await swallowed(copy);
    expect(runs()).toBe(1);
    // The guest's time is known now.
    expect((await chat()).status).toBe(200);
  });

  test('a stale key, then bytes held until their time is over: the clock is no second chance', async () => {
    const first: (() => Promise<Response>)[] = [];
    scripted(
      async (onward) => {
        first.push(onward);
        await guest.sealed.rotate();
        return ohttpKey();
      },
      (onward) => {
        guest.sealed.pass(301_000);
        return onward();
      },
    );
    expect(await told(await chat())).toEqual([502, 'sealed_outcome_unknown']);
    for (const copy of first) await swallowed(copy);
    expect([runs(), client.sealed().length]).toEqual([0, 2]);
  });
});

describe('evidence that is held back', () => {
  test('is as old as the question', async () => {
    client.between = async (path, _init, onward) => {
      const response = await onward();
      if (path === '/v1/attestation') time += 1e9;
      return response;
    };
    await client.fetch.verify('https://sealed.example');
    await chat();
    expect(client.seen.filter(({ path }) => path === '/v1/attestation')).toHaveLength(2);
  });

  test('for good: the wait ends, and the next call asks anew', async () => {
    client = sealedClient(() => guest.url, { evidenceTimeout: 50 });
    client.between = (_path, init) =>
      new Promise((_, reject) => {
        const { signal } = init;
        signal?.addEventListener('abort', () => reject(signal.reason as Error));
      });
    await expect(chat()).rejects.toMatchObject({ code: 'attestation_timeout' });
    client.between = (_path, _init, onward) => onward();
    client = Object.assign(
      client,
      sealedClient(() => guest.url),
    );
    expect((await chat()).status).toBe(200);
  });
});

describe('evidence of another accepted guest [B14]', () => {
  let second: Guest;
  beforeEach(async () => (second = await startGuest({}, 2)));
  afterEach(() => second.close());

  /** The first guest runs it; then a forged stale key leads to the other one. */
  function led(to: Client): void {
    let forged = false;
    to.between = async (path, init, pass) => {
      if (path !== '/v1/sealed' || forged) {
        if (!forged) return pass();
        const query = path === '/v1/attestation' ? queryOf(to) : '';
        return globalThis.fetch(`${second.url}${path}${query}`, init);
      }
      await swallowed(pass);
      forged = true;
      const type = 'https://iana.org/assignments/http-problem-types#ohttp-key';
      return Response.json({ type }, { status: 400 });
    };
  }

  /** Of the evidence request that was sent last. */
  function queryOf(of: Client): string {
    const sent = Buffer.from(of.seen.at(-1)?.bytes ?? []).toString();
    return /\?\S+/.exec(sent)?.[0] ?? '';
  }

  test('says `other`, and each guest runs it at most once', async () => {
    const boots: string[] = [];
    client.fetch.on('rotated', ({ boot }) => boots.push(boot));
    led(client);
    expect((await chat()).status).toBe(200);
    expect(boots).toEqual(['other']);
    expect([runs(), runs(second)]).toEqual([1, 1]);
  });

  test('with `once` it is not sealed anew', async () => {
    client = sealedClient(() => guest.url, { once: true, monotonic: () => time });
    led(client);
    expect(await told(await chat())).toEqual([502, 'sealed_outcome_unknown']);
    expect([runs(), runs(second)]).toEqual([1, 0]);
    // The next call is to the guest whose key is proven now.
    expect((await chat()).status).toBe(200);
    expect([runs(), runs(second)]).toEqual([1, 1]);
  });
});
