// The console's state without a page, against the real server: no verdict, no text (docs/console.md [B24]).

import { afterEach, beforeEach, expect, test } from 'vitest';
import { checksOf, LockedError, Session } from '../../../attestation/console/session.ts';
import { createRollbackMemory } from '../../../attestation/transcript/rollback-memory.ts';
import type { Guest } from '../../fixtures/attestation/sealed-guest.ts';
import { PASTED, startConsoleGuest } from '../../fixtures/console/opened.ts';

let guest: Guest;
let session: Session;
let asked: string[];
let clock = 0;
/** The first evidence of a test. */
let first: string | undefined;
let between: (path: string) => Response | undefined;
beforeEach(async () => {
  guest = await startConsoleGuest();
  asked = [];
  clock = 0;
  first = undefined;
  between = () => undefined;
  session = new Session({
    origin: guest.url,
    fetch: async (input, init) => {
      const { pathname } = new URL(input instanceof Request ? input.url : input);
      asked.push(pathname);
      const answer = between(pathname) ?? (await fetch(input, init));
      first ??= await answer.clone().text();
      return answer;
    },
    now: Date.now,
    monotonic: () => clock,
    memory: createRollbackMemory(),
    onChange: () => undefined,
  });
});
afterEach(() => guest.close());

async function chat(signal = new AbortController().signal): Promise<string> {
  const request = { messages: [{ role: 'user', content: 'hi' }] as const, model: 'demo', apiKey: '', signal };
  let text = '';
  for await (const event of session.chat(request)) if (event.kind === 'text') text += event.text;
  return text;
}

test('nothing is sent before a verdict accepts, and none is kept after it [B24]', async () => {
  await expect(chat()).rejects.toThrow(LockedError);
  await session.judge({ simulated: true });
  expect([session.verdict.kind, session.open]).toEqual(['not judged', false]);
  expect(
    checksOf(session.verdict).filter(({ id, status }) => id.startsWith('P') && status !== 'skip'),
  ).toEqual([]);
  await expect(chat()).rejects.toThrow(LockedError);
  session.usePolicy(PASTED);
  await session.judge({ simulated: false });
  expect([session.verdict.kind, session.open]).toEqual(['refused', false]);
  await expect(chat()).rejects.toThrow(LockedError);
  await session.judge({ simulated: true });
  expect([session.verdict.kind, session.open]).toEqual(['simulated', true]);
  expect(asked.filter((path) => path !== '/v1/attestation')).toEqual([]);
  expect(await chat()).toBe('Hello, world!');
  // Another policy: the verdict was by the one before.
  session.usePolicy(PASTED);
  expect(session.open).toBe(false);
  await expect(chat()).rejects.toThrow(LockedError);
});

test('evidence that came of age is asked for anew, and its refusal locks [B24]', async () => {
  session.usePolicy(PASTED);
  await session.judge({ simulated: true });
  const { outcome } = session.verdict;
  clock = 3_600_001;
  expect(await chat()).toBe('Hello, world!');
  expect(session.verdict.outcome).not.toBe(outcome);
  expect(session.savedCount).toEqual({ evidence: 2, receipts: 1 });
  const { evidence } = session.archive({ texts: false });
  expect(evidence).toHaveLength(2);
});

test.each<[string, () => Response, RegExp]>([
  ['does not come', () => new Response('{}', { status: 503 }), /answered 503/],
  ['was made for another question', () => new Response(first, { status: 200 }), /nonce/],
])('where newer evidence %s, nothing more is sent [B24]', async (_, answer, words) => {
  session.usePolicy(PASTED);
  await session.judge({ simulated: true });
  clock = 3_600_001;
  between = (path) => (path === '/v1/attestation' ? answer() : undefined);
  await expect(chat()).rejects.toThrow(words);
  expect([session.verdict.kind, session.open]).toEqual(['refused', false]);
  await expect(chat()).rejects.toThrow(LockedError);
  expect(asked.filter((path) => path === '/v1/sealed')).toEqual([]);
});

test('a judgement that is overtaken by another changes nothing [B24]', async () => {
  session.usePolicy(PASTED);
  await Promise.all([session.judge({ simulated: true }), session.judge({ simulated: false })]);
  expect([session.verdict.kind, session.open]).toEqual(['refused', false]);
});
