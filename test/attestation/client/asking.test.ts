// Which requests ask for receipts: every route of the server whose answers have one, however its path is
// written (docs/receipts.md [R18] [R20]).

import { expect, test } from 'vitest';
import { asksForReceipt } from '../../../attestation/client/asking.ts';
import { allRoutes } from '../../../src/api/routes.ts';
import { DEFAULT_CONFIG } from '../../../src/http/deps.ts';

const routes = allRoutes({
  config: DEFAULT_CONFIG,
  metrics: { text: () => '' },
  startedAt: 0,
  isDraining: () => false,
});

test('[R18] each route that computes, by each of its names, and no other', () => {
  const asked = routes.flatMap(({ method, path, aliases = [], computes = false }) =>
    [path, ...aliases].map((name) => [name, asksForReceipt({ method, path: name }), computes]),
  );
  expect(asked.filter(([, , computes]) => computes).length).toBeGreaterThan(10);
  for (const [name, asks, computes] of asked) expect([name, asks]).toEqual([name, computes]);
});

test.each([
  '/v1/chat/completions?a=b',
  '/v1/chat/completions?',
  '/v1/chat/completions#a',
  '/v1/%63hat/completions',
  '/%76%31/%63%68%61%74/completion%73?q=%',
  'http://host:1/v1/chat/completions',
  'https://a@host/v1/messages?a',
])('[R20] %s', (path) => {
  expect(asksForReceipt({ method: 'POST', path })).toBe(true);
  expect(asksForReceipt({ method: 'GET', path })).toBe(false);
});

test.each(['/v1/chat%252Fcompletions', '/v1/%zz/completions', '/v2/chat/completions', '/', ''])(
  'no route: %s',
  (path) => {
    expect(asksForReceipt({ method: 'POST', path })).toBe(false);
  },
);
