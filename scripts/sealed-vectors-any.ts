// The part of sealed-v1.json for several replicas (docs/sealed.md §8): what a listed replica opens, and what
// none does. Its wraps are made by hand here, by the HPKE that sealed-vectors.ts gives.

import { concatBytes, toHex, utf8 } from '../attestation/encoding/bytes.ts';
import { keyHintOf } from '../attestation/sealed/any.ts';
import { encodeRequestHead, type RequestHead } from '../attestation/sealed/bhttp.ts';
import { type SealingContext } from '../attestation/sealed/hpke.ts';
import { KEM } from '../attestation/sealed/kem.ts';
import {
  contentChunks,
  requestDigest,
  requestHeader,
  requestInfo,
  sealInto,
} from '../attestation/sealed/request.ts';

/** A private key of the file, by its name. */
export interface AnyKeys {
  readonly privateOf: (name: string) => Uint8Array;
  readonly publicOf: (name: string) => Uint8Array;
  readonly contextTo: (recipient: string, ephemeral: string, info: Uint8Array) => Promise<SealingContext>;
}

const INFO = utf8('assay/sealed-any/v1');
const AT = 1_770_000_000;

function start(count: number, version = 1, kem: number = KEM.x25519): Uint8Array {
  return Uint8Array.of(version, kem >> 8, kem & 255, count);
}

/** Private key of the one-time recipient, and the time as eight bytes. */
function wrapped(keys: AnyKeys, seconds: number): Uint8Array {
  const time = new Uint8Array(8);
  new DataView(time.buffer).setUint32(4, seconds);
  return concatBytes(keys.privateOf('one-time'), time);
}

export async function anyVectors(
  keys: AnyKeys,
  head: RequestHead,
  body: Uint8Array,
): Promise<readonly unknown[]> {
  const replicas = ['recipient', 'replica 2', 'replica 3'];
  const hints = replicas.map((name) => keyHintOf(keys.publicOf(name)));
  const inner = async (keyId: number, kem = requestHeader(keyId)): Promise<Uint8Array> => {
    const context = await keys.contextTo('one-time', 'ephemeral 3', requestInfo(kem));
    const first = encodeRequestHead(head);
    return sealInto(context, kem, [first, ...contentChunks(first.length, body)]);
  };
  const wrapFor = async (name: string, aad: Uint8Array, at = AT): Promise<Uint8Array> => {
    const context = await keys.contextTo(name, `wrap ${name}`, INFO);
    const sealed = await context.seal(wrapped(keys, at), aad);
    return concatBytes(keyHintOf(keys.publicOf(name)), context.enc, sealed);
  };
  const aad = concatBytes(start(3), ...hints);
  const wraps = await Promise.all(replicas.map((name, i) => wrapFor(name, aad, AT + i)));
  const request = await inner(0);
  const whole = concatBytes(start(3), ...wraps, request);
  const digest = requestDigest(keys.publicOf('one-time'), keys.publicOf('ephemeral 3'));
  const opened = (at: number): unknown => ({
    method: head.method,
    path: head.path,
    fields: head.fields,
    body: toHex(body),
    digest: toHex(digest),
    sealed_at: at,
  });
  const changed = (at: number, bytes = whole): Uint8Array =>
    Uint8Array.from(bytes, (byte, i) => (i === at ? byte ^ 1 : byte));
  const wrapBytes = wraps[0]?.length ?? 0;
  const alone = concatBytes(start(1), hints[0] ?? new Uint8Array(0));
  const one = async (bytes: Uint8Array): Promise<Uint8Array> =>
    concatBytes(start(1), await wrapFor('recipient', alone), bytes);
  const times = (count: number): Uint8Array[] => Array.from({ length: count }, () => wraps).flat();
  const rows: [string, string, Uint8Array, unknown][] = [
    ['the first replica', 'recipient', whole, opened(AT)],
    ['the third replica', 'replica 3', whole, opened(AT + 2)],
    ['one replica alone', 'recipient', await one(request), opened(AT)],
    ['a replica that is not listed', 'replica 4', whole, 'ohttp-key'],
    ['another version', 'recipient', changed(0), 'ohttp-key'],
    ['another KEM', 'recipient', changed(2), 'ohttp-key'],
    ['none', 'recipient', concatBytes(start(0), request), 'ohttp-key'],
    ['nine', 'recipient', concatBytes(start(9), ...times(3), request), 'ohttp-key'],
    ['a replica added', 'recipient', concatBytes(start(4), ...wraps, await wrapFor('replica 4', aad), request), 'ohttp-key'],
    ['a replica left out', 'recipient', concatBytes(start(2), ...wraps.slice(0, 2), request), 'ohttp-key'],
    ['a replica twice', 'recipient', concatBytes(start(4), ...wraps, ...wraps.slice(1, 2), request), 'ohttp-key'],
    ['the hint of another replica changed', 'recipient', changed(4 + wrapBytes), 'ohttp-key'],
    ['its own hint changed', 'recipient', changed(4), 'ohttp-key'],
    ['its encapsulated key changed', 'recipient', changed(4 + 8), 'ohttp-key'],
    ['its wrap changed', 'recipient', changed(4 + wrapBytes - 1), 'ohttp-key'],
    ['the wrap of another replica changed', 'recipient', changed(4 + 2 * wrapBytes - 1), opened(AT)],
    ['another key id inside', 'recipient', await one(await inner(1)), 'ohttp-key'],
    ['another KEM inside', 'recipient', await one(await inner(0, requestHeader(0, KEM.xWing))), 'ohttp-key'],
    ['the content changed', 'recipient', changed(whole.length - 1), 'sealed_altered'],
    ['cut inside the wraps', 'recipient', whole.subarray(0, 150), 'ohttp-key'],
    ['cut behind the wraps', 'recipient', whole.subarray(0, 4 + 3 * wrapBytes), 'ohttp-key'],
  ]; // prettier-ignore
  return rows.map(([name, by, bytes, expect]) => ({
    name,
    input: {
      private_key: toHex(keys.privateOf(by)),
      public_key: toHex(keys.publicOf(by)),
      hint: toHex(keyHintOf(keys.publicOf(by))),
      bytes: toHex(bytes),
    },
    expect,
  }));
}
