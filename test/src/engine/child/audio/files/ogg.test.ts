// Opus out of Ogg: the packets of the stream whatever pages they are on, where the sound begins and ends, and
// a refusal for each thing that is not as RFC 3533 and RFC 7845 say. Cut anywhere and changed anywhere, a
// file is refused or read as far as its whole pages go.

import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { readOgg } from '../../../../../../src/engine/child/audio/files/ogg.ts';
import {
  OPUS_TAGS,
  oggOf,
  oggPage,
  oggPages,
  opusHead,
  sealed,
} from '../../../../../fixtures/audio/ogg-file.ts';
import type { OggForm } from '../../../../../fixtures/audio/ogg-file.ts';
import { CELT, SILK_HYBRID } from '../../../../../fixtures/audio/opus-sample.ts';
import { beginsAs, readOrRefused } from '../../../../../fixtures/audio/refusals.ts';

const NUM_RUNS = 300 * Number(process.env['ASSAY_FUZZ'] ?? 1);
const whole = { packets: Buffer.concat([...CELT.packets]), skip: 120, gain: 0, frames: 48_000 };
const PACKETS = Uint32Array.from(CELT.packets, ({ length }) => length);

const long = { ...CELT, packets: CELT.packets.map((packet) => Buffer.concat([packet, Buffer.alloc(700)])) };

describe('the packets of a stream', () => {
  test.each<readonly [string, OggForm]>([
    ['50 on a page', {}],
    ['each on a page of its own', { packetsPerPage: 1 }],
    ['pages of one segment', { segmentsPerPage: 1 }],
    ['a comment over many pages', { comments: Buffer.concat([OPUS_TAGS, Buffer.alloc(200_000)]) }],
    ['a comment in pieces of a byte and less than its name', { comments: OPUS_TAGS, segmentsPerPage: 1 }],
    ['a recording that begins later', { begin: 5_000_000 }],
  ])('%s', (_, form) => {
    expect(readOgg(oggOf(CELT, form))).toEqual({ ...whole, sizes: PACKETS });
  });

  test.each([1, 2, 3, 4, 5, 200])('packets over pages of %i segments are whole', (segmentsPerPage) => {
    const sound = readOgg(oggOf(long, { segmentsPerPage }));
    expect(Buffer.from(sound.packets).equals(Buffer.concat(long.packets))).toBe(true);
    expect([...sound.sizes]).toEqual(long.packets.map(({ length }) => length));
  });

  test.each([254, 255, 256, 510])('a packet of %i bytes has its segments', (length) => {
    const packet = Buffer.concat([CELT.packets[0] ?? Buffer.alloc(0), Buffer.alloc(length)]).subarray(
      0,
      length,
    );
    const sound = readOgg(oggOf({ ...CELT, packets: [packet, ...CELT.packets] }, { packetsPerPage: 3 }));
    expect(sound.sizes[0]).toBe(length);
    expect(sound.sizes).toHaveLength(CELT.packets.length + 1);
  });
});

describe('where it begins and ends', () => {
  test('the head says what is left out, and how loud it is', () => {
    const head = opusHead({ skip: 3840, gain: -1536, channels: 2 });
    expect(readOgg(oggOf({ ...CELT, skip: 3840, frames: 4000 }, { head }))).toMatchObject({
      skip: 3840,
      gain: -1536,
      frames: 4000,
    });
  });

  test('without its last page every packet is heard', () => {
    const { frames } = readOgg(oggOf(CELT, { unended: true }));
    expect(frames).toBe(51 * 960 - 120);
  });

  test('a last page without packets tells the end', () => {
    const pages = oggPages(CELT, { unended: true });
    const end = oggPage({
      flags: 4,
      position: 24_120n,
      serial: 0x1234_5678,
      sequence: pages.length,
      lacing: [],
      body: Buffer.alloc(0),
    });
    expect(readOgg(Buffer.concat([...pages, end])).frames).toBe(24_000);
  });

  test('a position behind the last packet adds nothing', () => {
    expect(readOgg(oggOf({ ...CELT, frames: 1_000_000 })).frames).toBe(51 * 960 - 120);
  });

  test('a last position before the beginning leaves nothing', () => {
    expect(readOgg(oggOf({ ...CELT, frames: -100 })).frames).toBe(0);
  });
});

/** The pages with one of them changed. */
function changed(at: number, change: (page: Buffer) => void, form: OggForm = { packetsPerPage: 5 }): Buffer {
  const pages = oggPages(CELT, form);
  const page = pages.at(at) ?? Buffer.alloc(0);
  change(page);
  sealed(page);
  return Buffer.concat(pages);
}

describe('a stream is refused', () => {
  const pages = oggPages(CELT, { packetsPerPage: 5 });
  const speex = Buffer.concat([Buffer.from('Speex   1.2'), Buffer.alloc(60)]);
  test.each<readonly [string, Buffer, RegExp]>([
    ['with another codec', oggOf(CELT, { head: speex }), /not Opus/],
    [
      'of six channels',
      oggOf(CELT, { head: opusHead({ skip: 0, channels: 6, family: 1 }) }),
      /one channel or two/,
    ],
    ['of no channel', oggOf(CELT, { head: opusHead({ skip: 0, channels: 0 }) }), /one channel or two/],
    ['of another family', oggOf(CELT, { head: opusHead({ skip: 0, family: 255 }) }), /one channel or two/],
    ['with a short head', oggOf(CELT, { head: opusHead({ skip: 0 }).subarray(0, 18) }), /head of its Opus/],
    ['with a later head', changed(0, (page) => page.writeUInt8(16, 28 + 8)), /head of its Opus/],
    ['with other comments', oggOf(CELT, { comments: Buffer.from('OpusTogs') }), /comments/],
    ['without comments', Buffer.concat(pages.filter((_, i) => i !== 1)), /missing/],
    ['behind another one', Buffer.concat([oggOf(CELT), oggOf(CELT, { serial: 2 })]), /more than one/],
    [
      'beside another one',
      Buffer.concat([pages[0] ?? Buffer.alloc(0), oggOf(CELT, { serial: 2 })]),
      /more than one/,
    ],
    ['of two serials', changed(3, (page) => page.writeUInt32LE(2, 14)), /more than one/],
    ['without its first page', Buffer.concat(pages.slice(1)), /more than one Ogg stream, or none from/],
    ['without a page', Buffer.concat(pages.filter((_, i) => i !== 4)), /missing/],
    ['with a page twice', Buffer.concat([...pages.slice(0, 4), ...pages.slice(3)]), /missing/],
    ['with a piece of nothing', changed(3, (page) => page.writeUInt8(1, 5)), /not whole/],
    ['of a later version', changed(3, (page) => page.writeUInt8(1, 4)), /between its Ogg pages/],
    [
      'with bytes between pages',
      Buffer.concat([...pages.slice(0, 3), Buffer.alloc(40), ...pages.slice(3)]),
      /between/,
    ],
    ['of headers alone', Buffer.concat(pages.slice(0, 2)), /no sound/],
    ['of a head alone', Buffer.concat(pages.slice(0, 1)), /no sound/],
    ['that begins before 0', changed(2, (page) => page.writeBigInt64LE(959n, 6)), /first position/],
    ['with a negative position', changed(2, (page) => page.writeBigInt64LE(-2n, 6)), /position/],
    ['with a position of no number', changed(3, (page) => page.writeBigInt64LE(2n ** 62n, 6)), /position/],
    ['that goes backwards', changed(4, (page) => page.writeBigInt64LE(4800n, 6)), /backwards/],
    ['without a position', changed(3, (page) => page.writeBigInt64LE(-1n, 6)), /no position/],
  ])('%s', (_, file, message) => {
    expect(readOrRefused(readOgg, file)).toMatch(message);
  });

  test('with an empty packet, and one that no decoder takes', () => {
    const [first = Buffer.alloc(0), ...rest] = CELT.packets;
    for (const [bad, message] of [
      [Buffer.alloc(0), /empty/],
      // Code 3 without its count, of no frames, and of 63 frames of 20 ms.
      [Buffer.from([0xfb]), /broken/],
      [Buffer.from([0xfb, 0]), /broken/],
      [Buffer.from([0xfb, 63]), /broken/],
    ] as const) {
      const file = oggOf({ ...CELT, packets: [first, bad, ...rest] });
      expect(readOrRefused(readOgg, file)).toMatch(message);
    }
  });

  test('with sound on the page of a header', () => {
    const lacing = [OPUS_TAGS.length, CELT.packets[0]?.length ?? 0];
    const body = Buffer.concat([OPUS_TAGS, CELT.packets[0] ?? Buffer.alloc(0)]);
    const second = oggPage({ flags: 4, position: 960n, serial: 0x1234_5678, sequence: 1, lacing, body });
    const file = Buffer.concat([pages[0] ?? Buffer.alloc(0), second]);
    expect(readOrRefused(readOgg, file)).toMatch(/a header and more/);
  });

  test('longer than an hour, before it is decoded', () => {
    // 120 ms in two bytes.
    const packets = Array.from({ length: 30_100 }, () => Buffer.from([0xfb, 6]));
    const sample = { packets, skip: 0, frames: 30_100 * 5760 };
    expect(readOrRefused(readOgg, oggOf(sample, { packetFrames: 5760 }))).toMatch(/longer than 3600 seconds/);
  });
});

test('cut at any byte, it is refused or has the packets of its whole pages', () => {
  const file = oggOf(CELT, { packetsPerPage: 5 });
  const sound = readOgg(file);
  const heard = new Set<number>();
  for (let length = 0; length < file.length; length++) {
    const cut = readOrRefused(readOgg, file.subarray(0, length));
    if (typeof cut === 'string') continue;
    expect(beginsAs(cut, sound)).toBe(true);
    heard.add(cut.sizes.length);
  }
  expect([...heard]).toEqual([5, 10, 15, 20, 25, 30, 35, 40, 45, 50]);
});

test('each bit of a page counts: none can be turned without a refusal', () => {
  const file = oggOf(SILK_HYBRID, { packetsPerPage: 51 });
  for (let bit = 0; bit < file.length * 8; bit += 7) {
    const turned = Buffer.from(file);
    turned[bit >> 3] = (turned[bit >> 3] ?? 0) ^ (1 << (bit & 7));
    expect(readOrRefused(readOgg, turned)).toBeTypeOf('string');
  }
});

test('property: pages with right checksums and any content are read or refused', () => {
  const page = fc.record({
    flags: fc.integer({ min: 0, max: 7 }),
    position: fc.oneof(
      fc.bigInt({ min: -2n, max: 5000n }),
      fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
    ),
    serial: fc.constantFrom(1, 2),
    sequence: fc.nat({ max: 4 }),
    lacing: fc.array(fc.constantFrom<number>(0, 1, 3, 20, 254, 255), { maxLength: 255 }),
  });
  fc.assert(
    fc.property(
      fc.array(page, { maxLength: 6 }),
      fc.infiniteStream(fc.nat({ max: 255 })),
      (fields, bytes) => {
        const head = { position: 0n, serial: 1 };
        const first = [opusHead({ skip: 312 }), OPUS_TAGS].map((body, sequence) =>
          oggPage({ ...head, flags: sequence === 0 ? 2 : 0, sequence, lacing: [body.length], body }),
        );
        const others = fields.map((each, i) => {
          const length = each.lacing.reduce((sum, size) => sum + size, 0);
          const body = Buffer.from(Array.from({ length }, () => bytes.next().value ?? 0));
          return oggPage({ ...each, sequence: each.sequence === 0 ? i + 2 : each.sequence, body });
        });
        const sound = readOrRefused(readOgg, Buffer.concat([...first, ...others]));
        if (typeof sound === 'string') return;
        expect(sound.sizes.reduce((sum, size) => sum + size, 0)).toBe(sound.packets.length);
        expect(sound.frames).toBeGreaterThanOrEqual(0);
      },
    ),
    { numRuns: NUM_RUNS },
  );
});
