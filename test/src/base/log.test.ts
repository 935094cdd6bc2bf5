// The log's serializers pick fields: what is not named cannot be written, and messages of strange
// errors are not passed on.

import { inspect } from 'node:util';
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { TsmError } from '../../../src/attestd/tsm.ts';
import { ApiError, ConfigError } from '../../../src/base/errors.ts';
import { createLog, pickError } from '../../../src/base/log.ts';

function capture(): {
  lines: () => Record<string, unknown>[];
  log: ReturnType<typeof createLog>;
  text: () => string;
} {
  let text = '';
  const log = createLog({ level: 'debug', stream: { write: (line: string) => void (text += line) } });
  return { log, text: () => text, lines: () => text.trimEnd().split('\n').map((line) => JSON.parse(line) as Record<string, unknown>) }; // prettier-ignore
}

describe('errors', () => {
  test('of our own keep their message; of others only name, code and frames', () => {
    const { log, lines, text } = capture();
    let parse: unknown;
    try {
      JSON.parse('CANARY prompt');
    } catch (error) {
      parse = error;
    }
    log.error({ err: parse });
    log.error({
      err: new ApiError('attestation_failed', 'the TEE did not make a report', {
        cause: new TsmError('io', 'EIO'),
      }),
    });
    log.error({ err: new ConfigError('api.address must be host:port') });
    log.error({ err: Object.assign(new Error('CANARY /home/x'), { code: 'ENOENT' }) });
    log.error({ error: 'CANARY as text' });
    log.error(new Error('CANARY bare'));
    log.child({}).error(new Error('CANARY of a child'), 'said');
    expect(text()).not.toContain('CANARY');
    expect(lines()[0]).toMatchObject({ level: 'error', err: { name: 'SyntaxError' } });
    expect(lines()[1]).toMatchObject({
      err: {
        code: 'attestation_failed',
        message: 'the TEE did not make a report',
        cause: { name: 'TsmError', code: 'io' },
      },
    });
    expect(lines()[2]).toMatchObject({ err: { message: 'api.address must be host:port' } });
    expect(lines()[3]).toMatchObject({ err: { code: 'ENOENT' } });
  });

  class LibError extends Error {
    override readonly name = 'LibError';
  }

  test('a message with lines that look like frames is not taken for frames; real ones stay', () => {
    for (const message of [
      'x:\n   at CANARY my secret',
      'x:\n    at CANARY (secret:1:2)',
      '\n    at CANARY:1:2',
      'at CANARY:1:2',
    ]) {
      for (const error of [
        new LibError(message),
        new Error(message),
        new TypeError(message, { cause: new LibError(message) }),
      ]) {
        const picked = pickError(error);
        expect(inspect(picked, { depth: 9 })).not.toContain('CANARY');
        expect((picked['stack'] as string[])[0]).toMatch(/log\.test\.ts:\d+:\d+\)?$/);
      }
    }
    // A message that is not the one the stack was made with: what is header cannot be told from what is not.
    const changed = new Error('x\n    at CANARY (secret:1:2)');
    expect(changed.stack).toContain('CANARY');
    changed.message = 'another';
    expect(pickError(changed)).toEqual({ name: 'Error', stack: [] });
  });

  test('property: nothing of a message gets into the frames', () => {
    const part = fc.oneof(
      fc.constantFrom(
        '\n',
        '\n    at ',
        ' (',
        ':1:2',
        ')',
        ': ',
        'Error',
        '    at CANARY (file:///CANARY:1:2)',
      ),
      fc.string(),
    );
    fc.assert(
      fc.property(
        fc.array(part, { maxLength: 8 }),
        fc.constantFrom(Error, LibError, RangeError),
        (parts, Kind) => {
          const plain = pickError(new Kind('x'))['stack'] as string[];
          const picked = pickError(new Kind(parts.join('') + '\n    at CANARY (secret:1:2)'))[
            'stack'
          ] as string[];
          // The same frames as with any other message, but for the line of this test.
          expect(picked.slice(1)).toEqual(plain.slice(1));
          expect(picked[0]).toMatch(/log\.test\.ts:\d+:\d+\)?$/);
        },
      ),
      { numRuns: 300 * Number(process.env['ASSAY_FUZZ'] ?? 1) },
    );
  });

  test('with a stack of odd shape are no trouble', () => {
    const odd = new Error('x');
    delete (odd as { stack?: string }).stack;
    expect(pickError(odd)).toEqual({ name: 'Error', stack: [] });
    expect(pickError(null)).toEqual({ name: 'object' });
  });
});

test('requests and responses show route, method and status, never URL, headers or body', () => {
  const { log, lines, text } = capture();
  const req = {
    id: 'req_1',
    method: 'POST',
    url: '/v1/x?CANARY',
    headers: { authorization: 'CANARY' },
    body: 'CANARY',
    routeOptions: { url: '/v1/x' },
  };
  log.info({ req, res: { statusCode: 200, payload: 'CANARY' } });
  expect(text()).not.toContain('CANARY');
  expect(lines()[0]).toMatchObject({
    req: { id: 'req_1', method: 'POST', route: '/v1/x' },
    res: { status: 200 },
  });
});

test('a line has a level by name and a time in UTC, no host name and no process id', () => {
  const { log, lines } = capture();
  log.warn({ msg: 'x' });
  expect(Object.keys(lines()[0]!)).toEqual(['level', 'time', 'msg']);
  expect(lines()[0]!['time']).toMatch(/Z$/);
});
