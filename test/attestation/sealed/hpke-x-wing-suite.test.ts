// The X-Wing suite (docs/sealed.md §2 [B17]): HPKE beside Go's, requests, the server, the client, replicas.
// Needs ML-KEM in WebCrypto: hpke-x-wing.test.ts runs it on a Node.js that has it, and says so where there is
// none.

import { spawnSync } from 'node:child_process';
import { createHash, generateKeyPairSync, sign } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import { afterEach, describe, expect, test } from 'vitest';
import { keyHintOf, openAny, sealToAny } from '../../../attestation/sealed/any.ts';
import { fromHex, toHex, utf8 } from '../../../attestation/encoding/bytes.ts';
import { ByteReader } from '../../../attestation/sealed/chunks.ts';
import { generateRecipient, importRecipient, sendTo } from '../../../attestation/sealed/hpke.ts';
import { encapsulate, importKem, KEM } from '../../../attestation/sealed/kem.ts';
import { encodeKeyList } from '../../../attestation/receipts/key-list.ts';
import { generateOneTime, publicKeyOf } from '../../../attestation/sealed/one-time.ts';
import { openRequest, sealRequest, xWingKeyIdOf } from '../../../attestation/sealed/request.ts';
import { rawPublicKey } from '../../../src/attester/identity.ts';
import { type Client, type Guest, type GuestOptions, sealedClient, startGuest } from '../../fixtures/attestation/sealed-guest.ts'; // prettier-ignore
import { goTool } from '../../../scripts/go-toolchain.ts';
import { codeOf, seal, send } from '../../fixtures/http/sealed.ts';
import { HAVE_ML_KEM } from '../../fixtures/ml-kem/node.ts';
import { X_WING_VECTORS } from '../../fixtures/ml-kem/x-wing-vectors.ts';
import { refusalOf } from '../../fixtures/refusal.ts';

const HEAD = { method: 'GET', path: '/v1/models', fields: [] };
const EMPTY = new Uint8Array(0);
const go = goTool();

async function* source(bytes: Uint8Array): AsyncGenerator<Uint8Array, void> {
  yield bytes;
}

type Message = Readonly<Record<string, string>>;

/** Go's HPKE, asked a few things at once. */
function goPeer(asked: readonly Message[]): readonly Message[] {
  const { stdout, stderr, status } = spawnSync(go!, ['run', './internal/xwing'], {
    cwd: fileURLToPath(new URL('../../../clients/go/', import.meta.url)),
    input: asked.map((each) => JSON.stringify(each)).join('\n'),
    encoding: 'utf8',
  });
  if (status !== 0) throw new Error(stderr);
  return stdout.trim().split('\n').map((line) => JSON.parse(line) as Message); // prettier-ignore
}

describe.skipIf(!HAVE_ML_KEM)('X-Wing [B17]', () => {
  test.skipIf(go === undefined)("Go's HPKE opens what was sealed, seals what opens, and has the same public key", async () => {
    const own = await generateOneTime(KEM.xWing);
    const info = utf8('assay test');
    const sender = await sendTo(own.publicKey, info);
    const sealed = await sender.seal(utf8('from here'), EMPTY);
    const hex = { private_key: toHex(own.privateKey), public_key: toHex(own.publicKey), info: toHex(info) };
    const [shown, opened, made] = goPeer([
      { do: 'public', ...hex },
      { do: 'open', ...hex, enc: toHex(sender.enc), sealed: toHex(sealed) },
      { do: 'seal', ...hex, plaintext: toHex(utf8('from Go')) },
    ]);
    expect(shown?.['public_key']).toBe(toHex(own.publicKey));
    expect(opened?.['plaintext']).toBe(toHex(utf8('from here')));
    const recipient = await importRecipient(own.privateKey, { kem: KEM.xWing });
    const context = await recipient.receive(fromHex(made?.['enc'] ?? ''), info);
    expect(toHex(await context.open(fromHex(made?.['sealed'] ?? ''), EMPTY))).toBe(toHex(utf8('from Go')));
  }, 300_000); // prettier-ignore

  test.each(X_WING_VECTORS)('known answers: $secret', async (vector) => {
    const key = await importKem(KEM.xWing, fromHex(vector.privateKey));
    expect(createHash('sha3-256').update(key.publicKey).digest('hex')).toBe(vector.publicKeySha3);
    const enc = fromHex(vector.ciphertext);
    expect(toHex(await key.decapsulate(enc))).toBe(vector.secret);
    // A changed half gives another secret, and none that tells which half it was.
    for (const at of [0, 1087, 1088])
      expect(toHex(await key.decapsulate(enc.map((byte, i) => (i === at ? byte ^ 1 : byte))))).not.toBe(vector.secret); // prettier-ignore
  });

  test('a key or a ciphertext that is none is told from a platform without ML-KEM', async () => {
    const { publicKey } = await generateRecipient(KEM.xWing);
    // A coefficient beyond the prime (FIPS 203 §7.2), and a point that gives everyone one secret.
    const beyond = publicKey.map((byte, i) => (i < 2 ? 0xff : byte));
    const zero = publicKey.map((byte, i) => (i < 1184 ? byte : 0));
    for (const key of [beyond, zero, publicKey.slice(1)])
      await expect(encapsulate(key)).rejects.toMatchObject({ code: 'sealed_malformed' });
    const key = await importKem(KEM.xWing, new Uint8Array(32).fill(7));
    for (const enc of [new Uint8Array(1120), new Uint8Array(1119).fill(9), new Uint8Array(32).fill(9)])
      await expect(key.decapsulate(enc)).rejects.toMatchObject({ code: 'sealed_malformed' });
  });

  test('sizes, and a private key has one public key', async () => {
    const { kem, publicKey } = await generateRecipient(KEM.xWing);
    expect([kem, publicKey.length]).toEqual([KEM.xWing, 1216]);
    const { privateKey, publicKey: shown } = await generateOneTime(KEM.xWing);
    expect(await publicKeyOf(KEM.xWing, privateKey)).toEqual(shown);
    expect((await sendTo(publicKey, EMPTY)).enc).toHaveLength(1120);
  });

  test('a request opens by its key alone; either half changed, a cut or the other suite do not', async () => {
    const recipient = await generateRecipient(KEM.xWing);
    const { bytes } = await sealRequest(recipient.publicKey, HEAD, EMPTY, 200);
    const opens = (changed: Uint8Array): Promise<boolean> =>
      openRequest(new ByteReader(source(changed)), () => recipient).then(
        () => true,
        () => false,
      );
    expect(await opens(bytes)).toBe(true);
    for (const at of [1, 2, 7, 500, 7 + 1087, 7 + 1088, 7 + 1119, 7 + 1120, 1500])
      expect(await opens(Uint8Array.from(bytes, (byte, i) => (i === at ? byte ^ 1 : byte))), String(at)).toBe(false); // prettier-ignore
    expect(await opens(bytes.subarray(0, 1000))).toBe(false);
    const classic = await generateRecipient();
    const other = openRequest(new ByteReader(source(bytes)), () => classic);
    await expect(other).rejects.toMatchObject({ code: 'sealed_malformed' });
  });

  test('one request for several replicas', async () => {
    const keys = await Promise.all([generateRecipient(KEM.xWing), generateRecipient(KEM.xWing)]);
    const replicas = keys.map(({ publicKey }, i) => ({ publicKey, sealedAt: i }));
    const { bytes } = await sealToAny(replicas, HEAD, EMPTY);
    for (const [i, key] of keys.entries()) {
      const isMine = toHex(key.publicKey);
      const opened = await openAny(new ByteReader(source(bytes)), (hint, kem) =>
        kem === KEM.xWing && toHex(hint) === hintHex(isMine) ? key : undefined,
      );
      expect(opened.sealedAt).toBe(i);
    }
    const mixed = [replicas[0]!, { publicKey: (await generateRecipient()).publicKey, sealedAt: 0 }];
    await expect(sealToAny(mixed, HEAD, EMPTY)).rejects.toMatchObject({ code: 'sealed_malformed' });
  });
});

function hintHex(publicKey: string): string {
  return toHex(keyHintOf(fromHex(publicKey)));
}

describe.skipIf(!HAVE_ML_KEM)('server and client with X-Wing [B17]', () => {
  const { privateKey } = generateKeyPairSync('ed25519');
  const options: GuestOptions = {
    receiptKey: rawPublicKey(privateKey),
    sealed: { postQuantum: true, sign: (bytes) => new Uint8Array(sign(null, bytes, privateKey)) },
  };
  const open: Guest[] = [];
  afterEach(async () => {
    await Promise.all(open.splice(0).map((guest) => guest.close()));
  });

  async function start(): Promise<{ readonly guest: Guest; readonly client: Client }> {
    const guest = await startGuest(options);
    open.push(guest);
    return { guest, client: sealedClient(() => guest.url, { postQuantum: 'require' }) };
  }

  const models = (client: Client): Promise<Response> => client.fetch('https://sealed.example/v1/models');

  /** Of the request that was sent last. */
  function headerOf(client: Client): readonly number[] {
    const bytes = client.seen.at(-1)!.bytes;
    const sealed = bytes.subarray(bytes.indexOf(0x0a) + 1);
    return [sealed[0]!, sealed[1]! * 256 + sealed[2]!];
  }

  test('a request is sealed to the X-Wing key of the list, under the id of claim 7', async () => {
    const { guest, client } = await start();
    expect((await models(client)).status).toBe(200);
    expect(headerOf(client)).toEqual([xWingKeyIdOf(guest.sealed.keys.current()), KEM.xWing]);
    expect(client.seen.map(({ path }) => path)).toEqual(['/v1/attestation', '/v1/sealed/keys', '/v1/sealed']);
  });

  test('X25519 goes on beside it, and neither id takes the other KEM', async () => {
    const { guest } = await start();
    const { keys } = guest.sealed;
    const classic = await seal(keys.current(), { path: '/v1/models' });
    expect((await send(guest.url, classic)).status).toBe(200);
    const swapped = await sealRequest(keys.currentXWing()!, HEAD, EMPTY, xWingKeyIdOf(keys.current()) - 128);
    expect((await send(guest.url, swapped)).outer.status).toBe(400);
  });

  test('the same bytes run once, and the key rotates with claim 7', async () => {
    const { guest, client } = await start();
    await models(client);
    const bytes = client.seen.at(-1)!.bytes;
    const sealed = bytes.subarray(bytes.indexOf(0x0a) + 1);
    const again = (): Promise<Response> =>
      fetch(`${guest.url}/v1/sealed`, {
        method: 'POST',
        headers: { 'content-type': 'message/ohttp-chunked-req' },
        body: sealed as BodyInit,
      });
    await (await again()).arrayBuffer();
    expect(guest.api.records.map(({ status }) => status)).toContain(409);
    await guest.sealed.rotate();
    expect((await again()).status).toBe(200);
    await guest.sealed.rotate();
    expect((await again()).status).toBe(400);
    expect((await models(client)).status).toBe(200);
    expect(headerOf(client)[0]).toBe(xWingKeyIdOf(guest.sealed.keys.current()));
  });

  test('a rotation between evidence and list is asked again for, once', async () => {
    const { guest, client } = await start();
    let rotations = 1;
    client.between = async (path, _init, pass) => {
      if (path === '/v1/sealed/keys' && rotations-- > 0) await guest.sealed.rotate();
      return pass();
    };
    expect((await models(client)).status).toBe(200);
    const second = sealedClient(() => guest.url, { postQuantum: 'require' });
    second.between = async (path, _init, pass) => {
      if (path === '/v1/sealed/keys') await guest.sealed.rotate();
      return pass();
    };
    expect((await refusalOf(() => models(second)))?.code).toBe('sealed_keys');
    expect(second.sealed()).toEqual([]);
  });

  const other = generateKeyPairSync('ed25519').privateKey;
  test.each<[string, (guest: Guest) => Response, string]>([
    ['stripped', () => new Response(null, { status: 404 }), 'sealed_unsupported'],
    ['empty', () => new Response(''), 'sealed_keys'],
    ['unsigned', ({ sealed }) => list(sealed, () => new Uint8Array(64)), 'sealed_keys'],
    ['signed by another boot', ({ sealed }) => list(sealed, (bytes) => new Uint8Array(sign(null, bytes, other))), 'sealed_keys'],
    ['too large', () => new Response(new Uint8Array(5000)), 'attestation_response'],
  ])('a list that is %s: nothing is sealed, to no key', async (_, forge, code) => {
    const { guest, client } = await start();
    client.between = (path, _init, pass) => (path === '/v1/sealed/keys' ? forge(guest) : pass());
    expect([(await refusalOf(() => models(client)))?.code, client.sealed()]).toEqual([code, []]);
  }); // prettier-ignore

  test('an answer that says the key is unknown does not bring X25519 back', async () => {
    const { client } = await start();
    const type = 'https://iana.org/assignments/http-problem-types#ohttp-key';
    client.between = (path, _init, pass) =>
      path === '/v1/sealed' ? new Response(JSON.stringify({ type }), { status: 400 }) : pass();
    expect(codeOf({ body: await (await models(client)).text() } as never)).toBe('sealed_refused');
    expect(headerOf(client)).not.toContain(KEM.x25519);
  });
});

function list({ keys }: Guest['sealed'], by: (bytes: Uint8Array) => Uint8Array): Response {
  return new Response(encodeKeyList(keys.current(), keys.currentXWing()!, by) as BodyInit);
}
