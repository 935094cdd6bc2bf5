// On a terminal: the verdict first, failures and a summary, no line wider than it; colours
// only where they are wanted.

import * as fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test, onTestFinished } from 'vitest';
import { cut, wrap } from '../../../../attestation/node/cli/terminal.ts';
import {
  type AttestedServer,
  startAttestedServer,
  MEASUREMENT,
  MODEL_SHA256,
} from '../../../fixtures/attestation/attested-server.ts';
import { cli } from '../../../fixtures/attestation/cli.ts';
import type { JsonObject } from '../../../../attestation/encoding/json.ts';
import { attestedModel } from '../../../../attestation/protocol/model.ts';

const COLOURS = /\u001b\[\d+m/g; // eslint-disable-line no-control-regex

describe('a verdict on a terminal', () => {
  let good: AttestedServer;
  let bad: AttestedServer;
  beforeAll(async () => {
    good = await startAttestedServer();
    bad = await startAttestedServer({ report: { measurement: new Uint8Array(48).fill(7) } });
  });
  afterAll(async () => {
    await good.close();
    await bad.close();
  });
  const on = (columns: number, colour = false) => ({ terminal: { stdout: { columns, colour } } });
  const args = (server: AttestedServer): string[] => [
    server.origin,
    '--policy',
    'p.json',
    '--allow-simulated',
  ];

  test('accepted: the verdict first, no table, how to get it', async () => {
    const { code, out } = await cli(args(good), on(100));
    const lines = out.trimEnd().split('\n');
    expect(code).toBe(0);
    expect(lines[0]).toBe(`ACCEPTED  ${good.origin}`);
    expect(lines.at(-1)).toMatch(/^\d+ checks: \d+ passed, 0 failed, .*--table/);
    expect(lines.length).toBeLessThan(20);
  });

  test('refused: the verdict first, then each failure', async () => {
    const { code, out } = await cli(args(bad), on(100));
    expect(code).toBe(10);
    expect(out.startsWith(`REFUSED  ${bad.origin}\n`)).toBe(true);
    for (const id of ['S27', 'P4']) expect(out).toContain(`FAIL ${id} `);
    expect(out).not.toContain('D13');
  });

  test('--table has every check, and is the default elsewhere', async () => {
    const table = (await cli([...args(good), '--table'], on(100))).out;
    expect(table.startsWith('ACCEPTED')).toBe(true);
    const plain = await cli(args(good));
    expect(await cli([...args(good), '--table'])).toMatchObject({ code: 0 });
    for (const [id] of plain.out.matchAll(/^[A-Z]\d+(?= )/gm))
      expect(table).toMatch(new RegExp(`^${id} `, 'm'));
  });

  test.each([20, 40, 80, 132])('no line is wider than %i columns', async (columns) => {
    for (const server of [good, bad])
      for (const more of [[], ['--table']]) {
        const { out } = await cli([...args(server), ...more], on(columns, true));
        for (const line of out.replaceAll(COLOURS, '').split('\n'))
          expect(line.length).toBeLessThanOrEqual(columns);
      }
  });

  test('colours where the terminal has them, and never elsewhere', async () => {
    expect((await cli(args(good), on(100, true))).out).toMatch(COLOURS);
    expect((await cli(args(good), on(100))).out).not.toMatch(COLOURS);
    expect((await cli(args(good))).out).not.toMatch(COLOURS);
    expect((await cli([...args(good), '--json'], on(100, true))).out).not.toMatch(COLOURS);
  });

  test('a server cannot draw on it', async () => {
    const rude = await startAttestedServer({ document: (d) => ({ ...d, nonce: '\u001b[2J\u202e' }) });
    const { out } = await cli(args(rude), on(100));
    // eslint-disable-next-line no-control-regex
    expect(out).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u202e]/);
    await rude.close();
  });
});

describe('lines', () => {
  test('property: wrapped lines fit, and hold every word', () => {
    fc.assert(
      fc.property(
        fc.array(fc.string({ minLength: 1 })),
        fc.integer({ min: 8, max: 60 }),
        (words, columns) => {
          const line = words.join(' ');
          const lines = wrap(line, columns);
          for (const part of lines) expect(part.length).toBeLessThanOrEqual(columns);
          const squeezed = (text: string): string => text.replaceAll(/\s+/g, '');
          expect(squeezed(lines.join(''))).toBe(squeezed(line));
        },
      ),
    );
  });

  test('cut lines show that they are', () => {
    expect([cut('abcdef', 6), cut('abcdef', 5)]).toEqual(['abcdef', 'abcd…']);
  });
});

describe('a terminal', () => {
  const id = 'demo\u001b[2J\u009b1A\u202ex';
  const model = attestedModel(id, [{ role: 'weights', sha256: new Uint8Array(32).fill(7), size: 1 }]);

  test.each([
    ['accepted', 0, ['--any-model'], undefined],
    ['refused', 10, ['--model', `other=${MODEL_SHA256}`], undefined],
    ['malformed', 30, ['--any-model'], (document: JsonObject) => ({ ...document, [id]: 1 })],
  ])('gets no control characters of a server: %s', async (_, exit, flags, document) => {
    const server = await startAttestedServer({
      models: [model],
      ...(document === undefined ? {} : { document }),
    });
    onTestFinished(() => server.close());
    const common = ['--measurement', MEASUREMENT, '--allow-simulated', ...flags];
    for (const argv of [
      [server.origin, ...common, '--explain'],
      [server.origin, ...common],
      [server.origin, ...common, '--json'],
      ['proxy', server.origin, '--listen', '127.0.0.1:0', ...common],
    ]) {
      const { code, out, err } = await cli(argv);
      expect(code).toBe(exit);
      // eslint-disable-next-line no-control-regex
      expect((out + err).match(/[^\n\x20-\x7e\u00a0-\u2027\u202f-\u2065\u2070-\uffff]/g)).toBeNull();
    }
  });
});
