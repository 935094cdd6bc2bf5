// The memory of this process is searched for private keys of claim 7 (docs/sealed.md §2): those that open are
// found, so the search is one, and the one that was dropped is nowhere. Needs Linux. The test holds each key
// as the difference to a mask alone.

import { closeSync, existsSync, openSync, readFileSync, readSync } from 'node:fs';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { expect, test } from 'vitest';
import { sendTo } from '../../../attestation/sealed/hpke.ts';
import { keyIdOf } from '../../../attestation/sealed/request.ts';
import { createSealedKeys } from '../../../src/sealed/keys.ts';

const MEMORY = '/proc/self/mem';
const isReadable = existsSync(MEMORY);
if (!isReadable) console.warn('\n! no /proc here: the heap is not searched for dropped keys\n');
setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

const MASK = 0x5a;
const BLOCK = 4 << 20;

function masked(bytes: Uint8Array): void {
  for (let i = 0; i < bytes.length; i++) bytes[i]! ^= MASK;
}

/** How often each key is in memory that can be written. */
function found(keys: readonly Buffer[]): number[] {
  const counts = keys.map(() => 0);
  const block = Buffer.alloc(BLOCK);
  const memory = openSync(MEMORY, 'r');
  for (const line of readFileSync('/proc/self/maps', 'utf8').split('\n')) {
    const [, from, to] = /^([0-9a-f]+)-([0-9a-f]+) rw/.exec(line) ?? [];
    if (from === undefined || to === undefined) continue;
    const end = Number.parseInt(to, 16);
    // Blocks overlap, so that a key at their edge is whole in one.
    for (let at = Number.parseInt(from, 16); at < end; at += BLOCK - 31) {
      const read = readHere(memory, block, Math.min(BLOCK, end - at), at);
      const bytes = block.subarray(0, read);
      masked(bytes);
      for (const [i, key] of keys.entries())
        for (let hit = bytes.indexOf(key); hit >= 0; hit = bytes.indexOf(key, hit + 1)) counts[i]! += 1;
      bytes.fill(0);
    }
  }
  closeSync(memory);
  return counts;
}

/** Pages that were given back since the list was read have no bytes. */
function readHere(memory: number, block: Buffer, length: number, at: number): number {
  try {
    return readSync(memory, block, 0, length, at);
  } catch {
    return 0;
  }
}

async function settled(): Promise<void> {
  for (let i = 0; i < 6; i++) {
    await new Promise((resolve) => setImmediate(resolve));
    collectGarbage();
  }
}

test.skipIf(!isReadable)(
  'a key that was dropped is nowhere in memory [B16]',
  { timeout: 120_000 },
  async () => {
    /** By their public keys, in hex. */
    const secrets = new Map<string, Buffer>();
    const { subtle } = crypto;
    const generate = subtle.generateKey.bind(subtle) as (...given: readonly unknown[]) => Promise<CryptoKeyPair>; // prettier-ignore
    // Not a spy, which keeps what it gave. As a JWK, since Node leaves no copy of the bytes behind for that.
    const exported = async (algorithm: unknown, _: boolean, usages: unknown): Promise<CryptoKeyPair> => {
      const pair = await generate(algorithm, true, usages);
      const { d = '' } = await subtle.exportKey('jwk', pair.privateKey);
      const secret = Buffer.from(d, 'base64url');
      masked(secret);
      secrets.set(Buffer.from(await subtle.exportKey('raw', pair.publicKey)).toString('hex'), secret);
      return pair;
    };
    Object.defineProperty(subtle, 'generateKey', { value: exported, configurable: true });
    let due = (): void => undefined;
    const keys = await createSealedKeys({
      lifetimeMs: 1,
      after: (_ms, call) => {
        due = call;
        return () => undefined;
      },
      onError: (error) => {
        throw error;
      },
    });
    const own: Buffer[] = [];
    const used = async (): Promise<void> => {
      const key = keys.current();
      own.push(secrets.get(Buffer.from(key).toString('hex'))!);
      const { enc } = await sendTo(key, new Uint8Array(1));
      await keys.of(keyIdOf(key))?.receive(enc, new Uint8Array(1));
    };
    const rotated = async (): Promise<void> => {
      const before = keys.current();
      due();
      await expect.poll(() => keys.current() === before).toBe(false);
      await used();
      await settled();
    };
    await used();
    await rotated();
    expect(found(own).every((count) => count > 0)).toBe(true);
    await rotated();
    const [dropped, before, current] = found(own);
    expect(dropped).toBe(0);
    expect([before, current].every((count) => (count ?? 0) > 0)).toBe(true);
    keys.close();
    Reflect.deleteProperty(subtle, 'generateKey');
  },
);
