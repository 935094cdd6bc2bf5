// Test vectors of sealed bodies (docs/sealed.md, "Vectors"), valid and refused, for the server and for
// clients in any language: test/vectors/sealed/sealed-v1.json. Keys, ephemeral keys and nonces are fixed.
// HPKE here is that of @hpke/core, which no product code uses, so that the file does not only repeat our own
// code. First come the published examples. `npx tsx scripts/sealed-vectors.ts` writes it; a test compares.

import { createCipheriv, createHash, createPrivateKey, createPublicKey, type webcrypto } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Aes256Gcm, CipherSuite, DhkemX25519HkdfSha256, HkdfSha256 } from '@hpke/core';
import { encodeRequestHead, encodeResponseHead, type RequestHead } from '../attestation/sealed/bhttp.ts';
import { framed } from '../attestation/sealed/chunks.ts';
import type { SealingContext } from '../attestation/sealed/hpke.ts';
import { paddedLength } from '../attestation/sealed/padding.ts';
import {
  contentChunks,
  keyIdOf,
  requestDigest,
  requestHeader,
  requestInfo,
  sealInto,
} from '../attestation/sealed/request.ts';
import { chunkNonce } from '../attestation/sealed/nonce.ts';
import { responseKeys } from '../attestation/sealed/response.ts';
import { TOP } from '../image/top.ts';
import { anyVectors } from './sealed-vectors-any.ts';
import { BHTTP_REFUSED, DRAFT_EXAMPLE, RFC_9180_A1 } from './sealed-vectors-published.ts';

export const SEALED_VECTORS = join(TOP, 'test/vectors/sealed/sealed-v1.json');

const SUITE = new CipherSuite({
  kem: new DhkemX25519HkdfSha256(),
  kdf: new HkdfSha256(),
  aead: new Aes256Gcm(),
});

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}

function ascii(text: string): Uint8Array {
  return new Uint8Array(Buffer.from(text, 'latin1'));
}

/** A private key or a nonce that anyone can make again; it has no other use. */
function fixed(name: string): Uint8Array<ArrayBuffer> {
  return new Uint8Array(createHash('sha256').update(`assay sealed-v1 ${name}`).digest());
}

/** The X25519 public key of a raw private one (RFC 8410 §7 for the form Node reads). */
function publicOf(raw: Uint8Array): Uint8Array<ArrayBuffer> {
  const der = Buffer.concat([Buffer.from('302e020100300506032b656e04220420', 'hex'), raw]);
  const key = createPublicKey(createPrivateKey({ key: der, format: 'der', type: 'pkcs8' }));
  return new Uint8Array(Buffer.from(key.export({ format: 'jwk' }).x ?? '', 'base64url'));
}

async function pairOf(name: string): Promise<webcrypto.CryptoKeyPair> {
  const { kem } = SUITE;
  return {
    privateKey: await kem.importKey('raw', fixed(name).buffer, false),
    publicKey: await kem.importKey('raw', publicOf(fixed(name)).buffer, true),
  };
}

const RECIPIENT = publicOf(fixed('recipient'));

interface Vector {
  readonly name: string;
  readonly input: Readonly<Record<string, unknown>>;
  readonly expect: unknown;
}

function contextOf(ephemeral: string, header: Uint8Array): Promise<SealingContext> {
  return contextTo('recipient', ephemeral, requestInfo(header));
}

async function contextTo(recipient: string, ephemeral: string, info: Uint8Array): Promise<SealingContext> {
  const context = await SUITE.createSenderContext({
    recipientPublicKey: (await pairOf(recipient)).publicKey,
    info: info.slice().buffer,
    ekm: await pairOf(ephemeral),
  });
  const own = (bytes: Uint8Array): ArrayBuffer => new Uint8Array(bytes).buffer;
  return {
    enc: new Uint8Array(context.enc),
    seal: async (plaintext, aad) => new Uint8Array(await context.seal(own(plaintext), own(aad))),
    export: async (label, length) => new Uint8Array(await context.export(own(label), length)),
  };
}

const CHAT: RequestHead = {
  method: 'POST',
  path: '/v1/chat/completions',
  fields: [
    ['content-type', 'application/json'],
    ['authorization', 'Bearer sk-test'],
    ['assay-sealed-at', '1770000000'],
    ['assay-model', '11'.repeat(32)],
    ['content-length', '20'],
  ],
};
const BODY = ascii('{"model":"a","n":17}');
const MODELS: RequestHead = {
  method: 'GET',
  path: '/v1/models',
  fields: [['assay-sealed-at', '1770000000']],
};

async function requests(): Promise<Vector[]> {
  const header = requestHeader(keyIdOf(RECIPIENT));
  const seal = async (name: string, chunks: readonly Uint8Array[], by = header): Promise<Uint8Array> =>
    sealInto(await contextOf(name, by), by, chunks);
  const chat = [encodeRequestHead(CHAT), ...contentChunks(encodeRequestHead(CHAT).length, BODY)];
  const whole = await seal('ephemeral 1', chat);
  const get = await seal('ephemeral 2', [
    encodeRequestHead(MODELS),
    ...contentChunks(encodeRequestHead(MODELS).length, new Uint8Array(0)),
  ]);
  const opened = (head: RequestHead, body: Uint8Array, ephemeral: string): unknown => ({
    method: head.method,
    path: head.path,
    fields: head.fields,
    body: hex(body),
    digest: hex(requestDigest(RECIPIENT, publicOf(fixed(ephemeral)))),
  });
  const changed = (at: number): Uint8Array => {
    const bytes = Uint8Array.from(whole);
    bytes[at] = (bytes[at] ?? 0) ^ 1;
    return bytes;
  };
  const context = await contextOf('ephemeral 1', header);
  const head = framed(await context.seal(chat[0] ?? BODY, new Uint8Array(0)), false);
  // The content sealed as a chunk that is not the final one, then the end.
  const unfinished = Buffer.concat([
    header,
    context.enc,
    head,
    framed(await context.seal(chat[1] ?? BODY, new Uint8Array(0)), false),
  ]);
  const long = Buffer.concat([
    header,
    context.enc,
    Uint8Array.of(0x80, 0, (head.length - 2) >> 8, (head.length - 2) & 255),
    head.subarray(2),
    whole.subarray(39 + head.length),
  ]);
  const padded = Uint8Array.from(chat[1] ?? BODY);
  padded[padded.length - 1] = 1;
  const small = 39 + head.length;
  const rows: [string, Uint8Array, unknown][] = [
    ['a request with a body', whole, opened(CHAT, BODY, 'ephemeral 1')],
    ['a request without a body', get, opened(MODELS, new Uint8Array(0), 'ephemeral 2')],
    ['a length of four bytes', long, opened(CHAT, BODY, 'ephemeral 1')],
    ['another key id', changed(0), 'ohttp-key'],
    ['another KEM', changed(2), 'ohttp-key'],
    ['another KDF', changed(4), 'ohttp-key'],
    ['another AEAD', changed(6), 'ohttp-key'],
    ['another encapsulated key', changed(7), 'ohttp-key'],
    ['an encapsulated key of small order', Buffer.concat([whole.subarray(0, 7), Buffer.alloc(32), whole.subarray(39)]), 'ohttp-key'],
    ['the head changed', changed(60), 'ohttp-key'],
    ['the content changed', changed(small + 5), 'sealed_altered'],
    ['the last byte changed', changed(whole.length - 1), 'sealed_altered'],
    ['a byte behind the end', Buffer.concat([whole, Buffer.from([0])]), 'sealed_altered'],
    ['cut inside the header', whole.subarray(0, 20), 'ohttp-key'],
    ['cut inside the head', whole.subarray(0, 100), 'ohttp-key'],
    ['cut behind the head', whole.subarray(0, small), 'sealed_truncated'],
    ['no final chunk', unfinished, 'sealed_truncated'],
    ['padding that is not zeros', await seal('ephemeral 1', [chat[0] ?? BODY, padded]), 'sealed_malformed'],
    ['trailers', await seal('ephemeral 1', [chat[0] ?? BODY, Uint8Array.of(0, 1, 0x61)]), 'sealed_malformed'],
    ['content that is cut', await seal('ephemeral 1', [chat[0] ?? BODY, Uint8Array.of(9, 1)]), 'sealed_malformed'],
    ['head and body in one chunk', await seal('ephemeral 1', [Buffer.concat([chat[0] ?? BODY, Uint8Array.of(1, 1)]), Uint8Array.of(0)]), 'sealed_malformed'],
    ['the head split', await seal('ephemeral 1', [(chat[0] ?? BODY).subarray(0, 40), (chat[0] ?? BODY).subarray(40), Uint8Array.of(0)]), 'sealed_malformed'],
    ['the head is the final chunk', await seal('ephemeral 1', [chat[0] ?? BODY]), 'ohttp-key'],
    ['a chunk of 16 385 bytes', await seal('ephemeral 1', [chat[0] ?? BODY, new Uint8Array(16_385), Uint8Array.of(0)]), 'sealed_malformed'],
    ['an empty chunk that is not final', await seal('ephemeral 1', [chat[0] ?? BODY, new Uint8Array(0), Uint8Array.of(0)]), 'sealed_malformed'],
  ]; // prettier-ignore
  return rows.map(([name, bytes, expect]) => ({ name, input: { bytes: hex(bytes) }, expect }));
}

async function responses(): Promise<Vector[]> {
  const header = requestHeader(keyIdOf(RECIPIENT));
  const context = await contextOf('ephemeral 1', header);
  const responseNonce = fixed('response nonce');
  const secret = hex(await context.export(ascii('message/bhttp chunked response'), 32));
  const { key, nonce } = await responseKeys(context, context.enc, responseNonce);
  const head = encodeResponseHead({
    status: 200,
    fields: [
      ['content-type', 'text/event-stream; charset=utf-8'],
      ['x-request-id', 'req_1'],
    ],
  });
  const piece = (text: string): Uint8Array => Buffer.concat([Uint8Array.of(text.length), ascii(text)]);
  const chunks = [head, piece('data: 1\n\n'), piece('data: 2\n\n'), Uint8Array.of(0, 0)];
  const sealed = (plain: readonly Uint8Array[], finalAt = plain.length - 1): Buffer =>
    Buffer.concat([
      responseNonce,
      ...plain.map((chunk, i) => {
        const cipher = createCipheriv('aes-256-gcm', key, chunkNonce(nonce, i));
        cipher.setAAD(i === finalAt ? ascii('final') : new Uint8Array(0));
        const bytes = Buffer.concat([cipher.update(chunk), cipher.final(), cipher.getAuthTag()]);
        return framed(bytes, i === plain.length - 1);
      }),
    ]);
  const whole = sealed(chunks);
  const changed = (at: number): Buffer => {
    const bytes = Buffer.from(whole);
    bytes[at] = (bytes[at] ?? 0) ^ 1;
    return bytes;
  };
  const opened = {
    status: 200,
    fields: [
      ['content-type', 'text/event-stream; charset=utf-8'],
      ['x-request-id', 'req_1'],
    ],
    body: hex(ascii('data: 1\n\ndata: 2\n\n')),
  };
  const first = whole.subarray(0, 32 + 1 + head.length + 16);
  const second = whole.subarray(first.length, first.length + 1 + 10 + 16);
  const rest = whole.subarray(first.length + second.length);
  const rows: [string, Uint8Array, unknown][] = [
    ['a stream of two events', whole, opened],
    ['with padding', sealed([...chunks.slice(0, 3), Uint8Array.of(0, 0, 0, 0, 0)]), opened],
    ['another response nonce', changed(0), 'sealed_altered'],
    ['a chunk changed', changed(40), 'sealed_altered'],
    ['the end changed', changed(whole.length - 1), 'sealed_altered'],
    ['the final chunk sealed as another', sealed(chunks, -1), 'sealed_altered'],
    ['a chunk twice', Buffer.concat([first, second, second, rest]), 'sealed_altered'],
    ['a chunk left out', Buffer.concat([first, rest]), 'sealed_altered'],
    ['cut behind a chunk', Buffer.concat([first, second]), 'sealed_truncated'],
    ['cut inside the nonce', whole.subarray(0, 31), 'sealed_truncated'],
    ['no terminator', sealed([head, piece('data: 1\n\n')]), 'sealed_malformed'],
    ['padding that is not zeros', sealed([head, Uint8Array.of(0, 0, 1)]), 'sealed_malformed'],
    ['an informational status', sealed([Uint8Array.of(3, 0x40, 103, 0), Uint8Array.of(0, 0)]), 'sealed_malformed'],
  ]; // prettier-ignore
  return rows.map(([name, bytes, expect]) => ({
    name,
    input: { secret, enc: hex(context.enc), bytes: hex(bytes) },
    expect,
  }));
}

function fields(...list: readonly (readonly [string, string])[]): Uint8Array {
  return encodeRequestHead({ method: 'GET', path: '/v1/models', fields: list });
}

function bhttp(): Vector[] {
  return [
    { name: 'a head with padding', input: { head: hex(fields(['accept', '*/*'])) }, expect: { method: 'GET', path: '/v1/models', fields: [['accept', '*/*']] } },
    { name: 'indeterminate length', input: { head: hex(ascii('\x02\x03GET\x05https\x00\x0a/v1/models\x01a\x01b\x00')) }, expect: { method: 'GET', path: '/v1/models', fields: [['a', 'b']] } },
    ...BHTTP_REFUSED.map(([name, text]) => ({ name, input: { head: hex(ascii(text)) }, expect: 'sealed_malformed' })),
  ]; // prettier-ignore
}

/** Everything the file has; equal at every call. */
export async function sealedVectors(): Promise<Readonly<Record<string, unknown>>> {
  const sizes = [0, 1, 2048, 2049, 4096, 5000, 16_384, 100_000, 1_000_000, 16 * 1024 * 1024];
  return {
    version: 1,
    rfc9180: RFC_9180_A1,
    draft_example: DRAFT_EXAMPLE,
    recipient: {
      private_key: hex(fixed('recipient')),
      public_key: hex(RECIPIENT),
      key_id: keyIdOf(RECIPIENT),
    },
    ephemeral: {
      'ephemeral 1': hex(fixed('ephemeral 1')),
      'ephemeral 2': hex(fixed('ephemeral 2')),
      'ephemeral 3': hex(fixed('ephemeral 3')),
    },
    padding: sizes.map((length) => ({ length, padded: paddedLength(length) })),
    bhttp: bhttp(),
    requests: await requests(),
    responses: await responses(),
    one_time: hex(fixed('one-time')),
    sealed_any: await anyVectors(
      { privateOf: fixed, publicOf: (name) => publicOf(fixed(name)), contextTo },
      { ...CHAT, fields: CHAT.fields.filter(([name]) => name !== 'assay-sealed-at') },
      BODY,
    ),
  };
}

if (process.argv[1] === fileURLToPath(import.meta.url))
  writeFileSync(SEALED_VECTORS, `${JSON.stringify(await sealedVectors(), undefined, 1)}\n`);
