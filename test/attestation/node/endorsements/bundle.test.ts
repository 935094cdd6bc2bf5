// The offline bundle: written, carried, read, merged; older or forged items never replace what is held.

import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { toHex } from '../../../../attestation/encoding/bytes.ts';
import { AttestationError } from '../../../../attestation/transcript/errors.ts';
import { bundleStore, exportBundle, parseBundle } from '../../../../attestation/node/endorsements/bundle.ts';
import { importBundle } from '../../../../attestation/node/endorsements/bundle-import.ts';
import { commandBundle } from '../../../../attestation/node/cli/offline.ts';
import { type CliWorld } from '../../../../attestation/node/cli/world.ts';
import { folderStore, memoryStore } from '../../../../attestation/node/endorsements/store.ts';
import {
  start,
  amd,
  intel,
  stranger,
  type Service,
  serve,
  folder,
  endorsements,
  send,
  kds,
  pcs,
} from '../../../fixtures/attestation/endorsement-services.ts';

describe('the offline bundle', () => {
  test('is exported, carried and used without a network, for both vendors', async () => {
    const [amdService, intelService] = [await serve(kds()), await serve(pcs())];
    const online = endorsements({ kdsUrl: amdService.url, pcsUrl: intelService.url });
    const [report, quote] = [await amd.signReport(), await intel.signQuote()];
    await online.snp(report);
    await online.tdx(quote);
    const bundle = await exportBundle(online.store);
    const offline = endorsements({ offline: true, store: bundleStore(bundle) });
    expect(await offline.source({ format: 'snp', report })).toEqual(await online.snp(report));
    expect(await offline.source({ format: 'tdx', report: quote })).toEqual(await online.tdx(quote));
    const path = await folder();
    expect(await importBundle(bundle, folderStore(path))).toBe(7);
    await endorsements({ offline: true, cacheFolder: path }).tdx(quote);
  });

  test('an item of a store gives way to a newer one that verifies, and to nothing else', async () => {
    const hour = new Date(start - 3_600_000);
    const [report, quote] = [await amd.signReport(), await intel.signQuote()];
    const bundleOf = async (
      amdService: Service,
      intelService: Service,
      roots = [intel.root],
    ): Promise<string> => {
      const online = endorsements({
        kdsUrl: amdService.url,
        pcsUrl: intelService.url,
        roots: { amd: [amd.ark], intel: roots },
      });
      await online.snp(report);
      await online.tdx(roots[0] === intel.root ? quote : await stranger.signQuote());
      return exportBundle(online.store);
    };
    const older = await bundleOf(await serve(kds()), await serve(pcs()));
    const crl = await amd.issueCrl({ thisUpdate: hour, number: 2 });
    const info = await intel.tcbInfo({ issueDate: hour });
    const chain = {
      'content-type': 'application/json',
      'TCB-Info-Issuer-Chain': encodeURIComponent(intel.signingChainPem),
    };
    const newer = await bundleOf(
      await serve(kds((path, response) => path.endsWith('/crl') && (send(response, crl), true))),
      await serve(pcs((path, response) => path.includes('/v4/tcb?') && (send(response, info, chain), true))),
    );
    const forged = await bundleOf(await serve(kds()), await serve(pcs(undefined, () => stranger)), [
      stranger.root,
    ]);
    const options = { roots: { amd: [amd.ark], intel: [intel.root] }, now: () => start };
    const store = memoryStore();
    const held = async (): Promise<unknown[]> => {
      const offline = endorsements({ offline: true, store });
      return [(await offline.snp(report)).crl, (await offline.tdx(quote)).tcbInfo];
    };

    expect(await importBundle(newer, store, options)).toBe(7);
    expect(await held()).toEqual([crl, info]);
    expect(await importBundle(older, store, options)).toBe(0);
    expect(await importBundle(forged, store, options)).toBe(0);
    expect(await importBundle(newer, store, options)).toBe(0);
    expect(await held()).toEqual([crl, info]);

    // The other way round the two that changed are taken; what was damaged is mended by any that verifies.
    const second = memoryStore(parseBundle(older));
    expect(await importBundle(newer, second, options)).toBe(2);
    const vcek = (await second.items()).find(({ key }) => key.includes(toHex(amd.chipId)));
    await second.put({ key: vcek?.key ?? '', fetchedAt: start, parts: { vek: Uint8Array.of(0x30) } });
    expect(await importBundle(older, second, options)).toBe(1);
    expect(await second.get(vcek?.key ?? '')).toEqual(vcek);

    // A key that is not asked for replaces no stored item.
    const odd = memoryStore([{ key: 'kds/vcek/Naples/crl', fetchedAt: 1, parts: {} }]);
    expect(
      await importBundle(
        await exportBundle(memoryStore([{ key: 'kds/vcek/Naples/crl', fetchedAt: 2, parts: {} }])),
        odd,
        options,
      ),
    ).toBe(0);
  });

  test('assay-verify bundle prints what assay-verify --cache kept', async () => {
    const service = await serve(kds());
    const path = await folder();
    await endorsements({ kdsUrl: service.url, cacheFolder: join(path, 'endorsements') }).snp(
      await amd.signReport(),
    );
    const printed: string[] = [];
    await commandBundle({ kind: 'bundle', cacheFolder: path }, {
      stdout: (text: string) => printed.push(text),
    } as unknown as CliWorld);
    expect(parseBundle(printed.join('')).length).toBe(3);
  });

  test('a forged item in a bundle is not believed', async () => {
    const service = await serve(pcs(undefined, () => stranger));
    const forger = endorsements({ pcsUrl: service.url, roots: { intel: [stranger.root] } });
    await forger.tdx(await stranger.signQuote());
    const offline = endorsements({ offline: true, store: bundleStore(await exportBundle(forger.store)) });
    await expect(offline.tdx(await intel.signQuote())).rejects.toMatchObject({
      code: 'endorsements_unavailable',
    });
  });

  test.each([
    '',
    '{}',
    '[]',
    '{"format":"assay-endorsements","version":2,"items":[]}',
    '{"format":"assay-endorsements","version":1,"items":[{}]}',
    '{"format":"assay-endorsements","version":1,"items":[{"key":"k","fetchedAt":1,"parts":{"a":"*"}}]}',
  ])('the bundle %j is malformed', (text) => {
    expect(() => parseBundle(text)).toThrow(AttestationError);
  });
});
