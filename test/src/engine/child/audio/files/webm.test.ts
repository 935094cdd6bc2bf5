// Opus out of WebM: the packets of the first track of sound, as browsers record them and other programs write
// them, with each kind of lacing; and a refusal for what is no WebM, no Opus, or not whole. Cut anywhere and
// changed anywhere, a file is refused or read as far as its whole blocks go.

import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { readWebm } from '../../../../../../src/engine/child/audio/files/webm.ts';
import { opusHead } from '../../../../../fixtures/audio/ogg-file.ts';
import { CELT } from '../../../../../fixtures/audio/opus-sample.ts';
import { beginsAs, readOrRefused } from '../../../../../fixtures/audio/refusals.ts';
import { element, sizeOf, webmOf, type WebmForm } from '../../../../../fixtures/audio/webm-file.ts';

const NUM_RUNS = 300 * Number(process.env['ASSAY_FUZZ'] ?? 1);
const whole = {
  packets: Buffer.concat([...CELT.packets]),
  sizes: Uint32Array.from(CELT.packets, ({ length }) => length),
  skip: 120,
  gain: 0,
};
const ALL = 51 * 960 - 120;
/** Packets of one size, for the lacing that writes none. */
const even = { ...CELT, packets: CELT.packets.map((packet) => Buffer.concat([packet, Buffer.alloc(99)]).subarray(0, 99)) }; // prettier-ignore
const video = element('ae', Buffer.concat([element('d7', 2), element('83', 1), element('86', 'V_VP8')]));
const picture = element('a3', Buffer.concat([Buffer.from([0x82, 0, 0, 0x80]), Buffer.alloc(500)]));

describe('the packets of a track', () => {
  test.each<readonly [string, WebmForm]>([
    ['with sizes', {}],
    ['as browsers record', { live: true }],
    ['each in a cluster', { live: true, packetsPerCluster: 1 }],
    ['beside a video', { more: { tracks: video, block: picture } }],
    ['beside a video, live', { live: true, more: { tracks: video, block: picture } }],
    ['Matroska', { docType: 'matroska' }],
    ['a type with zeros behind it', { docType: 'webm\0\0' }],
    ['Xiph lacing', { lacing: 'xiph', packetsPerBlock: 8 }],
    ['EBML lacing', { lacing: 'ebml', packetsPerBlock: 8 }],
    ['lacing of one', { lacing: 'xiph' }],
    ['an unknown element in a cluster', { live: true, more: { block: element('4f4f', 'new') } }],
  ])('%s', (_, form) => {
    expect(readWebm(webmOf(CELT, form))).toEqual({ ...whole, frames: ALL });
  });

  test.each(['none', 'xiph', 'equal', 'ebml'] as const)('large ones in %s lacing', (lacing) => {
    const large = { ...even, packets: even.packets.map((each) => Buffer.concat([each, Buffer.alloc(611)])) };
    const file = webmOf(large, { lacing, packetsPerBlock: lacing === 'none' ? 1 : 5, grouped: true });
    const sound = readWebm(file);
    expect(Buffer.from(sound.packets).equals(Buffer.concat(large.packets))).toBe(true);
    expect([...sound.sizes]).toEqual(large.packets.map(({ length }) => length));
  });

  test('the last group says what is cut off at the end', () => {
    expect(readWebm(webmOf(CELT, { grouped: true }))).toEqual({ ...whole, frames: 48_000 });
    // One second has no byte with the sign; what is cut before a later block is none of its business.
    expect(readWebm(webmOf({ ...CELT, frames: 10_000 }, { grouped: true })).frames).toBe(10_000);
  });
});

function lacedBlock(flags: number, content: readonly number[]): Buffer {
  return webmOf(CELT, { more: { block: element('a3', Buffer.from([0x81, 0, 0, flags, ...content])) } });
}

describe('a file is refused', () => {
  const file = webmOf(CELT);
  const segment = file.subarray(file.indexOf(Buffer.from('18538067', 'hex')));
  test.each<readonly [string, Buffer, RegExp]>([
    ['of another codec', webmOf(CELT, { codec: 'A_VORBIS' }), /not Opus/],
    ['of another type', webmOf(CELT, { docType: 'mosaic' }), /neither WebM nor Matroska/],
    [
      'with compressed blocks',
      webmOf(CELT, { more: { inTrack: element('6d80', '') } }),
      /compressed once more/,
    ],
    [
      'of six channels',
      webmOf(CELT, { head: opusHead({ skip: 0, channels: 6, family: 1 }) }),
      /one channel or two/,
    ],
    ['with a short head', webmOf(CELT, { head: Buffer.from('OpusHead') }), /head of its Opus/],
    ['without sound', webmOf({ ...CELT, packets: [] }), /no sound/],
    ['of two segments', Buffer.concat([file, segment]), /more than one/],
    ['of an EBML head alone', file.subarray(0, file.length - segment.length), /broken/],
    ['with another segment', Buffer.concat([file.subarray(0, file.length - segment.length), element('4f4f', 'x')]), /no WebM segment/], // prettier-ignore
    ['of a later EBML', Buffer.concat([element('1a45dfa3', element('42f7', 2)), segment]), /later version/],
    ['of long ids', Buffer.concat([element('1a45dfa3', element('42f2', 5)), segment]), /later version/],
    ['of a later WebM', Buffer.concat([element('1a45dfa3', element('4285', 5)), segment]), /later version/],
    ['with a block of nothing', lacedBlock(0x80, []), /empty/],
    ['with a lacing of nothing', lacedBlock(0x82, []), /broken/],
    ['with sizes that go on (Xiph)', lacedBlock(0x82, [1, 255, 255]), /broken/],
    ['with sizes beyond the block (Xiph)', lacedBlock(0x82, [1, 200, 0xf8, 0]), /broken/],
    ['with sizes beyond the block (EBML)', lacedBlock(0x86, [1, 0x90, 0xf8, 0]), /broken/],
    ['with a size below nothing (EBML)', lacedBlock(0x86, [2, 0x82, 0x80, 0xf8, 0]), /broken/],
    ['with an unknown size (EBML)', lacedBlock(0x86, [1, 0xff, 0xf8, 0]), /broken/],
    ['with unequal parts', lacedBlock(0x84, [1, 0xf8, 0, 0]), /broken/],
    [
      'with a short block',
      webmOf(CELT, { more: { block: element('a3', Buffer.from([0x81, 0, 0])) } }),
      /broken/,
    ],
    ['with a large number', webmOf(CELT, { more: { inTrack: element('83', Buffer.alloc(9)) } }), /too large/],
    ['of a track without a size', webmOf(CELT, { more: { tracks: element('ae', '', true) } }), /no size/],
  ])('%s', (_, bytes, message) => {
    expect(readOrRefused(readWebm, bytes)).toMatch(message);
  });

  test('of video alone, or with blocks before its tracks', () => {
    const head = file.subarray(0, file.length - segment.length);
    const tracks = element('1654ae6b', video);
    const silent = element('18538067', Buffer.concat([tracks, element('1f43b675', picture)]));
    expect(readOrRefused(readWebm, Buffer.concat([head, silent]))).toMatch(/of which kind/);
    const early = element('18538067', element('1f43b675', picture));
    expect(readOrRefused(readWebm, Buffer.concat([head, early]))).toMatch(/of which kind/);
  });

  test('that says its tracks twice', () => {
    const [at, end] = ['1654ae6b', '1f43b675'].map((id) => file.indexOf(Buffer.from(id, 'hex')));
    const tracks = file.subarray(at, end);
    const head = file.subarray(0, file.length - segment.length);
    const content = Buffer.concat([tracks, tracks, file.subarray(end)]);
    expect(readOrRefused(readWebm, Buffer.concat([head, element('18538067', content)]))).toMatch(/twice/);
  });

  test('longer than an hour, before it is decoded', () => {
    const packets = Array.from({ length: 30_100 }, () => Buffer.from([0xfb, 6]));
    const long = webmOf(
      { packets, skip: 0, frames: 0 },
      { lacing: 'equal', packetsPerBlock: 200, packetsPerCluster: 2000 },
    );
    expect(readOrRefused(readWebm, long)).toMatch(/longer than 3600 seconds/);
  });
});

describe.each([true, false])('live: %s', (live) => {
  test('cut at any byte, it is refused or has the packets of its whole blocks', () => {
    const file = webmOf(CELT, { live });
    const sound = readWebm(file);
    const heard = new Set<number>();
    for (let length = 0; length < file.length; length++) {
      const cut = readOrRefused(readWebm, file.subarray(0, length));
      if (typeof cut === 'string') continue;
      expect(beginsAs(cut, sound)).toBe(true);
      heard.add(cut.sizes.length);
    }
    // A recording that stopped is whole behind each block; a file with sizes is whole or not.
    expect(heard.size).toBe(live ? 50 : 0);
  });
});

test('property: with changed bytes it is read or refused', () => {
  const files = [webmOf(CELT), webmOf(CELT, { live: true, lacing: 'ebml', packetsPerBlock: 4 }), webmOf(CELT, { lacing: 'xiph', packetsPerBlock: 3, grouped: true })]; // prettier-ignore
  const change = fc.tuple(fc.nat({ max: 2600 }), fc.nat({ max: 255 }));
  fc.assert(
    fc.property(
      fc.constantFrom(...files),
      fc.array(change, { minLength: 1, maxLength: 8 }),
      (file, changes) => {
        const bytes = Buffer.from(file);
        for (const [at, value] of changes) bytes[at % bytes.length] = value;
        const sound = readOrRefused(readWebm, bytes);
        if (typeof sound === 'string') return;
        expect(sound.sizes.reduce((sum, size) => sum + size, 0)).toBe(sound.packets.length);
        expect(sound.packets.length).toBeLessThanOrEqual(file.length);
      },
    ),
    { numRuns: NUM_RUNS },
  );
});

test('property: any elements inside each other are read or refused', () => {
  const ids = [
    '1654ae6b',
    'ae',
    'd7',
    '83',
    '86',
    '63a2',
    '1f43b675',
    'a3',
    'a0',
    'a1',
    '75a2',
    'ec',
    '4f4f',
  ];
  const { tree } = fc.letrec<{ tree: Buffer }>((tie) => ({
    tree: fc.oneof(
      { depthSize: 'small' },
      fc
        .tuple(fc.constantFrom(...ids), fc.uint8Array({ maxLength: 40 }), fc.boolean())
        .map(([id, bytes, unknown]) => element(id, Buffer.from(bytes), unknown)),
      fc
        .tuple(fc.constantFrom(...ids), fc.array(tie('tree'), { maxLength: 4 }), fc.boolean())
        .map(([id, children, unknown]) => element(id, Buffer.concat(children), unknown)),
    ),
  }));
  const head = element('1a45dfa3', element('4282', 'webm'));
  fc.assert(
    fc.property(fc.array(tree, { maxLength: 5 }), fc.boolean(), (children, live) => {
      readOrRefused(readWebm, Buffer.concat([head, element('18538067', Buffer.concat(children), live)]));
    }),
    { numRuns: NUM_RUNS },
  );
});

test('a size is as long as it says, up to eight bytes', () => {
  for (let bytes = 2; bytes <= 8; bytes++) {
    const file = webmOf(CELT, {
      more: { tracks: Buffer.concat([Buffer.from('ec', 'hex'), sizeOf(3, bytes), Buffer.alloc(3)]) },
    });
    expect(readWebm(file).frames).toBe(ALL);
  }
});
