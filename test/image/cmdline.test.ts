// The kernel command line and the configuration disks: what binds them, what is refused, and that an
// operator's part reaches neither code nor paths.

import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { cmdline } from '../../image/cmdline.ts';
import { measuredConfig, operatorConfig, textDisk } from '../../image/disks.ts';
import { ImageError } from '../../image/errors.ts';
import { ENTRIES, SECTIONS, type SchemaField } from '../../src/config/schema.ts';

describe('the command line and the configuration', () => {
  const hash = 'ab'.repeat(32);

  test('binds root hash, size and configuration, once each', () => {
    const line = cmdline({ root: hash, blocks: 12, config: 'cd'.repeat(32) });
    expect(line.match(/assay\.[a-z]+=\S+/g)).toEqual([
      `assay.root=${hash}`,
      'assay.blocks=12',
      `assay.cfg=${'cd'.repeat(32)}`,
    ]);
    expect(line).toContain('lockdown=confidentiality');
    expect(line).toContain('module.sig_enforce=1');
  });

  test.each([
    { root: 'x', blocks: 12, config: hash },
    { root: hash, blocks: 1, config: hash },
    { root: hash, blocks: 2.5, config: hash },
    { root: hash, blocks: 12, config: `${hash} init=/x` },
  ])('refuses $root $blocks $config', (values) => {
    expect(() => cmdline(values)).toThrow(ImageError);
  });

  test('property: any change of the measured configuration changes the command line', () => {
    const model = { name: 'm', rootHash: hash, blocks: 9 };
    const lineOf = (text: string): string =>
      cmdline({ root: hash, blocks: 12, config: measuredConfig([model], text).sha256 });
    fc.assert(
      fc.property(fc.string({ minLength: 1, maxLength: 200 }), fc.nat(), (text, at) => {
        const index = at % text.length;
        const changed =
          text.slice(0, index) + String.fromCharCode(text.charCodeAt(index) ^ 1) + text.slice(index + 1);
        expect(lineOf(changed)).not.toBe(lineOf(text));
      }),
    );
  });

  test.each(['', '../x', 'A', 'a b', '.hidden', 'x'.repeat(65)])(
    'a model disk may not be named %j',
    (name) => {
      expect(() => measuredConfig([{ name, rootHash: hash, blocks: 9 }], '')).toThrow(ImageError);
    },
  );

  test('disks of text are whole sectors, and hold no NUL and no more than the guest reads', () => {
    for (const length of [1, 511, 512, 513])
      expect(textDisk('x'.repeat(length), 'config').length % 512).toBe(0);
    expect(() => textDisk('a\0b', 'config')).toThrow(ImageError);
    expect(() => textDisk('x'.repeat(65 * 1024), 'operator')).toThrow(ImageError);
    expect(operatorConfig({ address: '10.0.0.2/24' })).toBe(
      '# assay operator configuration 1\naddress 10.0.0.2/24\n---\n',
    );
  });

  test('no unmeasured input reaches code, paths, environment or the log level', () => {
    // The operator's part of the guest format has three words, none of them a path; of the server's keys an
    // operator may set, none is a path, a program, or about what is logged.
    const keys = Object.entries({ ...SECTIONS, ...ENTRIES }).flatMap(([section, fields]) =>
      Object.entries<SchemaField>(fields).map(([key, field]) => ({ name: `${section}.${key}`, field })),
    );
    const operator = keys.filter(({ field }) => field.from === 'operator');
    expect(operator.length).toBeGreaterThan(10);
    expect(
      operator
        .filter(({ field, name }) => field.path === true || name.startsWith('log.'))
        .map(({ name }) => name),
    ).toEqual([]);
  });
});
