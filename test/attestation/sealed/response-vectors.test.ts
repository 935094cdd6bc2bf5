// sealed-v1.json as this implementation reads it (docs/sealed.md, "Vectors"): the published examples first,
// then Binary HTTP, requests and responses, accepted and refused.

import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { fromHex, toHex, concatBytes } from '../../../attestation/encoding/bytes.ts';
import { ContentReader, decodeRequestHead } from '../../../attestation/sealed/bhttp.ts';
import { AAD, ByteReader, nextChunk } from '../../../attestation/sealed/chunks.ts';
import { importRecipient, type RecipientKey } from '../../../attestation/sealed/hpke.ts';
import { KEM } from '../../../attestation/sealed/kem.ts';
import { paddedLength } from '../../../attestation/sealed/padding.ts';
import { keyIdOf, openRequest, requestHeader, requestInfo } from '../../../attestation/sealed/request.ts';
import { openResponse } from '../../../attestation/sealed/response.ts';
import { AttestationError } from '../../../attestation/transcript/errors.ts';
import { runSealedVectors, type SealedVectorFile } from '../../fixtures/attestation/sealed-vector-run.ts';
import { SEALED_VECTORS, sealedVectors } from '../../../scripts/sealed-vectors.ts';
import type { DRAFT_EXAMPLE, RFC_9180_A1 } from '../../../scripts/sealed-vectors-published.ts';

interface Case {
  readonly name: string;
  readonly input: Readonly<Record<string, string>>;
  readonly expect: unknown;
}
interface Vectors {
  readonly rfc9180: typeof RFC_9180_A1;
  readonly draft_example: typeof DRAFT_EXAMPLE;
  readonly recipient: { readonly private_key: string; readonly public_key: string; readonly key_id: number };
  readonly padding: readonly { readonly length: number; readonly padded: number }[];
  readonly bhttp: readonly Case[];
  readonly requests: readonly Case[];
  readonly responses: readonly Case[];
}
const vectors = JSON.parse(readFileSync(SEALED_VECTORS, 'utf8')) as Vectors;

async function* inPieces(bytes: Uint8Array, size = bytes.length): AsyncGenerator<Uint8Array, void> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

/** The value, or the code of its refusal. */
async function outcome(work: () => Promise<unknown>): Promise<unknown> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof AttestationError) return error.code;
    throw error;
  }
}

const { recipient } = vectors;
const key: RecipientKey = await importRecipient(fromHex(recipient.private_key));

/** As the server reads a request: one answer to whatever is wrong up to the first chunk. */
async function readRequest(bytes: Uint8Array, pieces?: number): Promise<unknown> {
  const reader = new ByteReader(inPieces(bytes, pieces));
  const opened = await openRequest(reader, (id) => (id === recipient.key_id ? key : undefined)).catch(
    () => undefined,
  );
  if (opened === undefined) return 'ohttp-key';
  return outcome(async () => {
    const { head, indeterminate } = decodeRequestHead(opened.first);
    const content = new ContentReader(indeterminate);
    const body: Uint8Array[] = [];
    for (;;) {
      const { sealed, final } = await nextChunk(reader);
      body.push(...content.push(await opened.context.open(sealed, final ? AAD.final : AAD.chunk)));
      if (final) break;
    }
    content.end();
    return { ...head, body: toHex(concatBytes(...body)), digest: toHex(opened.digest) };
  });
}

async function readResponse(
  { secret = '', enc = '' }: Readonly<Record<string, string>>,
  bytes: Uint8Array,
  pieces?: number,
): Promise<unknown> {
  const context = { enc: fromHex(enc), export: async () => fromHex(secret) };
  return outcome(async () => {
    const { status, fields, content } = await openResponse(context, inPieces(bytes, pieces));
    const body: Uint8Array[] = [];
    for await (const piece of content) body.push(piece);
    return { status, fields, body: toHex(concatBytes(...body)) };
  });
}

test('the file is what its generator makes [B22]', async () => {
  expect(vectors).toEqual(JSON.parse(JSON.stringify(await sealedVectors())));
});

describe('published examples [B4]', () => {
  test('RFC 9180 A.1.1: each chunk, and the exported secret', async () => {
    const { rfc9180 } = vectors;
    const pair = await importRecipient(fromHex(rfc9180.private_key), { aead: rfc9180.aead });
    expect(toHex(pair.publicKey)).toBe(rfc9180.public_key);
    const context = await pair.receive(fromHex(rfc9180.enc), fromHex(rfc9180.info));
    for (const { aad, sealed } of rfc9180.chunks)
      expect(toHex(await context.open(fromHex(sealed), fromHex(aad)))).toBe(rfc9180.plaintext);
    for (const { context: label, length, value } of rfc9180.exports)
      expect(toHex(await context.export(fromHex(label), length))).toBe(value);
  });

  test('the example of chunked OHTTP: request and response', async () => {
    const { draft_example: draft } = vectors;
    const pair = await importRecipient(fromHex(draft.private_key), { aead: draft.aead });
    expect(toHex(pair.publicKey)).toBe(draft.public_key);
    const reader = new ByteReader(inPieces(fromHex(draft.sealed_request)));
    const header = await reader.take(7);
    const enc = (await reader.take(32))!.slice();
    expect(header).toEqual(requestHeader(draft.key_id, KEM.x25519, 1));
    const context = await pair.receive(enc, requestInfo(header!));
    const opened: Uint8Array[] = [];
    for (let final = false; !final;) {
      const chunk = await nextChunk(reader);
      ({ final } = chunk);
      opened.push(await context.open(chunk.sealed, final ? AAD.final : AAD.chunk));
    }
    expect(toHex(concatBytes(...opened))).toBe(draft.request);
    const response = await openResponse(
      { enc, export: context.export },
      inPieces(fromHex(draft.sealed_response)),
      16,
    );
    expect(response).toMatchObject({ status: 200, fields: [] });
    for await (const piece of response.content) expect.fail(`content of ${piece.length} bytes`);
  });
});

describe('the whole file, as every client runs it [B22]', () => {
  const file = JSON.parse(readFileSync(SEALED_VECTORS, 'utf8')) as SealedVectorFile;

  test.each([1, 7, 1000])('in pieces of %s bytes', async (size) => {
    const { ran, failed } = await runSealedVectors(file, size);
    expect(failed).toEqual([]);
    expect(ran).toBeGreaterThan(100);
  });

  test.each(['bhttp', 'requests', 'responses', 'sealed_any'] as const)('one wrong expectation of %s fails', async (group) => {
    for (const at of [0, file[group].length - 1]) {
      const changed = { ...file, [group]: file[group].map((each, i) => (i === at ? { ...each, expect: 'sealed_clock' } : each)) };
      const { failed } = await runSealedVectors(changed);
      expect(failed).toEqual([expect.stringContaining(file[group][at]!.name)]);
    }
  }); // prettier-ignore
});

test('key ids and padded sizes', () => {
  expect(keyIdOf(fromHex(recipient.public_key))).toBe(recipient.key_id);
  for (const { length, padded } of vectors.padding) {
    expect(paddedLength(length), String(length)).toBe(padded);
    expect(padded).toBeGreaterThanOrEqual(length);
    if (length > 2048) expect(padded).toBeLessThanOrEqual(length * 1.12);
  }
});

test.each(vectors.bhttp)('Binary HTTP: $name [B5]', async ({ input, expect: expected }) => {
  const read = await outcome(async () => decodeRequestHead(fromHex(input['head'] ?? '')).head);
  expect(read).toEqual(expected);
});

describe.each([undefined, 1, 7])('in pieces of %s bytes', (pieces) => {
  test.each(vectors.requests)('request: $name [B6]', async ({ input, expect: expected }) => {
    expect(await readRequest(fromHex(input['bytes'] ?? ''), pieces)).toEqual(expected);
  });

  test.each(vectors.responses)('response: $name [B7]', async ({ input, expect: expected }) => {
    expect(await readResponse(input, fromHex(input['bytes'] ?? ''), pieces)).toEqual(expected);
  });
});

test('a response that is cut at any byte has no end [B8]', async () => {
  const [whole] = vectors.responses;
  const bytes = fromHex(whole?.input['bytes'] ?? '');
  for (let length = 0; length < bytes.length; length++)
    expect(await readResponse(whole?.input ?? {}, bytes.subarray(0, length)), String(length)).toMatch(
      /^sealed_(truncated|altered)$/,
    );
});

test('every bit of a response and of a request counts [B7]', async () => {
  const [answer] = vectors.responses;
  const response = fromHex(answer?.input['bytes'] ?? '');
  for (let bit = 0; bit < response.length * 8; bit++) {
    const changed = Uint8Array.from(response);
    changed[bit >> 3] = (changed[bit >> 3] ?? 0) ^ (1 << (bit & 7));
    expect(typeof (await readResponse(answer?.input ?? {}, changed)), String(bit)).toBe('string');
  }
  const request = fromHex(vectors.requests[0]?.input['bytes'] ?? '');
  for (let bit = 0; bit < request.length * 8; bit += bit < 64 * 8 ? 1 : 61) {
    const changed = Uint8Array.from(request);
    changed[bit >> 3] = (changed[bit >> 3] ?? 0) ^ (1 << (bit & 7));
    expect(typeof (await readRequest(changed)), String(bit)).toBe('string');
  }
});

test('a request cut at any byte is not whole [B6]', async () => {
  const request = fromHex(vectors.requests[0]?.input['bytes'] ?? '');
  for (let length = 0; length < request.length; length += length < 60 ? 1 : 37)
    expect(typeof (await readRequest(request.subarray(0, length))), String(length)).toBe('string');
});
