// Proxies on the way to the vendors' services, from the environment and by themselves.

import { createServer } from 'node:http';
import { connect, type AddressInfo } from 'node:net';
import { describe, expect, test } from 'vitest';
import { proxyFromEnvironment } from '../../../../attestation/node/endorsements/endorsements.ts';
import { memoryStore } from '../../../../attestation/node/endorsements/store.ts';
import {
  amd,
  SERVICES,
  serve,
  endorsements,
  kds,
} from '../../../fixtures/attestation/endorsement-services.ts';

describe('proxies', () => {
  test('requests go through the proxy given, as a tunnel', async () => {
    const service = await serve(kds());
    const tunnels: string[] = [];
    const proxy = createServer();
    proxy.on('connect', (request, socket, head) => {
      tunnels.push(request.url ?? '');
      const [host = '', port = ''] = (request.url ?? '').split(':');
      const upstream = connect(Number(port), host, () => {
        socket.write('HTTP/1.1 200 OK\r\n\r\n');
        upstream.write(head);
        upstream.pipe(socket).pipe(upstream);
      });
      upstream.on('error', () => socket.destroy());
      socket.on('error', () => upstream.destroy());
    });
    await new Promise<void>((resolve) => {
      proxy.listen(0, '127.0.0.1', resolve);
    });
    SERVICES.push(proxy);
    const at = `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`;
    await endorsements({ kdsUrl: service.url, proxy: { httpProxy: at, httpsProxy: at } }).snp(
      await amd.signReport(),
    );
    expect(tunnels.length).toBeGreaterThan(0);
    const before = tunnels.length;
    await endorsements({
      kdsUrl: service.url,
      proxy: { httpProxy: at, httpsProxy: at, noProxy: '127.0.0.1' },
    }).snp(await amd.signReport());
    expect(tunnels.length).toBe(before);
  });

  test('settings come from an environment that is handed in', () => {
    expect(proxyFromEnvironment({ HTTPS_PROXY: 'http://p:1', no_proxy: 'x' })).toEqual({
      httpsProxy: 'http://p:1',
      noProxy: 'x',
    });
    expect(proxyFromEnvironment({ NO_PROXY: 'x', HTTPS_PROXY: '' })).toBeUndefined();
  });
});

test('a memory store is bounded', async () => {
  const store = memoryStore();
  for (let i = 0; i < 4200; i++) await store.put({ key: String(i), fetchedAt: 0, parts: {} });
  expect((await store.items()).length).toBe(4096);
});
