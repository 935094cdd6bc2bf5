// configfs-tsm, by the kernel's rules: one folder per request, generation checked, lost closes and other
// writers found out, transient errors retried, final ones final, provider and report_data compared.

import { randomBytes } from 'node:crypto';
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { endorsementsOf, parseCertificateTable } from '../../../src/attester/certtable.ts';
import { tdxFields } from '../../../src/attester/hardware.ts';
import { selectSource, type TeeMode } from '../../../src/attester/select.ts';
import { ConfigError } from '../../../src/base/errors.ts';
import type { ReportSource } from '../../../src/attester/assemble.ts';
import { createTsm, probeTsm, type Tsm, type TsmOptions } from '../../../src/attestd/tsm.ts';
import { bareSnpReport, bareTdxQuote, fakeTsm, type FakeTsmOptions } from '../../fixtures/attestd/tsm.ts';

const signal = new AbortController().signal;
function data(fill = 7): Uint8Array {
  return new Uint8Array(64).fill(fill);
}

function setUp(fake: Partial<FakeTsmOptions> = {}, options: Partial<TsmOptions> = {}) {
  const kernel = fakeTsm({
    provider: 'sev_guest',
    makeReport: (inblob, privlevel) => bareSnpReport(inblob, privlevel),
    ...fake,
  });
  const delays: number[] = [];
  const tsm: Tsm = createTsm({
    fs: kernel.fs,
    folder: kernel.folder,
    provider: 'sev_guest',
    maxQueue: 8,
    delay: async (ms) => void delays.push(ms),
    ...options,
  });
  return { kernel, tsm, delays };
}

describe('one report', () => {
  test('is collected in the order the kernel wants, and its folder removed', async () => {
    const { kernel, tsm } = setUp({ auxblob: new Uint8Array(0) });
    const { outblob } = await tsm.report(data(), signal);
    expect(outblob.subarray(0x50, 0x90)).toEqual(data());
    expect(kernel.log).toEqual([
      'mkdir ',
      'read provider',
      'read generation',
      'write inblob',
      'read generation',
      'read outblob',
      'read auxblob',
      'read generation',
      'rmdir ',
    ]);
    expect(kernel.entries.size).toBe(0);
  });

  test('asks for the configured privilege level first', async () => {
    const { kernel, tsm } = setUp({}, { privlevel: 2 });
    const { outblob } = await tsm.report(data(), signal);
    expect(outblob[0x30]).toBe(2);
    expect(kernel.log.indexOf('write privlevel')).toBeLessThan(kernel.log.indexOf('write inblob'));
  });

  test('has no certificates when the kernel has no auxblob', async () => {
    const { tsm } = setUp();
    expect((await tsm.report(data(), signal)).auxblob).toHaveLength(0);
  });

  test('of TDX is read without auxblob, in both quote versions', async () => {
    for (const version of [4, 5] as const) {
      const { kernel, tsm } = setUp(
        { provider: 'tdx_guest', makeReport: (inblob) => bareTdxQuote(inblob, version) },
        { provider: 'tdx_guest' },
      );
      const { outblob } = await tsm.report(data(9), signal);
      expect(kernel.log).not.toContain('read auxblob');
      const fields = tdxFields(outblob);
      expect(fields.measurement).toEqual(new Uint8Array(48).fill(0x11));
      expect(fields.rtmr.map((r) => r[0])).toEqual([0xa0, 0xa1, 0xa2, 0xa3]);
    }
  });

  test('needs exactly 64 bytes of report_data', async () => {
    const { tsm } = setUp();
    await expect(tsm.report(new Uint8Array(32), signal)).rejects.toThrow(RangeError);
  });
});

describe('what goes wrong', () => {
  test.each(['EBUSY', 'EINTR', 'ETIMEDOUT', 'EAGAIN'])(
    '%s is retried with a pause, in a new folder',
    async (code) => {
      let failures = 2;
      const { kernel, tsm, delays } = setUp({
        fault: (op, attribute) =>
          op === 'read' && attribute === 'outblob' && failures-- > 0 ? code : undefined,
      });
      await tsm.report(data(), signal);
      expect(delays).toEqual([50, 100]);
      expect(kernel.log.filter((line) => line === 'mkdir ')).toHaveLength(3);
      expect(kernel.entries.size).toBe(0);
    },
  );

  test('EBUSY for ever ends after four attempts', async () => {
    const { kernel, tsm } = setUp({
      fault: (op, attribute) => (attribute === 'outblob' ? 'EBUSY' : undefined),
    });
    await expect(tsm.report(data(), signal)).rejects.toMatchObject({
      name: 'TsmError',
      code: 'busy',
      fatal: false,
    });
    expect(kernel.log.filter((line) => line === 'read outblob')).toHaveLength(4);
    expect(tsm.available).toBe(true);
  });

  test('ENOTTY (the driver wiped its key) is final: the device is not asked again', async () => {
    const { kernel, tsm } = setUp({
      fault: (op, attribute) => (attribute === 'outblob' ? 'ENOTTY' : undefined),
    });
    await expect(tsm.report(data(), signal)).rejects.toMatchObject({ code: 'key_wiped', fatal: true });
    const before = kernel.log.length;
    await expect(tsm.report(data(), signal)).rejects.toMatchObject({ code: 'key_wiped' });
    expect(kernel.log).toHaveLength(before);
    expect(tsm.available).toBe(false);
  });

  test('no provider (ENXIO) and another provider are final', async () => {
    const none = setUp({ provider: null });
    await expect(none.tsm.report(data(), signal)).rejects.toMatchObject({ code: 'no_provider', fatal: true });
    const other = setUp({ provider: 'arm_cca_guest' });
    await expect(other.tsm.report(data(), signal)).rejects.toMatchObject({
      code: 'wrong_provider',
      message: expect.stringContaining('arm_cca_guest') as string,
    });
    expect(other.kernel.entries.size).toBe(0);
  });

  test('EINVAL and EIO are not retried', async () => {
    for (const code of ['EINVAL', 'EIO']) {
      const { kernel, tsm } = setUp({
        fault: (op, attribute) => (attribute === 'outblob' ? code : undefined),
      });
      await expect(tsm.report(data(), signal)).rejects.toMatchObject({
        code: 'io',
        message: expect.stringContaining(code) as string,
      });
      expect(kernel.log.filter((line) => line === 'read outblob')).toHaveLength(1);
    }
  });

  test('an error at close, which nobody is told of, is found by the generation', async () => {
    let lost = 1;
    const { tsm, delays, kernel } = setUp({
      fault: (op) => (op === 'close' && lost-- > 0 ? 'EBUSY' : undefined),
    });
    const { outblob } = await tsm.report(data(), signal);
    expect(outblob.subarray(0x50, 0x90)).toEqual(data());
    expect(delays).toEqual([50]);
    expect(kernel.made()).toBe(1);
  });

  test('another writer in our folder is found, before and after the report is read', async () => {
    for (const when of ['inblob', 'outblob']) {
      let times = 1;
      const { kernel, tsm } = setUp({
        after: (operation, path) => {
          if (path.endsWith(when) && times-- > 0) kernel.interfere(path, data(99));
        },
      });
      const { outblob } = await tsm.report(data(), signal);
      expect(outblob.subarray(0x50, 0x90)).toEqual(data());
      expect(kernel.log.filter((line) => line === 'mkdir ')).toHaveLength(2);
    }
  });

  test('a report over other report_data is never handed on', async () => {
    const { tsm } = setUp({ makeReport: () => bareSnpReport(data(1)) });
    await expect(tsm.report(data(2), signal)).rejects.toMatchObject({ code: 'interference' });
  });

  test('a report that is too short is refused', async () => {
    const { tsm } = setUp({ makeReport: () => new Uint8Array(100) });
    await expect(tsm.report(data(), signal)).rejects.toMatchObject({ code: 'malformed' });
  });

  test('a folder that cannot be removed does not cost the report', async () => {
    const { tsm } = setUp({ fault: (op) => (op === 'rmdir' ? 'EBUSY' : undefined) });
    await expect(tsm.report(data(), signal)).resolves.toBeDefined();
  });

  test('a name that is taken is another name next time', async () => {
    let n = 0;
    const names = ['aa', 'aa', 'bb'];
    const { kernel, tsm } = setUp({}, { randomHex: () => names[n++] ?? 'cc' });
    await kernel.fs.mkdir(`${kernel.folder}/assay-aa`);
    await expect(tsm.report(data(), signal)).resolves.toBeDefined();
  });
});

describe('many at once', () => {
  test('are made one after the other, each with its own report_data', async () => {
    let inside = 0;
    let most = 0;
    const { tsm } = setUp(
      {
        after: async (operation) => {
          if (operation === 'mkdir') most = Math.max(most, ++inside);
          if (operation === 'rmdir') inside -= 1;
          await new Promise((resolve) => setImmediate(resolve));
        },
      },
      { maxQueue: 50 },
    );
    const asked = Array.from({ length: 50 }, (_, i) => data(i));
    const reports = await Promise.all(asked.map((d) => tsm.report(d, signal)));
    expect(reports.map(({ outblob }) => outblob[0x50])).toEqual(asked.map((d) => d[0]));
    expect(most).toBe(1);
  });

  test('beyond the queue are refused at once; a failure does not stop the next', async () => {
    let release = (): void => undefined;
    const gate = new Promise<void>((resolve) => (release = resolve));
    let failed = false;
    const { tsm } = setUp(
      {
        after: async (operation) => {
          if (operation === 'mkdir') await gate;
        },
        fault: (op, attribute) => {
          if (attribute !== 'outblob' || failed) return undefined;
          failed = true;
          return 'EIO';
        },
      },
      { maxQueue: 2 },
    );
    const running = [tsm.report(data(1), signal), tsm.report(data(2), signal), tsm.report(data(3), signal)];
    await expect(tsm.report(data(4), signal)).rejects.toMatchObject({ code: 'queue_full' });
    release();
    const results = await Promise.allSettled(running);
    expect(results.map((r) => r.status)).toEqual(['rejected', 'fulfilled', 'fulfilled']);
  });

  test('a request that was given up before its turn never reaches the device', async () => {
    const { kernel, tsm } = setUp();
    const abort = new AbortController();
    const first = tsm.report(data(1), signal);
    const second = tsm.report(data(2), abort.signal);
    abort.abort(new Error('left'));
    await first;
    await expect(second).rejects.toThrow('left');
    expect(kernel.made()).toBe(1);
  });
});

describe('which TEE', () => {
  const source = (name: string): ReportSource => ({ teeType: name }) as unknown as ReportSource;
  const select = (mode: TeeMode, provider: string | null): Promise<string | null> => {
    const kernel = fakeTsm({ provider, makeReport: bareSnpReport });
    return selectSource({
      mode,
      fs: kernel.fs,
      folder: kernel.folder,
      refused: (reason) => new ConfigError(reason, 'tee.mode'),
      hardware: async (found) => source(found),
      simulated: async () => source('simulated'),
    }).then((selected) => {
      expect(kernel.entries.size).toBe(0);
      return selected === null ? null : selected.teeType;
    });
  };

  test.each([
    ['auto', 'sev_guest', 'sev_guest'],
    ['auto', 'tdx_guest', 'tdx_guest'],
    ['auto', null, null],
    ['auto', 'arm_cca_guest', null],
    ['simulated-if-no-hardware', 'sev_guest', 'sev_guest'],
    ['simulated-if-no-hardware', null, 'simulated'],
    ['simulated', 'sev_guest', 'simulated'],
    ['none', 'sev_guest', null],
    ['sev-snp', 'sev_guest', 'sev_guest'],
    ['tdx', 'tdx_guest', 'tdx_guest'],
  ] as const)('%s with provider %s is %s', async (mode, provider, expected) =>
    expect(await select(mode, provider)).toBe(expected),
  );

  test.each([
    ['sev-snp', 'tdx_guest'],
    ['sev-snp', null],
    ['tdx', 'sev_guest'],
  ] as const)('%s with provider %s refuses to start', async (mode, provider) => {
    await expect(select(mode, provider)).rejects.toMatchObject({ name: 'ConfigError', key: 'tee.mode' });
  });

  test('without configfs there is no provider', async () => {
    expect(
      await probeTsm(
        fakeTsm({ provider: 'x', makeReport: bareSnpReport, fault: () => 'ENOENT' }).fs,
        '/nowhere',
      ),
    ).toBeUndefined();
  });
});

describe('the certificate table', () => {
  const guid = {
    vcek: '63da758de6644564adc5f4b93be8accd',
    ask: '4ab7b379bbac4fe4a02f05aef327c782',
    ark: 'c0b406a4a803495297433fb6014cd0ae',
  };
  const table = (entries: readonly (readonly [string, Uint8Array])[]): Uint8Array => {
    const head = 24 * (entries.length + 1);
    const bytes = Buffer.alloc(head + entries.reduce((sum, [, content]) => sum + content.length, 0));
    let at = head;
    for (const [i, [id, content]] of entries.entries()) {
      Buffer.from(id, 'hex').copy(bytes, 24 * i);
      bytes.writeUInt32LE(at, 24 * i + 16);
      bytes.writeUInt32LE(content.length, 24 * i + 20);
      bytes.set(content, at);
      at += content.length;
    }
    return new Uint8Array(bytes);
  };

  test('gives its known entries, skips unknown ones, and is empty when empty', () => {
    const blob = table([
      [guid.vcek, Uint8Array.of(1, 2)],
      ['11'.repeat(16), Uint8Array.of(9)],
      [guid.ark, Uint8Array.of(3)],
    ]);
    expect(parseCertificateTable(blob)).toEqual({ vcek: Uint8Array.of(1, 2), ark: Uint8Array.of(3) });
    expect(parseCertificateTable(new Uint8Array(0))).toEqual({});
    expect(parseCertificateTable(new Uint8Array(24))).toEqual({});
  });

  test.each([
    ['no closing entry', (b: Uint8Array) => b.subarray(0, 24)],
    ['a length past the end', (b: Uint8Array) => ((b[20] = 200), b)],
    ['an offset past the end', (b: Uint8Array) => ((b[18] = 1), b)],
    ['an offset into the head', (b: Uint8Array) => ((b[16] = 0), b)],
    ['no length', (b: Uint8Array) => ((b[20] = 0), b)],
    ['a huge length', (b: Uint8Array) => ((b[23] = 0xff), b)],
  ])('with %s counts as none', (_, damage) => {
    expect(parseCertificateTable(damage(table([[guid.vcek, Uint8Array.of(1, 2)]])))).toBeUndefined();
  });

  test('with the same certificate twice counts as none', () => {
    expect(parseCertificateTable(table([[guid.ask, Uint8Array.of(1)], [guid.ask, Uint8Array.of(2)]]))).toBeUndefined(); // prettier-ignore
  });

  test('with bytes that are no certificates staples nothing', () => {
    expect(
      endorsementsOf({ vcek: Uint8Array.of(1), ask: Uint8Array.of(1), ark: Uint8Array.of(1) }),
    ).toBeUndefined();
  });

  test('property: any bytes give a table or undefined, never an error or a read outside', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), fc.nat(20), (bytes, offset) => {
        const inside = new Uint8Array(bytes.length + offset);
        inside.set(bytes, offset);
        const parsed = parseCertificateTable(inside.subarray(offset));
        for (const content of Object.values(parsed ?? {}))
          expect(content.length).toBeLessThanOrEqual(bytes.length);
      }),
      { numRuns: 300 * Number(process.env['ASSAY_FUZZ'] ?? 1) },
    );
  });

  test('a table of random entries is read back', () => {
    const vcek = new Uint8Array(randomBytes(1400));
    const ask = new Uint8Array(randomBytes(1600));
    expect(parseCertificateTable(table([[guid.vcek, vcek], [guid.ask, ask]]))).toEqual({ vcek, ask }); // prettier-ignore
  });
});
