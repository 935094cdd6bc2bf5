// Where a pull connects to: no address inside, no endless redirects, and names that lead nowhere
// but to their repository.

import { createServer } from 'node:http';
import { connect } from 'node:net';
import type { AddressInfo, Socket } from 'node:net';
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { systemClock } from '../../../../src/base/clock.ts';
import { ApiError } from '../../../../src/base/errors.ts';
import { checkUrl, createWeb, isPrivateAddress } from '../../../../src/models/pull/http.ts';
import type { Lookup } from '../../../../src/models/pull/http.ts';
import { parsePullName } from '../../../../src/models/pull/name.ts';
import { createPulls } from '../../../../src/models/pull/pull.ts';
import { NAME, all, usePulls } from '../../../fixtures/models/pull-service.ts';

const fixture = usePulls();
const { pulls, expectNothingStored } = fixture;

describe('addresses', () => {
  test.each(['file:///etc/passwd', 'ftp://example.com/x', 'http://user:pw@127.0.0.1/x', 'gopher://x/'])(
    'a redirect to %s is refused',
    async (location) => {
      fixture.hub.faults.resolve = (_, response) => {
        response.writeHead(302, { location }).end();
        return true;
      };
      expect((await all((await pulls()).pull({ name: NAME }))).at(-1)).toMatchObject({
        kind: 'error',
        code: 'address_refused',
      });
      await expectNothingStored();
    },
  );

  test('a ring of redirects ends', async () => {
    fixture.hub.faults.resolve = (request, response) => {
      response.writeHead(302, { location: request.url }).end();
      return true;
    };
    expect((await all((await pulls()).pull({ name: NAME }))).at(-1)).toMatchObject({
      code: 'hub_error',
      message: 'more than 5 redirects',
    });
  });

  const endpoint = new URL('https://hub.example.com');
  test.each([
    'http://cdn.example.com/',
    'https://127.0.0.1/',
    'https://[::1]/',
    'https://[::ffff:10.0.0.1]/',
    'https://0x7f.1/',
    'https://2130706433/',
    'https://169.254.169.254/latest/meta-data',
    'https://localhost/',
    'https://a.localhost/',
    'https://printer.local/',
    'https://metadata.google.internal/',
    'https://intranet/',
    'https://user@cdn.example.com/',
    'file:///etc/passwd',
    'data:text/plain,x',
  ])('%s is refused unless a private hub is meant', (url) => {
    expect(() => checkUrl(new URL(url), { endpoint, allowPrivate: false })).toThrow(ApiError);
  });

  test('public ones are not', () => {
    for (const url of [
      'https://cdn.example.com/x',
      'https://93.184.216.34/',
      'https://[2606:2800:220:1::1]/',
    ]) {
      expect(() => checkUrl(new URL(url), { endpoint, allowPrivate: false })).not.toThrow();
    }
  });

  test.each([
    '0.0.0.0',
    '10.1.2.3',
    '100.64.0.1',
    '127.8.8.8',
    '169.254.1.1',
    '172.31.0.1',
    '192.168.1.1',
    '198.18.0.1',
    '224.0.0.1',
    '255.255.255.255',
    '::',
    '::1',
    'fe80::1',
    'fc00::1',
    'fd12::1',
    'ff02::1',
    '::ffff:127.0.0.1',
    '::ffff:a00:1',
    '64:ff9b::7f00:1',
    '2002:7f00:1::',
    '::7f00:1',
    '2001:db8::1',
    'fe80::1%eth0',
  ])('%s is private', (address) => {
    expect(isPrivateAddress(address)).toBe(true);
  });

  test.each([
    '1.1.1.1',
    '100.63.255.255',
    '172.32.0.1',
    '2606:4700::1111',
    '64:ff9b::101:101',
    '::ffff:8.8.8.8',
  ])('%s is not', (address) => {
    expect(isPrivateAddress(address)).toBe(false);
  });

  test('a public name with a private address is refused when it is connected to', async () => {
    const asked: string[] = [];
    const lookup: Lookup = (hostname, _, callback) => {
      asked.push(hostname);
      callback(null, [
        { address: '93.184.216.34', family: 4 },
        { address: '127.0.0.1', family: 4 },
      ]);
    };
    const web = createWeb({
      endpoint,
      allowPrivate: false,
      connectTimeoutMs: 60_000,
      headersTimeoutMs: 60_000,
      bodyTimeoutMs: 60_000,
      lookup,
    });
    const attempt = web.get(new URL('https://hub.example.com/x'), {
      headers: {},
      signal: new AbortController().signal,
    });
    await expect(attempt).rejects.toMatchObject({
      code: 'address_refused',
      message: 'hub.example.com has a private address',
    });
    expect(asked).toEqual(['hub.example.com']);
    await web.close();
  });

  test('the endpoint must be https, unless private', async () => {
    for (const endpoint of [
      'http://hub.example.com',
      'nonsense',
      'file:///x',
      'https://u:p@hub.example.com',
      'https://hub.example.com/?x=1',
    ]) {
      await expect(
        createPulls({ store: fixture.store, endpoint, allowPrivate: false, clock: systemClock }),
      ).rejects.toThrow('models.hub');
    }
  });

  test('goes through a proxy when one is given, for the hub and the CDN', async () => {
    const asked: string[] = [];
    const tunnels: Socket[] = [];
    const proxy = createServer().on('connect', (request, socket: Socket) => {
      asked.push(request.url ?? '');
      const { port } = new URL(
        request.url?.startsWith('hub.') ? fixture.hub.endpoint : fixture.hub.cdnOrigin,
      );
      const upstream = connect(Number(port), '127.0.0.1', () => {
        socket.write('HTTP/1.1 200 OK\r\n\r\n');
        upstream.pipe(socket).pipe(upstream);
      });
      tunnels.push(upstream, socket);
      for (const end of [upstream, socket]) end.on('error', () => undefined);
    });
    await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve));
    fixture.hub.faults.resolve = (_, response) => {
      response.writeHead(302, { location: 'http://cdn.example.com/cdn/Tiny-Q4_K_M.gguf' }).end();
      return true;
    };
    const { port } = proxy.address() as AddressInfo;
    const service = await pulls({
      endpoint: 'http://hub.example.com',
      proxy: { http: `http://127.0.0.1:${port}` },
    });
    expect((await all(service.pull({ name: NAME }))).at(-1)).toMatchObject({ kind: 'success' });
    expect(asked).toEqual(['hub.example.com:80', 'cdn.example.com:80']);
    await service.close();
    for (const socket of tunnels) socket.destroy();
    await new Promise((resolve) => proxy.close(resolve));
  });
});

describe('names', () => {
  test.each([
    '',
    'owner',
    'owner/repo:',
    'owner/repo/file.bin',
    'owner/repo:Q4/x',
    'owner/../x:Q4',
    'owner/repo/../x.gguf',
    'a/b:Q@',
    'a/b:Q@x@y',
    'a/b/c.gguf:Q4',
    '/a/b:Q',
    'ö/b:Q',
    'a/b:Q 4',
    'x'.repeat(10_000),
  ])('%j is refused', async (name) => {
    const service = await pulls();
    expect(() => service.pull({ name })).toThrow(
      expect.objectContaining({ code: 'invalid_model_name' }) as Error,
    );
  });

  test('whatever they are lead nowhere but below their repository', () => {
    const part = fc.string({ unit: fc.constantFrom(...'aZ09._-+%/:@ \\?#'.split('')), maxLength: 30 });
    fc.assert(
      fc.property(part, part, part, (a, b, c) => {
        const given = `${a}/${b}${c}`;
        let name;
        try {
          name = parsePullName(given);
        } catch (error) {
          return error instanceof ApiError && error.code === 'invalid_model_name';
        }
        expect(name.repo).toMatch(/^[A-Za-z0-9][\w.+-]*\/[A-Za-z0-9][\w.+-]*$/);
        expect(`${name.repo}/${JSON.stringify(name.want)}/${name.revision}`).not.toMatch(/\.\.|[ \\?#%]/);
        return true;
      }),
      { numRuns: 2000 },
    );
  });
});
