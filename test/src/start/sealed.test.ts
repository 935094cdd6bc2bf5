// Sealed bodies at the start of a server (docs/sealed.md §2): X-Wing is on only where this Node.js has
// ML-KEM, and a server whose configuration wants it elsewhere does not start.

import { generateKeyPairSync } from 'node:crypto';
import pino from 'pino';
import { expect, test } from 'vitest';
import { systemClock } from '../../../src/base/clock.ts';
import { readConfig } from '../../../src/config/read.ts';
import { openSealedBodies } from '../../../src/start/sealed.ts';
import type { Sealed } from '../../../src/sealed/gateway.ts';
import { rawPublicKey } from '../../../src/attester/identity.ts';
import { HAVE_ML_KEM } from '../../fixtures/ml-kem/node.ts';
import { configRefusalOf } from '../../fixtures/refusal.ts';

function opened(text: string): Promise<Sealed> {
  const { privateKey } = generateKeyPairSync('ed25519');
  const receipt = { privateKey, publicKey: rawPublicKey(privateKey) };
  const config = readConfig({ file: { path: '/etc/a.toml', text }, cwd: '/' });
  return openSealedBodies(config, { receipt }, systemClock, pino({ enabled: false }));
}

test('X-Wing is off unless it is switched on [B17]', async () => {
  const sealed = await opened('');
  expect([sealed.keys.currentXWing(), sealed.keyList()]).toEqual([undefined, undefined]);
  sealed.close();
});

test.skipIf(HAVE_ML_KEM)('switched on without ML-KEM, the key and the line are named [B17]', async () => {
  const { message } = await configRefusalOf(opened('[sealed]\npost_quantum = true\n'));
  expect(message).toMatch(/^\/etc\/a\.toml:2: sealed\.post_quantum true: Node\.js v\d.* has no ML-KEM/);
});
