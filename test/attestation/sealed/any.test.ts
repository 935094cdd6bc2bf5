// A request for several replicas as bytes (docs/sealed.md §8 [B18]): each listed replica opens it, no other
// does, and every byte of the list counts.

import { describe, expect, test } from 'vitest';
import { keyHintOf, openAny, sealToAny, sealToAnyBy } from '../../../attestation/sealed/any.ts';
import { concatBytes, toHex, utf8 } from '../../../attestation/encoding/bytes.ts';
import { decodeRequestHead } from '../../../attestation/sealed/bhttp.ts';
import { ByteReader } from '../../../attestation/sealed/chunks.ts';
import { generateRecipient, type RecipientKey } from '../../../attestation/sealed/hpke.ts';
import { KEM, type Kem } from '../../../attestation/sealed/kem.ts';
import { generateOneTime } from '../../../attestation/sealed/one-time.ts';
import { requestDigest, sealRequest } from '../../../attestation/sealed/request.ts';
import { AttestationError } from '../../../attestation/transcript/errors.ts';

const HEAD = { method: 'POST', path: '/v1/chat/completions', fields: [] };
const BODY = utf8('{"model":"a"}');
const WRAP_BYTES = 8 + 32 + 56;

async function* source(bytes: Uint8Array): AsyncGenerator<Uint8Array, void> {
  for (let at = 0; at < bytes.length; at += 97) yield bytes.subarray(at, at + 97);
}

/** As the server reads it with these keys: path and time, or a refusal. */
async function opened(bytes: Uint8Array, keys: readonly RecipientKey[]): Promise<unknown> {
  const keyOf = (hint: Uint8Array, kem: Kem): RecipientKey | undefined =>
    keys.find((key) => key.kem === kem && toHex(keyHintOf(key.publicKey)) === toHex(hint));
  try {
    const { first, sealedAt } = await openAny(new ByteReader(source(bytes)), keyOf);
    return [decodeRequestHead(first).head.path, sealedAt];
  } catch (error) {
    if (error instanceof AttestationError) return 'refused';
    throw error;
  }
}

const keys = await Promise.all(Array.from({ length: 9 }, () => generateRecipient()));
const listed = keys.slice(0, 3);
const replicas = listed.map(({ publicKey }, i) => ({ publicKey, sealedAt: 1000 + i }));
const whole = (await sealToAny(replicas, HEAD, BODY)).bytes;

/** The parts of a request: 4 bytes, the wraps, the request inside. */
function partsOf(bytes: Uint8Array): {
  readonly start: Uint8Array;
  readonly wraps: readonly Uint8Array[];
  readonly inner: Uint8Array;
} {
  const count = bytes[3] ?? 0;
  return {
    start: bytes.subarray(0, 4),
    wraps: Array.from({ length: count }, (_, i) =>
      bytes.subarray(4 + i * WRAP_BYTES, 4 + (i + 1) * WRAP_BYTES),
    ),
    inner: bytes.subarray(4 + count * WRAP_BYTES),
  };
}

describe('[B18] who opens', () => {
  test('each listed replica, at its own time', async () => {
    for (const [i, key] of listed.entries())
      expect(await opened(whole, [key])).toEqual(['/v1/chat/completions', 1000 + i]);
  });

  test('no other', async () => {
    expect(await opened(whole, keys.slice(3))).toBe('refused');
  });

  test('one to eight replicas, each once', async () => {
    const all = keys.map(({ publicKey }) => ({ publicKey, sealedAt: 1 }));
    for (const count of [1, 8]) {
      const { bytes } = await sealToAny(all.slice(0, count), HEAD, BODY);
      expect(await opened(bytes, keys.slice(count - 1, count))).toEqual(['/v1/chat/completions', 1]);
    }
    const refused = { code: 'sealed_malformed' };
    for (const wrong of [[], all, [all[0]!, all[1]!, all[0]!]])
      await expect(sealToAny(wrong, HEAD, BODY)).rejects.toMatchObject(refused);
  });

  test('a request is known by its one-time key, however it is wrapped', async () => {
    const oneTime = await generateOneTime(KEM.x25519);
    const first = await sealToAnyBy(oneTime, replicas.slice(0, 1), HEAD, BODY);
    expect(toHex(first.digest)).toBe(toHex(requestDigest(oneTime.publicKey, first.context.enc)));
  });
});

describe('[B18] the set is authenticated', () => {
  const { start, wraps, inner } = partsOf(whole);
  const count = (value: number): Uint8Array => Uint8Array.of(start[0]!, start[1]!, start[2]!, value);
  const [own, second, third] = wraps;
  const foreign = sealToAny([{ publicKey: keys[5]!.publicKey, sealedAt: 1 }], HEAD, BODY);
  test.each<[string, () => Promise<Uint8Array> | Uint8Array]>([
    ['a replica left out', () => concatBytes(count(2), own!, second!, inner)],
    ['two replicas exchanged', () => concatBytes(start, own!, third!, second!, inner)],
    ['a replica added', async () => concatBytes(count(4), own!, second!, third!, partsOf((await foreign).bytes).wraps[0]!, inner)],
    ['a replica twice', () => concatBytes(count(4), own!, second!, third!, second!, inner)],
    ['mine twice', () => concatBytes(count(4), own!, second!, third!, own!, inner)],
    ['none', () => concatBytes(count(0), inner)],
    ['nine', () => concatBytes(count(9), ...Array.from({ length: 3 }, () => wraps).flat(), inner)],
    ['another version', () => Uint8Array.from(whole, (byte, i) => (i === 0 ? 2 : byte))],
    ['another KEM', () => Uint8Array.from(whole, (byte, i) => (i === 2 ? 0x21 : byte))],
    ['the KEM of X-Wing', () => Uint8Array.of(1, 0x64, 0x7a, ...whole.subarray(3))],
    ['the request of another list inside', async () => concatBytes(start, ...wraps, partsOf((await foreign).bytes).inner)],
    ['a request sealed to the replica inside', async () => concatBytes(start, ...wraps, (await sealRequest(listed[0]!.publicKey, HEAD, BODY)).bytes)],
    ['another id inside', () => Uint8Array.from(whole, (byte, i) => (i === 4 + 3 * WRAP_BYTES ? 1 : byte))],
    ['another KEM inside', () => Uint8Array.from(whole, (byte, i) => (i === 4 + 3 * WRAP_BYTES + 2 ? 0x21 : byte))],
    ['another key in the wrap of mine', async () => concatBytes(start, own!.subarray(0, 8), partsOf((await foreign).bytes).wraps[0]!.subarray(8), second!, third!, inner)],
  ])('%s', async (_, make) => {
    expect(await opened(await make(), [listed[0]!])).toBe('refused');
  }); // prettier-ignore

  test('a hint of another replica, changed by any bit', async () => {
    for (let bit = 0; bit < 64; bit++) {
      const at = 4 + WRAP_BYTES + (bit >> 3);
      const changed = Uint8Array.from(whole, (byte, i) => (i === at ? byte ^ (1 << (bit & 7)) : byte));
      expect(await opened(changed, [listed[0]!]), String(bit)).toBe('refused');
    }
  });

  test('every byte of its own wrap, and a cut at any', async () => {
    for (let at = 0; at < 4 + WRAP_BYTES; at++) {
      const changed = Uint8Array.from(whole, (byte, i) => (i === at ? byte ^ 1 : byte));
      expect(await opened(changed, [listed[0]!]), String(at)).toBe('refused');
    }
    for (let length = 0; length < 4 + 3 * WRAP_BYTES + 39; length++)
      expect(await opened(whole.subarray(0, length), [listed[0]!]), String(length)).toBe('refused');
  });

  test('what belongs to the other replicas alone is theirs: it opens here whatever it is', async () => {
    const changed = Uint8Array.from(whole, (byte, i) => (i === 4 + 2 * WRAP_BYTES - 1 ? byte ^ 1 : byte));
    expect(await opened(changed, [listed[0]!])).toEqual(['/v1/chat/completions', 1000]);
    expect(await opened(changed, [listed[1]!])).toBe('refused');
  });
});
