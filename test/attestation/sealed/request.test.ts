// Requests and responses from one end to the other, and with @hpke/core as the other end (docs/sealed.md §4):
// what our own code seals and opens is not only consistent with itself.

import { Aes256Gcm, CipherSuite, DhkemX25519HkdfSha256, HkdfSha256 } from '@hpke/core';
import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { concatBytes, toHex, utf8 } from '../../../attestation/encoding/bytes.ts';
import { ContentReader, decodeRequestHead, type HttpField } from '../../../attestation/sealed/bhttp.ts';
import { AAD, ByteReader, nextChunk } from '../../../attestation/sealed/chunks.ts';
import { generateRecipient, sendTo } from '../../../attestation/sealed/hpke.ts';
import { isUsablePoint } from '../../../attestation/sealed/points.ts';
import { openRequest, requestInfo, sealRequest } from '../../../attestation/sealed/request.ts';

const names = fc.stringMatching(/^[a-z][a-z0-9-]{0,20}$/).filter((name) => !/^(host|te|trailer|expect|upgrade|cookie|forwarded|connection|keep-alive|transfer-encoding|x-real-ip|assay-pad)$|^(proxy-|x-forwarded-)/.test(name)); // prettier-ignore
const values = fc.stringMatching(/^[!-~]([ -~]{0,40}[!-~])?$/);
const heads = fc.record({
  method: fc.constantFrom('GET', 'POST', 'DELETE'),
  path: fc.stringMatching(/^\/[a-z0-9/_.?=&%-]{0,200}$/),
  fields: fc.uniqueArray(fc.tuple(names, values) as fc.Arbitrary<HttpField>, {
    maxLength: 20,
    selector: ([name]) => name,
  }),
});

async function* inPieces(bytes: Uint8Array, size: number): AsyncGenerator<Uint8Array, void> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

test('what was sealed opens: head, content, and its size is padded [B5]', async () => {
  const key = await generateRecipient();
  await fc.assert(
    fc.asyncProperty(
      heads,
      fc.uint8Array({ maxLength: 70_000 }),
      fc.integer({ min: 1, max: 40_000 }),
      async (head, content, size) => {
        const sealed = await sealRequest(key.publicKey, head, content);
        const reader = new ByteReader(inPieces(sealed.bytes, size));
        const opened = await openRequest(reader, () => key);
        expect(opened.first.length % 1024).toBe(0);
        const read = decodeRequestHead(opened.first);
        expect(read.head).toEqual(head);
        expect(opened.digest).toEqual(sealed.digest);
        const body = new ContentReader(read.indeterminate);
        const pieces: Uint8Array[] = [];
        for (let final = false; !final;) {
          const chunk = await nextChunk(reader);
          ({ final } = chunk);
          pieces.push(...body.push(await opened.context.open(chunk.sealed, final ? AAD.final : AAD.chunk)));
        }
        body.end();
        expect(toHex(concatBytes(...pieces))).toBe(toHex(content));
      },
    ),
    { numRuns: 30 },
  );
});

test('equal size for routes whose heads differ [B5]', async () => {
  const key = await generateRecipient();
  const sizes = await Promise.all(
    ['/v1/models', '/v1/chat/completions', `/v1/files/${'a'.repeat(200)}`].map(
      async (path) =>
        (await sealRequest(key.publicKey, { method: 'POST', path, fields: [] }, utf8('{}'))).bytes.length,
    ),
  );
  expect(new Set(sizes).size).toBe(1);
});

test('@hpke/core opens what was sealed, and seals what is opened [B4]', async () => {
  const suite = new CipherSuite({
    kem: new DhkemX25519HkdfSha256(),
    kdf: new HkdfSha256(),
    aead: new Aes256Gcm(),
  });
  const buffer = (bytes: Uint8Array): ArrayBuffer => new Uint8Array(bytes).buffer;
  const pair = await suite.kem.generateKeyPair();
  const publicKey = new Uint8Array(await suite.kem.serializePublicKey(pair.publicKey));
  const sealed = await sealRequest(publicKey, { method: 'GET', path: '/', fields: [] }, new Uint8Array(0));
  const reader = new ByteReader(inPieces(sealed.bytes, 100));
  const header = (await reader.take(7))!.slice();
  const enc = (await reader.take(32))!.slice();
  const peer = await suite.createRecipientContext({
    recipientKey: pair,
    enc: buffer(enc),
    info: buffer(requestInfo(header)),
  });
  const first = await nextChunk(reader);
  expect(decodeRequestHead(new Uint8Array(await peer.open(buffer(first.sealed), buffer(AAD.chunk)))).head.path).toBe('/'); // prettier-ignore
  const label = utf8('message/bhttp chunked response');
  expect(new Uint8Array(await peer.export(buffer(label), 32))).toEqual(
    await sealed.context.export(label, 32),
  );
});

test('labels and ids are part of the key: another info opens nothing [B4]', async () => {
  const key = await generateRecipient();
  const info = requestInfo(Uint8Array.of(1, 0, 0x20, 0, 1, 0, 2));
  for (let at = 0; at < info.length; at++) {
    const other = Uint8Array.from(info);
    other[at] = (other[at] ?? 0) ^ 1;
    const sender = await sendTo(key.publicKey, other);
    const context = await key.receive(sender.enc, info);
    await expect(
      context.open(await sender.seal(utf8('a'), AAD.chunk), AAD.chunk),
      String(at),
    ).rejects.toThrow();
  }
});

test('points of small order are no keys, whatever their ignored bit [B1]', () => {
  const zero = new Uint8Array(32);
  const one = Uint8Array.from(zero, (_, i) => Number(i === 0));
  const high = Uint8Array.from(one, (byte, i) => (i === 31 ? 0x80 : byte));
  for (const point of [zero, one, high, new Uint8Array(31)]) expect(isUsablePoint(point)).toBe(false);
  expect(isUsablePoint(Uint8Array.from(zero, (_, i) => Number(i === 0) * 9))).toBe(true);
});
