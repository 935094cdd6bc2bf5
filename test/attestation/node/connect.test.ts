// One attested connection: only over TLS, and not handed over when its peer closed it with the evidence.

import { describe, expect, test } from 'vitest';
import { connectAttested } from '../../../attestation/node/connect.ts';
import { parsePolicy } from '../../../attestation/appraise/policy.ts';
import { POLICY, useAttestedClients } from '../../fixtures/attestation/attested-client.ts';
import { NOW, send } from '../../fixtures/attestation/attested-server.ts';
import { refusalOf } from '../../fixtures/refusal.ts';

const { serve, client } = useAttestedClients();

describe('a connection', () => {
  test('is not opened to anything but https', async () => {
    const server = await serve();
    const options = {
      policy: parsePolicy(POLICY),
      now: () => NOW,
      randomBytes: (length: number) => new Uint8Array(length),
      connectTimeoutMs: 60_000,
      attestTimeoutMs: 60_000,
    };
    for (const protocol of ['http', 'ws', 'wss', 'ftp']) {
      const origin = new URL(`${protocol}://127.0.0.1:${server.port}`);
      expect((await refusalOf(() => connectAttested(origin, options)))?.code).toBe('plain_http');
    }
    expect(server.connections).toHaveLength(0);
  });

  test('that its peer closes with the evidence is not handed over', async () => {
    const server = await serve({
      attestation: async ({ socket }, json) => {
        send(socket, 200, await json());
        socket.end();
      },
    });
    const fetch = client();
    await expect(fetch(server.origin, { method: 'POST', body: '{}' })).rejects.toBeInstanceOf(Error);
    expect(server.requests()).toHaveLength(0);
  });
});
