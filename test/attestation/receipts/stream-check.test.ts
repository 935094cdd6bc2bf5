// A party between that cuts, edits, drops, doubles and swaps, in the streams of every dialect
// (docs/receipts.md [R9] [R10] [R11]): an end is seen only behind the events that were signed, and behind all
// of them.

import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { StreamCheck } from '../../../attestation/receipts/stream-check.ts';
import type { StreamVector } from '../../../scripts/receipt-vector-answers.ts';
import { RECEIPT_VECTORS } from '../../../scripts/receipt-vectors.ts';
import { codeOf } from '../../fixtures/receipts/code.ts';
import { expectedOf } from '../../fixtures/receipts/vectors.ts';

const { streams } = JSON.parse(readFileSync(RECEIPT_VECTORS, 'utf8')) as { streams: StreamVector[] };
const ACCEPTED = streams.filter(({ code }) => code === null).map((vector) => [vector.name, vector] as const);

interface Seen {
  readonly whole: boolean;
  readonly events: readonly string[];
}

/** The part of an event that a receipt answers for: not the filler, and of an error its code. */
function told(block: string): string {
  const fields = block.split(/\r\n|\r|\n/).filter((line) => line !== '' && !line.startsWith(':'));
  const [name, code] = [
    fields.find((line) => line.startsWith('event:')),
    /(?:error_)?code":"([^"]*)"/.exec(block),
  ];
  if (block.includes('"error":{')) return `${name?.replace(': ', ':') ?? ''} error ${code?.[1] ?? ''}`;
  return fields.map((line) => line.replace(/,"obfuscation":"[^"]*"/, '').replace(': ', ':')).join('\n');
}

function eventsOf(text: string): readonly string[] {
  return text
    .split(/\r\n\r\n|\n\n|\r\r/)
    .map(told)
    .filter((event) => event !== '');
}

async function seen(vector: StreamVector, bytes: Uint8Array): Promise<Seen> {
  const check = new StreamCheck(expectedOf(vector.expected));
  let passed = '';
  const add = (parts: readonly Uint8Array[]): void => {
    for (const part of parts) passed += Buffer.from(part).toString();
  };
  const code = await codeOf(async () => {
    for (let at = 0; at < bytes.length; at += 64) add(await check.push(bytes.subarray(at, at + 64)));
    add(await check.end());
  });
  return { whole: code === null, events: eventsOf(passed) };
}

/** Ends as any of the readers know one. */
const END = /\[DONE\]|message_stop|response\.(?:completed|incomplete|failed)|"error":|event:error/;

function expectSound({ whole, events }: Seen, good: readonly string[], how: string): void {
  if (whole) expect(events, how).toEqual(good);
  // An end that was handed on is the signed one behind all of the signed events; the stream then breaks.
  else if (events.some((event) => END.test(event))) expect(events.slice(0, good.length), how).toEqual(good);
}

describe.each(ACCEPTED)('%s', (_, vector) => {
  const bytes = new TextEncoder().encode(vector.stream);
  const good = eventsOf(vector.passed);
  const blocks = vector.stream.match(/[\s\S]+?(?:\r\n\r\n|\n\n|\r\r)/g) ?? [];

  test('[R10] cut at any byte: no end, or that behind the last receipt', async () => {
    const lastByte = vector.stream.trimEnd().length;
    for (let cut = 0; cut < lastByte; cut += vector.stream[cut] === ' ' ? 7 : 1) {
      const got = await seen(vector, bytes.subarray(0, cut));
      expect([cut, got.whole]).toEqual([cut, false]);
      expectSound(got, good, `cut at ${cut}`);
    }
  });

  test('[R9] any byte changed: refused, or nothing that a receipt answers for', async () => {
    for (let at = 0; at < bytes.length; at += 1) {
      // Within the base64 of a receipt its signature has a test of every bit.
      const line = vector.stream.slice(vector.stream.lastIndexOf('\n', at) + 1, at + 1);
      if (/^: assay-receipt .{40,}/.test(line) && at % 31 !== 0) continue;
      for (const mask of [1, 2, 0x20]) {
        const changed = bytes.slice();
        changed[at] = (changed[at] ?? 0) ^ mask;
        expectSound(await seen(vector, changed), good, `byte ${at} ^ ${mask}`);
      }
    }
  });

  test('[R9] [R11] any event or comment left out, twice, or behind the next', async () => {
    for (const [i, block] of blocks.entries()) {
      const [before, after] = [blocks.slice(0, i), blocks.slice(i + 1)];
      const [next = '', ...rest] = after;
      const changes: Readonly<Record<string, readonly string[]>> = {
        'left out': [...before, ...after],
        twice: [...before, block, block, ...after],
        swapped: [...before, next, block, ...rest],
        'joined with the next': [...before, block.replace(/(\r\n|\n|\r)\1$/, '$1'), ...after],
      };
      for (const [how, changed] of Object.entries(changes))
        expectSound(await seen(vector, Buffer.from(changed.join(''))), good, `block ${i} ${how}`);
    }
  });

  test.each([
    'data: {"choices":[{"delta":{"content":"More."}}]}',
    'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"text":"More."}}',
    'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"More."}',
    'event: response.completed\ndata: {"type":"response.completed","response":{}}',
    'event: message_stop\ndata: {"type":"message_stop"}',
    'data: [DONE]',
    'data: {"error":{"code":"x"}}',
    'data:',
  ])('[R9] put in anywhere: %s', async (more) => {
    for (let i = 0; i <= blocks.length; i++) {
      const changed = [...blocks.slice(0, i), `${more}\n\n`, ...blocks.slice(i)].join('');
      const got = await seen(vector, Buffer.from(changed));
      expect([i, got.whole]).toEqual([i, false]);
      expectSound(got, good, `before block ${i}`);
    }
  });
});
