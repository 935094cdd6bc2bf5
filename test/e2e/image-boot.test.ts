// The image boots under software emulation, proves itself to the real client and answers; whatever is altered
// fails closed and says why. A test image with the simulated TEE shows evidence; the production image
// refuses. Takes minutes, so it runs with ASSAY_IMAGE_TEST=1 (`make image-test`), where the locked inputs are
// in the cache.

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Agent, fetch } from 'undici';
import { describe, expect, test } from 'vitest';
import { rtmr1Events, rtmr2Events } from '@assay/attestation/launch';
import { buildImage, lockedSources } from '../../image/build.ts';
import { operatorConfig, textDisk } from '../../image/disks.ts';
import { initScript } from '../../image/rootfs.ts';
import { EXPECTED } from '../../scripts/demo-model/text.ts';
import { attestedClient } from '../fixtures/image/attested-client.ts';
import { type Disk, inputsFolder, standardDisks, startGuest } from '../fixtures/image/guest.ts';
import { startTpm } from '../fixtures/image/tpm.ts';
import { tpmEvents } from '../fixtures/image/tpm-log.ts';
import {
  WANTED,
  gguf,
  ready,
  TOML,
  PROBE,
  CANARY,
  SINKS,
  useBootImage,
} from '../fixtures/image/boot-image.ts';

if (WANTED && !ready)
  console.warn(
    '\n! the locked inputs or the demo model are not in the cache: the boot tests are skipped (make models image-inputs)\n',
  );

const fixture = useBootImage({ test: {}, probe: { 'test-start': PROBE } });
const { manifestOf, disks, bootToEnd } = fixture;

function hex(digests: readonly Uint8Array[]): string[] {
  return digests.map((digest) => Buffer.from(digest).toString('hex'));
}

describe.skipIf(!ready)('the image under emulation', () => {
  test(
    'boots to an attested, verified chat answer of the demo model, and the console stays silent',
    { timeout: 600_000 },
    async () => {
      const started = performance.now();
      const test = join(fixture.folder, 'test');
      fixture.guest = await startGuest({ emulator: fixture.emulator, folder: test, disks: disks(test) });
      await fixture.guest.line(/"msg":"listening"/);
      const question = EXPECTED[0]?.question ?? '';
      const { client, close } = await attestedClient(fixture.guest, manifestOf());
      const completion = await client.chat.completions.create({
        model: 'demo-chat',
        messages: [{ role: 'user', content: question }],
      });
      expect(completion.choices[0]?.message.content).toBe(EXPECTED[0]?.answer);
      console.info(
        `boot to first verified answer under emulation: ${((performance.now() - started) / 1000).toFixed(1)} s`,
      );
      await close();
      expect(fixture.guest.console()).toContain('model demo-chat verified');
      expect(fixture.guest.console().split('the console is silent from here on')[1]?.trim()).toBe('');
      expect(fixture.guest.console()).not.toContain(question);
    },
  );

  test(
    'the production image cannot simulate a TEE, even where its measured configuration asks for that',
    { timeout: 600_000 },
    async () => {
      expect(await bootToEnd({})).toMatch(
        /tee\.mode "simulated": this build cannot simulate a TEE[\s\S]*the server ended, powering off/,
      );
    },
  );

  test(
    'hardening: one port, read-only root, no setuid files, no modules, lockdown, no capabilities',
    { timeout: 600_000 },
    async () => {
      const probe = join(fixture.folder, 'probe');
      fixture.guest = await startGuest({
        emulator: fixture.emulator,
        folder: probe,
        disks: [...standardDisks(probe), fixture.modelDisk],
      });
      await fixture.guest.line(/probe: end/);
      const found = (start: string): string[] =>
        [...fixture.guest!.console().matchAll(new RegExp(`^probe: ${start}(.*)$`, 'gm'))].map((match) =>
          (match[1] ?? '').trim(),
        );
      expect(found('lockdown')[0]).toContain('[confidentiality]');
      expect(found('modules_disabled')).toEqual(['1']);
      expect(found('root')[0]).toMatch(/^\/dev\/mapper\/assay-root \/ erofs ro,nosuid,nodev/);
      expect(found('setuid')).toEqual(['0']);
      expect(found('writable')).toEqual(['0']);
      // 8443 on every address, and no other port, TCP or UDP.
      expect(found('listening')[0]?.split(' ').filter(Boolean)).toEqual(['00000000:20FB']);
      const processes = found('process');
      const server = processes.find((line) => line.includes('cli/main.js'));
      expect(server).toMatch(/Uid: 1000 1000 1000 1000 CapEff: 0{16} CapBnd: 0{16} NoNewPrivs: 1 core 0/);
      expect(processes.find((line) => line.includes('attestd/main'))).toMatch(
        /Uid: 0 0 0 0 CapEff: 0{16} CapBnd: 0{16} NoNewPrivs: 1 core 0/,
      );
      expect(found('socket')).toEqual(['660 0 1000']);
      for (const bad of ['touched', 'read the disk', 'made a report', 'read the kernel log', 'read memory'])
        expect(found(bad)).toEqual([]);
      expect(found('insmod refused')).toHaveLength(1);
      console.info(`idle memory (total used free shared cache available, MiB): ${found('memory')[0]}`);
      // The probe then ends the root part, and the guest does not go on without it.
      await fixture.guest.line(/the root part ended, powering off/);
      await fixture.guest.ended;
    },
  );

  test(
    'a question, a refusal and names leave nothing in the guest: no file, no kernel log, no console',
    { timeout: 600_000 },
    async () => {
      const sinks = join(fixture.folder, 'sinks');
      await buildImage({
        out: sinks,
        sources: await lockedSources(inputsFolder),
        toml: TOML,
        models: [gguf],
        simulatedTee: true,
        hooks: { 'test-start': SINKS },
      });
      fixture.guest = await startGuest({
        emulator: fixture.emulator,
        folder: sinks,
        disks: [...standardDisks(sinks), fixture.modelDisk],
      });
      await fixture.guest.line(/"msg":"listening"/);
      // One connection for all: the guest is searched when it ends.
      const dispatcher = new Agent({ connect: { rejectUnauthorized: false }, connections: 1, pipelining: 1 });
      const ask = async (body: unknown, path = '/v1/chat/completions'): Promise<string> => {
        const headers = {
          'content-type': 'application/json',
          authorization: `Bearer ${CANARY}`,
          'user-agent': CANARY,
        };
        const response = await fetch(`https://127.0.0.1:${fixture.guest!.port}${path}`, {
          method: 'POST',
          headers,
          body: JSON.stringify(body),
          dispatcher,
        });
        return `${response.status} ${await response.text()}`;
      };
      const messages = [{ role: 'user', content: `${EXPECTED[0]?.question} ${CANARY}` }];
      const schema = { type: 'json_schema', json_schema: { name: 'x', schema: { const: CANARY } } };
      expect(await ask({ model: 'demo-chat', messages })).toMatch(/^200 /);
      // The model itself writes it.
      expect(await ask({ model: 'demo-chat', messages, response_format: schema, max_tokens: 100 })).toMatch(
        new RegExp(`^200 .*${CANARY}`),
      );
      expect(await ask({ model: 'demo-chat', messages, temperature: CANARY })).toMatch(/^400 /);
      expect(await ask({ model: CANARY, messages }, `/v1/${CANARY}?${CANARY}`)).toMatch(/^404 /);
      await dispatcher.close();
      await fixture.guest.line(/probe: end/);
      const found = (start: string): string[] =>
        [...fixture.guest!.console().matchAll(new RegExp(`^probe: ${start} (.*)$`, 'gm'))].map((match) =>
          (match[1] ?? '').trim(),
        );
      expect(found('searched')).toContain('/run');
      // The search itself put it there, which shows that it finds.
      expect(found('found')).toEqual(['/run/control']);
      expect(found('named')).toEqual([]);
      const [lines, hits] = (found('kernel log')[0] ?? '').split(' ').map(Number);
      expect(lines).toBeGreaterThan(10);
      expect(hits).toBe(0);
      expect(found('swap')[0]).toMatch(/^0 dumps/);
      expect(fixture.guest.console()).not.toContain(CANARY);
    },
  );

  test(
    'firmware and kernel measure under emulation what was predicted for RTMR1 and RTMR2',
    { timeout: 600_000 },
    async () => {
      const probe = join(fixture.folder, 'probe');
      const tpm = await startTpm(fixture.emulator, join(fixture.folder, 'tpm'));
      const machine = ['-machine', 'q35,smm=off', '-bios', join(probe, 'OVMF.tdx.fd')];
      fixture.guest = await startGuest({
        emulator: fixture.emulator,
        folder: probe,
        disks: [...standardDisks(probe), fixture.modelDisk],
        extra: [...machine, ...tpm.device],
      });
      const [, log = ''] = /probe: tpm (\S+)/.exec(await fixture.guest.line(/probe: tpm/)) ?? [];
      await fixture.guest.stop();
      tpm.stop();
      const events = tpmEvents(new Uint8Array(Buffer.from(log, 'base64')));
      const inPcr = (...pcrs: number[]): string[] =>
        events.filter(({ pcr }) => pcrs.includes(pcr)).map(({ sha384 }) => sha384);
      const kernel = readFileSync(join(probe, 'vmlinuz'));
      const initrd = readFileSync(join(probe, 'initrd.cpio'));
      const [image, calling, separator] = hex(rtmr1Events({ kernel }));
      expect(inPcr(4)).toEqual([image, calling, separator]);
      const line = readFileSync(join(probe, 'cmdline'), 'utf8');
      expect(inPcr(9)).toEqual(hex(rtmr2Events({ cmdline: line, initrd }, 'kernel-as-given, initrd first')));
    },
  );

  test(
    'an operator disk can set an address and keys of the operator, and nothing else',
    { timeout: 600_000 },
    async () => {
      const disk = (text: string): Disk => {
        writeFileSync(join(fixture.folder, 'operator.img'), textDisk(text, 'operator'));
        return { file: join(fixture.folder, 'operator.img'), serial: 'assay-operator' };
      };
      const good = operatorConfig({
        address: '10.0.2.15/24',
        gateway: '10.0.2.2',
        dns: '10.0.2.3',
        toml: '[api]\nmax_requests_per_minute = 1000\n',
      });
      const test = join(fixture.folder, 'test');
      fixture.guest = await startGuest({
        emulator: fixture.emulator,
        folder: test,
        disks: [...disks(test), disk(good)],
      });
      await fixture.guest.line(/"msg":"listening"/);
      await fixture.guest.stop();
      expect(
        await bootToEnd({
          disks: [...disks(), disk('# assay operator configuration 1\nexec /bin/sh\n---\n')],
        }),
      ).toContain('the operator configuration has a line that is not known');
      const measuredKey = operatorConfig({ address: '10.0.2.15/24', toml: '[log]\nlevel = "debug"\n' });
      expect(await bootToEnd({ disks: [...disks(), disk(measuredKey)] })).toMatch(
        /log\.level[\s\S]*the server ended, powering off/,
      );
    },
  );
});

test('the hooks of test images have their places, and the production script has none of their text', () => {
  expect(initScript()).not.toContain('#@');
  expect(initScript()).not.toContain('probe');
  expect(initScript({ 'test-start': 'echo here' })).toContain('echo here');
  expect(() => initScript({ other: '' })).toThrow(/no place/);
});
