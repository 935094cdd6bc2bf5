// The X-Wing suite where there is no ML-KEM, and its list of keys (docs/sealed.md §2 [B17]): refused, never
// another suite in its place. What needs ML-KEM is in hpke-x-wing-suite.test.ts, which a Node.js that has it
// runs from here.

import { execFile } from 'node:child_process';
import { generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { describe, expect, test } from 'vitest';
import { encodeCbor } from '../../../attestation/encoding/cbor.ts';
import { KEM } from '../../../attestation/sealed/kem.ts';
import { encodeKeyList, openKeyList } from '../../../attestation/receipts/key-list.ts';
import { xWingKeyIdOf } from '../../../attestation/sealed/request.ts';
import { encodeSign1, signedBytesOf } from '../../../attestation/receipts/cose.ts';
import { rawPublicKey } from '../../../src/attester/identity.ts';
import { SEALED_POLICY, sealedClient, startGuest } from '../../fixtures/attestation/sealed-guest.ts';
import { HAVE_ML_KEM, mlKemNode } from '../../fixtures/ml-kem/node.ts';
import { refusalOf } from '../../fixtures/refusal.ts';

const CLAIM_7 = new Uint8Array(32).fill(9);
/** 1216 bytes with a point that can be used at their end. */
const X_WING = new Uint8Array(1216).fill(7);
const { privateKey } = generateKeyPairSync('ed25519');
const RECEIPT_KEY = rawPublicKey(privateKey);

function signer(key: KeyObject = privateKey): (bytes: Uint8Array) => Uint8Array {
  return (bytes) => new Uint8Array(sign(null, bytes, key));
}

/** A list with another payload, signed by the right key. */
function signedPayload(entries: readonly (readonly [number, string | number | Uint8Array])[]): Uint8Array {
  const form = { name: 'a list', contentType: 'application/vnd.assay.sealed-keys+cbor', maxBytes: 4096 };
  const payload = encodeCbor(new Map(entries));
  return encodeSign1(form, { payload, signature: signer()(signedBytesOf(form, payload)) });
}

describe('[B17] the list of keys', () => {
  const list = encodeKeyList(CLAIM_7, X_WING, signer());
  const id = xWingKeyIdOf(CLAIM_7);
  const name = 'assay/sealed-keys/v1';

  test('is signed by claim 6, and shows both keys', async () => {
    expect(await openKeyList(list, RECEIPT_KEY)).toEqual({ claim7: CLAIM_7, xWingKey: X_WING });
    expect(id).toBeGreaterThanOrEqual(128);
  });

  test.each<[string, Uint8Array]>([
    ['of another boot', encodeKeyList(CLAIM_7, X_WING, signer(generateKeyPairSync('ed25519').privateKey))],
    ['unsigned', encodeKeyList(CLAIM_7, X_WING, () => new Uint8Array(64))],
    ['empty', new Uint8Array(0)],
    ['with a byte more', Uint8Array.from([...list, 0])],
    ['of another name', signedPayload([[0, 'assay/sealed-keys/v2'], [1, CLAIM_7], [2, id], [3, X_WING]])],
    ['with another id', signedPayload([[0, name], [1, CLAIM_7], [2, id - 128], [3, X_WING]])],
    ['stripped of the X-Wing key', signedPayload([[0, name], [1, CLAIM_7], [2, id]])],
    ['with X25519 in the place of X-Wing', signedPayload([[0, name], [1, CLAIM_7], [2, id], [3, CLAIM_7]])],
    ['with a key more', signedPayload([[0, name], [1, CLAIM_7], [2, id], [3, X_WING], [4, X_WING]])],
  ])('%s is refused', async (_, bytes) => {
    await expect(openKeyList(bytes, RECEIPT_KEY)).rejects.toMatchObject({ code: 'sealed_keys' });
  }); // prettier-ignore

  test('changed in any byte, or cut, is refused', async () => {
    for (let at = 0; at < list.length; at += at < 200 || at > list.length - 70 ? 1 : 41) {
      const changed = Uint8Array.from(list, (byte, i) => (i === at ? byte ^ 1 : byte));
      expect((await refusalOf(() => openKeyList(changed, RECEIPT_KEY)))?.code, String(at)).toBe(
        'sealed_keys',
      );
      expect((await refusalOf(() => openKeyList(list.subarray(0, at), RECEIPT_KEY)))?.code).toBe(
        'sealed_keys',
      );
    }
  });
});

test('[B17] a server without X-Wing is refused by a client that requires it, and gets nothing sealed', async () => {
  const guest = await startGuest();
  try {
    const client = sealedClient(() => guest.url, { policy: SEALED_POLICY, postQuantum: 'require' });
    const refused = await refusalOf(() => client.fetch('https://sealed.example/v1/models'));
    expect([refused?.code, client.sealed()]).toEqual(['sealed_unsupported', []]);
    expect(client.seen.map(({ path }) => path)).toEqual(['/v1/attestation', '/v1/sealed/keys']);
  } finally {
    await guest.close();
  }
});

describe.skipIf(HAVE_ML_KEM)('without ML-KEM [B17]', () => {
  test('a server with the switch on does not start', async () => {
    const sealed = { postQuantum: true };
    await expect(startGuest({ sealed })).rejects.toMatchObject({ code: 'sealed_unsupported' });
  });

  test('a client that requires X-Wing seals nothing, even to a key that is proven', async () => {
    const guest = await startGuest({ receiptKey: RECEIPT_KEY });
    try {
      const client = sealedClient(() => guest.url, { postQuantum: 'require' });
      client.between = (path, _init, pass) => {
        if (path !== '/v1/sealed/keys') return pass();
        return new Response(encodeKeyList(guest.sealed.keys.current(), X_WING, signer()) as BodyInit);
      };
      const refused = await refusalOf(() => client.fetch('https://sealed.example/v1/models'));
      expect([refused?.code, client.sealed()]).toEqual(['sealed_unsupported', []]);
    } finally {
      await guest.close();
    }
  });
});

test('X25519 is what is used where nothing is required', async () => {
  const guest = await startGuest();
  try {
    const client = sealedClient(() => guest.url);
    expect((await client.fetch('https://sealed.example/v1/models')).status).toBe(200);
    const body = client.seen.at(-1)!.bytes;
    const sealed = body.subarray(body.indexOf(0x0a) + 1);
    expect(sealed[1]! * 256 + sealed[2]!).toBe(KEM.x25519);
  } finally {
    await guest.close();
  }
});

const node = HAVE_ML_KEM ? undefined : mlKemNode();
test.skipIf(node === undefined)('the suite runs on a Node.js with ML-KEM [B17]', async () => {
  const root = fileURLToPath(new URL('../../../', import.meta.url));
  const vitest = `${root}node_modules/vitest/vitest.mjs`;
  const suite = 'test/attestation/sealed/hpke-x-wing-suite.test.ts';
  // Without what vitest tells its own workers.
  const env = Object.fromEntries(
    Object.entries(process.env).filter(([name]) => !/^(?:VITEST|NODE_|TINYPOOL)/.test(name)),
  );
  const { stdout } = await promisify(execFile)(node!, [vitest, 'run', suite, '--reporter=json'], {
    cwd: root,
    env,
    maxBuffer: 16 * 1024 * 1024,
  }).catch((error: { stdout: string }) => error); // prettier-ignore
  const report = JSON.parse(stdout.slice(stdout.indexOf('{"'))) as Record<string, unknown>;
  expect(report).toMatchObject({ success: true, numFailedTests: 0, numPendingTests: 0 });
  expect(report['numPassedTests']).toBeGreaterThan(8);
});
