// The size of what a JSON text becomes: weighed from its bytes before anything is built, refused above a
// bound that real requests stay below, counted in the budget of memory. Whatever the values are, wherever
// they stand, on every route, in pieces or at once.

import { execFile } from 'node:child_process';
import { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import * as fc from 'fast-check';
import { describe, expect, test, vi } from 'vitest';
import { scannedAsItComes } from '../../../src/http/admission/bodies.ts';
import { type Exchange, openExchange } from '../../../src/http/exchange.ts';
import { parseBody } from '../../../src/http/json.ts';
import { MAX_WEIGHT, openJsonScan } from '../../../src/base/json-scan.ts';
import { frameReader } from '../../../src/engine/seam/wire.ts';
import { embeddingAnswerText } from '../../../src/api/vectors/wire.ts';
import { heapOf } from '../../../src/api/generation/admitted.ts';
import { KINDS } from '../../fixtures/http/small-values.ts';

const MI_B = 1024 * 1024;

function bytesOf(text: string): Buffer {
  return Buffer.from(text);
}
function refusalOf(work: () => unknown): string {
  try {
    work();
    return 'none';
  } catch (error) {
    return (error as { code: string }).code;
  }
}

const PASSING: readonly (readonly [string, unknown])[] = [
  ['a prompt of a million tokens', { prompt: Array.from({ length: 1_000_000 }, (_, i) => i % 200_000) }],
  [
    '2048 inputs of 800 tokens',
    { input: Array.from({ length: 2048 }, () => Array.from({ length: 800 }, (_, i) => i)) },
  ],
  ['2048 inputs of text', { input: Array.from({ length: 2048 }, (_, i) => `text ${i} `.repeat(200)) }],
  [
    'a thousand biases',
    { logit_bias: Object.fromEntries(Array.from({ length: 1024 }, (_, i) => [i, -99.5])) },
  ],
  [
    '128 tools of 50 parameters',
    {
      tools: Array.from({ length: 128 }, (_, i) => ({
        type: 'function',
        function: {
          name: `tool_${i}`,
          parameters: {
            type: 'object',
            properties: Object.fromEntries(
              Array.from({ length: 50 }, (_v, k) => [
                `p${k}`,
                { type: 'string', description: 'What it is.' },
              ]),
            ),
          },
        },
      })),
    },
  ],
  [
    '4096 messages, half of them calls and results',
    {
      messages: Array.from({ length: 1024 }, (_, i) => [
        { role: 'user', content: `question ${i}` },
        {
          role: 'assistant',
          content: null,
          tool_calls: [{ id: `c${i}`, type: 'function', function: { name: 'f', arguments: '{"a":1}' } }],
        },
        { role: 'tool', tool_call_id: `c${i}`, content: 'result' },
        { role: 'assistant', content: 'answer' },
      ]).flat(),
    },
  ],
  ['16 MiB of text', { content: 'x "quoted" \\ \n '.repeat(MI_B) }],
];

describe('the bound', () => {
  test.each(KINDS)(
    '%s: refused before anything is parsed, though the text is no JSON in the end',
    (_, of, count) => {
      const text = of(count);
      const parse = vi.spyOn(JSON, 'parse');
      try {
        for (const body of [`{"x":${text}}`, `{"x":${text}`, `{"x":${text}}]]]x`]) {
          expect(refusalOf(() => parseBody(bytesOf(body)))).toBe('json_too_many_values');
        }
        expect(parse).not.toHaveBeenCalled();
      } finally {
        parse.mockRestore();
      }
      expect(refusalOf(() => parseBody(bytesOf(of(Math.floor(count / 5)))))).toBe('none');
    },
  );

  test.each(PASSING)('%s passes', (_, body) => {
    const bytes = bytesOf(JSON.stringify(body));
    expect(parseBody(bytes)).toEqual(body);
  });

  test('property: a text weighs the same in any pieces, and what its values say', () => {
    const weigh = (pieces: readonly Uint8Array[]): number => {
      const scan = openJsonScan();
      for (const piece of pieces) scan.push(piece);
      return scan.heapBytes / 8;
    };
    const number = (text: string): number => 2 * [...text].filter((c) => '.eE-'.includes(c)).length;
    // By the values alone, from what JSON.stringify writes of them.
    const expected = (value: unknown): number => {
      if (typeof value === 'string') return 12;
      if (typeof value !== 'object' || value === null) return number(JSON.stringify(value));
      const items = Array.isArray(value)
        ? value.map(expected)
        : Object.values(value).map((each) => 44 + expected(each));
      return 10 + items.reduce((sum, each) => sum + each, 0) + Math.max(0, items.length - 1);
    };
    const json = fc
      .json({ stringUnit: 'binary', maxDepth: 6 })
      .map((text) => JSON.stringify(JSON.parse(text)));
    const escaped = fc
      .string({ unit: fc.constantFrom('\\', '"', 'a', '{', ',', '\n', 'é') })
      .map((text) => JSON.stringify({ [text.repeat(9)]: [text] }));
    fc.assert(
      fc.property(fc.oneof(json, escaped), fc.array(fc.nat(), { maxLength: 8 }), (text, cuts) => {
        const bytes = bytesOf(text);
        const at = [0, ...cuts.map((cut) => cut % (bytes.length + 1)).sort((a, b) => a - b), bytes.length];
        const pieces = at.slice(1).map((end, i) => bytes.subarray(at[i], end));
        expect(weigh(pieces)).toBe(expected(JSON.parse(text)));
        expect(weigh([...bytes].map((byte) => Uint8Array.of(byte)))).toBe(weigh([bytes]));
      }),
      { numRuns: 300 },
    );
  });

  test('a key named __proto__ is found however it is written, and nothing else is taken for one', () => {
    const escapes = [
      '__proto__',
      '\\u005f_proto__',
      '\\u005F\\u005f\\u0070roto__',
      '__pr\\u006fto_\\u005f',
      '__\\u0070\\u0072\\u006F\\u0074\\u006f__',
    ];
    for (const key of escapes) {
      for (const body of [`{"${key}":1}`, `{"a":[{"b":1,"${key}" \n:1}]}`, `[{"\\\\":"\\"","${key}":{}}]`]) {
        expect(refusalOf(() => JSON.parse(body) as unknown)).toBe('none');
        expect(refusalOf(() => parseBody(bytesOf(body)))).toBe('invalid_json');
      }
      for (const body of [
        `{"a":"${key}"}`,
        `["${key}","${key}"]`,
        `{"x${key}":1,"${key}x":2}`,
        String.raw`{"a":"\"${key}\":1"}`,
        String.raw`{"a\"${key}":1}`,
      ]) {
        expect(parseBody(bytesOf(body))).toEqual(JSON.parse(body));
      }
    }
  });
});

describe('the heap', () => {
  const built = fileURLToPath(new URL('../../../dist/src/base/json-scan.js', import.meta.url));

  test(
    'what is weighed is at least what V8 builds, for every kind of value',
    { timeout: 400_000 },
    async () => {
      const script = `
      import { openJsonScan } from ${JSON.stringify(`file://${built}`)};
      let input = '';
      for await (const piece of process.stdin.setEncoding('utf8')) input += piece;
      const out = [];
      for (const text of input.split('\\n')) {
        const scan = openJsonScan();
        scan.push(Buffer.from(text));
        gc(); gc();
        const before = process.memoryUsage().heapUsed;
        const value = JSON.parse(text);
        gc(); gc();
        out.push([scan.heapBytes, process.memoryUsage().heapUsed - before, text.length, typeof value]);
      }
      console.log(JSON.stringify(out));`;
      const done = promisify(execFile)(
        process.execPath,
        ['--expose-gc', '--input-type=module', '-e', script],
        { maxBuffer: MI_B },
      );
      done.child.stdin?.end(KINDS.map(([, of, count]) => of(Math.floor(count * 0.7))).join('\n'));
      const measured = JSON.parse((await done).stdout) as [number, number, number, string][];
      for (const [i, [weighed, heap, length]] of measured.entries()) {
        expect(weighed, KINDS[i]?.[0]).toBeLessThanOrEqual(8 * MAX_WEIGHT);
        // The text's own characters and what the program itself allocates beside.
        expect(heap, KINDS[i]?.[0]).toBeLessThan(weighed + length + MI_B);
      }
    },
  );
});

describe('while it arrives', () => {
  const exchange = (): Exchange =>
    Object.assign(openExchange({ given: undefined, freshId: () => 'x', startedAt: 0 }), {
      held: { add: () => undefined, grow: () => undefined, release: () => undefined },
    });

  test('of a body that is refused nothing more is kept, and all of it is read', async () => {
    const piece = Buffer.from('{},'.repeat(20_000));
    let given = 0;
    const source = Readable.from((function* () {
      for (; given < 16 * MI_B; given += piece.length) yield piece;
    })(), { objectMode: false }); // prettier-ignore
    let passed = 0;
    const body = scannedAsItComes(exchange(), source, undefined, 32 * MI_B);
    await expect((async () => {
      for await (const part of body) passed += (part as Buffer).length;
    })()).rejects.toMatchObject({ code: 'json_too_many_values' }); // prettier-ignore
    expect(passed).toBeLessThan(MI_B);
    expect(given).toBeGreaterThanOrEqual(16 * MI_B);
  });

  test('one without end is not read for ever', async () => {
    const piece = Buffer.from('{},'.repeat(20_000));
    let given = 0;
    const source = Readable.from((function* () {
      for (;; given += piece.length) yield piece;
    })(), { objectMode: false }); // prettier-ignore
    await expect(
      scannedAsItComes(exchange(), source, undefined, 2 * MI_B)
        .resume()
        .toArray(),
    ).rejects.toMatchObject({ code: 'json_too_many_values' });
    expect(given).toBeLessThan(3 * MI_B);
  });
});

describe('beside the server', () => {
  test('a piece of an answer counts for its alternatives', () => {
    const token = { token: 'abc', bytes: [97, 98, 99], logprob: -1 };
    const plain = heapOf({ kind: 'delta', index: 0, text: 'abc' });
    const one = heapOf({ kind: 'delta', index: 0, text: 'abc', logprobs: [{ ...token, top: [] }] });
    const twenty = heapOf({
      kind: 'delta',
      index: 0,
      text: 'abc',
      logprobs: [{ ...token, top: Array.from({ length: 20 }, () => token) }],
    });
    expect(twenty - plain).toBe(21 * (one - plain));
  });

  test('millions of numbers of an answer are written in many turns of the loop', async () => {
    let [turns, writing] = [0, true];
    const turn = (): void => {
      turns += 1;
      if (writing) setImmediate(turn);
    };
    setImmediate(turn);
    const vectors = Array.from({ length: 256 }, () => new Float32Array(1024).fill(0.1));
    const text = await embeddingAnswerText({
      vectors,
      tokens: 1,
      model: 'a "b"',
      dimensions: undefined,
      base64: false,
    });
    writing = false;
    expect(turns).toBeGreaterThanOrEqual(30);
    expect(JSON.parse(text)).toMatchObject({
      object: 'list',
      model: 'a "b"',
      usage: { prompt_tokens: 1, total_tokens: 1 },
    });
    expect((JSON.parse(text) as { data: unknown[] }).data).toHaveLength(256);
  });

  test('frames of the engine child are weighed, too', () => {
    const reply = (values: string): Buffer => {
      const frame = Buffer.from(`00000000{"t":"reply","id":1,"value":[${values}]}`);
      frame.writeUInt32LE(frame.length - 4, 0);
      frame.writeUInt32LE(frame.length - 8, 4);
      return frame;
    };
    const read = frameReader(() => undefined);
    expect(() => read(reply(`${'{},'.repeat(1_600_000)}0`))).toThrow(/too many values/);
    const tokens: unknown[] = [];
    frameReader((message) => tokens.push(message))(reply(`${'7,'.repeat(1_000_000)}0`));
    expect(tokens).toHaveLength(1);
  });
});
