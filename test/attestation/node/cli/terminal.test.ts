// On a terminal: the verdict first, failures and a summary, no line wider than it; colours only where they are wanted.

import * as fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { cut, wrap } from '../../../../attestation/node/cli/terminal.ts';
import { type AttestedServer, startAttestedServer } from '../../../fixtures/attestation/attested-server.ts';
import { cli } from '../../../fixtures/attestation/cli.ts';

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
