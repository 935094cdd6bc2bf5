// The image boots under software emulation, proves itself to the real client and answers; whatever is altered fails closed and
// says why. What shows evidence is a test image with the simulated TEE; what is refused is refused by the production image. Takes minutes, so it runs with ASSAY_IMAGE_TEST=1 (`make image-test`), where the locked inputs are in the cache.

import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  watch,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
  closeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Agent, fetch } from 'undici';
import OpenAI from 'openai';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { allowSimulated, type AppraisalPolicy } from '@assay/attestation';
import { parseManifest, rtmr1Events, rtmr2Events } from '@assay/attestation/launch';
import { type AttestedFetch, attestedFetch } from '@assay/attestation/node';
import { buildImage, lockedSources } from '../../image/build.ts';
import { modelSerial, operatorConfig, textDisk } from '../../image/disks.ts';
import { type Emulator, openEmulator } from '../../image/emulator.ts';
import { readLock } from '../../image/lock.ts';
import { findMirrors, openInputs } from '../../image/mirror.ts';
import { initScript } from '../../image/rootfs.ts';
import { TOP } from '../../image/top.ts';
import { EXPECTED } from '../../scripts/demo-model/text.ts';
import {
  type Disk,
  type Guest,
  haveInputs,
  inputsFolder,
  standardDisks,
  startGuest,
} from '../fixtures/image/guest.ts';
import { tpmEvents } from '../fixtures/image/tpm-log.ts';

const WANTED = process.env['ASSAY_IMAGE_TEST'] === '1';
const gguf = join(TOP, '.cache/models/demo-chat.gguf');
const ready = WANTED && haveInputs('image', 'emulator') && existsSync(gguf);
if (WANTED && !ready)
  console.warn(
    '\n! the locked inputs or the demo model are not in the cache: the boot tests are skipped (make models image-inputs)\n',
  );

const TOML = `
[api]
address = "0.0.0.0:8443"
admin_enabled = false
[tee]
mode = "simulated"
[store]
data_dir = "/run/data"
residency = "verity"
verity_folder = "/run/models"
[models]
pull_enabled = false
[api.models.demo-chat]
path = "/run/models/demo-chat/model.gguf"
[log]
level = "info"
`;

/** What a guest does that ends well: printed by a hook of a test image, run as the server's user where that matters. */
const PROBE = `
unprivileged() { /usr/bin/setpriv --reuid=1000 --regid=1000 --clear-groups --bounding-set=-all --inh-caps=-all --no-new-privs $bb "$@"; }
(
  log=/sys/kernel/security/tpm0/binary_bios_measurements
  [ -e $log ] && echo "probe: tpm $($bb base64 $log | $bb tr -d '\\n')"
  while ! $bb grep -q ':20FB .* 0A ' /proc/net/tcp; do $bb usleep 100000; done
  echo "probe: lockdown $($bb cat /sys/kernel/security/lockdown)"
  echo "probe: modules_disabled $($bb cat /proc/sys/kernel/modules_disabled)"
  echo "probe: root $($bb grep ' / ' /proc/mounts)"
  echo "probe: setuid $($bb find / -xdev -perm /6000 2> /dev/null | $bb wc -l)"
  echo "probe: writable $($bb find / -xdev -type f -perm /022 2> /dev/null | $bb wc -l)"
  echo "probe: listening $($bb cat /proc/net/tcp /proc/net/tcp6 /proc/net/udp /proc/net/udp6 | $bb grep -E ' (0A|07) ' | $bb cut -c 7-20 | $bb tr '\\n' ' ')"
  for pid in $($bb pidof node); do
    echo "probe: process $($bb tr '\\000' ' ' < /proc/$pid/cmdline | $bb cut -c 1-100) $($bb grep -E '^(Uid|CapEff|CapBnd|NoNewPrivs)' /proc/$pid/status | $bb tr '\\t\\n' '  ')core $($bb grep 'core file' /proc/$pid/limits | $bb tr -s ' ' | $bb cut -d ' ' -f 5)"
  done
  touch() { unprivileged touch "$1" 2> /dev/null && echo "probe: touched $1"; }
  for path in / /etc /usr /opt/assay /run /run/assay /run/models /sys/kernel/config; do touch "$path/x"; done
  unprivileged cat /dev/vda > /dev/null 2>&1 && echo 'probe: read the disk'
  unprivileged mkdir /sys/kernel/config/tsm/report/x 2> /dev/null && echo 'probe: made a report'
  unprivileged dmesg > /dev/null 2>&1 && echo 'probe: read the kernel log'
  echo x > /dev/kmsg 2> /dev/null || echo 'probe: no kmsg'
  $bb insmod /opt/assay/dhcp.sh 2>&1 | $bb grep -q 'not permitted' && echo 'probe: insmod refused'
  $bb dd if=/dev/mem of=/dev/null bs=4096 count=1 2> /dev/null && echo 'probe: read memory'
  echo "probe: memory $($bb free -m | $bb grep Mem)"
  echo "probe: socket $($bb stat -c '%a %u %g' /run/attestd/socket)"
  echo 'probe: end'
  for pid in $($bb pidof node); do $bb grep -q attestd /proc/$pid/cmdline && $bb kill -9 $pid; done
) &
`;

/** Sent in a question, in a refused one, and in the names of a third; looked for in the guest by a hook of a test image. */
const CANARY = `canaryguest${randomBytes(6).toString('hex')}`;
const SINKS = `
(
  served() { $bb grep -q ':20FB .* 01 ' /proc/net/tcp; }
  while ! served; do $bb usleep 50000; done
  while served; do $bb usleep 50000; done
  echo ${CANARY} > /run/control
  # Whatever can be written to: each such file system, whole.
  for place in $($bb awk '$4 ~ /^rw/ && $3 ~ /^(tmpfs|ramfs|devtmpfs|ext|erofs|overlay)/ { print $2 }' /proc/mounts); do
    echo "probe: searched $place"
    $bb find $place -xdev -type f | while read -r file; do
      $bb grep -q ${CANARY} "$file" && echo "probe: found $file"
    done
    $bb find $place -xdev -name '*${CANARY}*' | while read -r file; do echo "probe: named $file"; done
  done
  echo "probe: kernel log $($bb dmesg | $bb wc -l) $($bb dmesg | $bb grep -c ${CANARY})"
  for pid in $($bb pidof node); do
    $bb grep -q ${CANARY} /proc/$pid/cmdline /proc/$pid/environ && echo "probe: found /proc/$pid"
  done
  echo "probe: swap $($bb grep -c / /proc/swaps) dumps $($bb cat /proc/sys/kernel/core_pattern)"
  echo 'probe: end'
) &
`;

/** The production image. Below it `test`: the same with the simulated TEE; `probe` and `sinks`: with hooks besides. */
let folder = '';
let emulator: Emulator;
let guest: Guest | undefined;
let modelDisk: Disk;

beforeAll(async () => {
  if (!ready) return;
  folder = mkdtempSync(join(tmpdir(), 'assay-boot-'));
  const lock = readLock(join(TOP, 'image/inputs.lock.json'));
  const inputs = openInputs(inputsFolder, () => findMirrors(process.env));
  emulator = await openEmulator(lock, inputs, join(TOP, '.cache/emulator'));
  const sources = await lockedSources(inputsFolder);
  await buildImage({ out: folder, sources, toml: TOML, models: [gguf] });
  await buildImage({ out: join(folder, 'test'), sources, toml: TOML, models: [gguf], simulatedTee: true });
  await buildImage({
    out: join(folder, 'probe'),
    sources,
    toml: TOML,
    models: [gguf],
    simulatedTee: true,
    hooks: { 'test-start': PROBE },
  });
  const [model] = manifestOf().models;
  modelDisk = { file: join(folder, 'model-demo-chat.img'), serial: modelSerial(model!.rootHash) };
}, 600_000);
afterEach(async () => {
  await guest?.stop();
  guest = undefined;
});
afterAll(() => {
  if (folder !== '') rmSync(folder, { recursive: true, force: true });
});

function hex(digests: readonly Uint8Array[]): string[] {
  return digests.map((digest) => Buffer.from(digest).toString('hex'));
}
function ended(child: ChildProcess): Promise<unknown> {
  return once(child, 'exit');
}

function manifestOf() {
  return parseManifest(readFileSync(join(folder, 'manifest.json'), 'utf8'));
}
function disks(of = folder): readonly Disk[] {
  return [...standardDisks(of), modelDisk];
}

/** Boots, and gives the console once the guest has ended by itself. */
async function bootToEnd(options: { cmdline?: string; disks?: readonly Disk[] }): Promise<string> {
  guest = await startGuest({
    emulator,
    folder,
    disks: options.disks ?? disks(),
    ...(options.cmdline === undefined ? {} : { cmdline: options.cmdline }),
  });
  await guest.ended;
  expect(guest.console()).not.toContain('listening');
  return guest.console();
}

describe.skipIf(!ready)('the image under emulation', () => {
  test(
    'boots to an attested, verified chat answer of the demo model, and the console stays silent',
    { timeout: 600_000 },
    async () => {
      const started = performance.now();
      const test = join(folder, 'test');
      guest = await startGuest({ emulator, folder: test, disks: disks(test) });
      await guest.line(/"msg":"listening"/);
      const url = `https://127.0.0.1:${guest.port}`;
      // The simulated hierarchy is made in the guest, so its root and measurement are learned from the guest itself, once.
      const plain = new Agent({ connect: { rejectUnauthorized: false } });
      const first = (await (
        await fetch(`${url}/v1/attestation?nonce=${'00'.repeat(32)}`, { dispatcher: plain })
      ).json()) as {
        measurement: string;
      };
      await plain.close();
      const policy = {
        measurements: [{ name: 'guest', measurement: first.measurement }],
        models: { 'demo-chat': manifestOf().models[0]!.sha256 },
        [allowSimulated]: true,
      } as unknown as AppraisalPolicy;
      const attested: AttestedFetch = attestedFetch({
        policy,
        connectTimeoutMs: 60_000,
        attestTimeoutMs: 60_000,
      });
      const question = EXPECTED[0]?.question ?? '';
      const client = new OpenAI({
        baseURL: `${url}/v1`,
        apiKey: 'any',
        fetch: attested as unknown as typeof globalThis.fetch,
        maxRetries: 0,
      });
      const completion = await client.chat.completions.create({
        model: 'demo-chat',
        messages: [{ role: 'user', content: question }],
      });
      expect(completion.choices[0]?.message.content).toBe(EXPECTED[0]?.answer);
      console.info(
        `boot to first verified answer under emulation: ${((performance.now() - started) / 1000).toFixed(1)} s`,
      );
      await attested.close();
      expect(guest.console()).toContain('model demo-chat verified');
      expect(guest.console().split('the console is silent from here on')[1]?.trim()).toBe('');
      expect(guest.console()).not.toContain(question);
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
      const probe = join(folder, 'probe');
      guest = await startGuest({ emulator, folder: probe, disks: [...standardDisks(probe), modelDisk] });
      await guest.line(/probe: end/);
      const found = (start: string): string[] =>
        [...guest!.console().matchAll(new RegExp(`^probe: ${start}(.*)$`, 'gm'))].map((match) =>
          (match[1] ?? '').trim(),
        );
      expect(found('lockdown')[0]).toContain('[confidentiality]');
      expect(found('modules_disabled')).toEqual(['1']);
      expect(found('root')[0]).toMatch(/^\/dev\/mapper\/assay-root \/ erofs ro,nosuid,nodev/);
      expect(found('setuid')).toEqual(['0']);
      expect(found('writable')).toEqual(['0']);
      // 8443 on every address, and nothing else, TCP or UDP.
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
      await guest.line(/the root part ended, powering off/);
      await guest.ended;
    },
  );

  test(
    'a question, a refusal and names leave nothing in the guest: no file, no kernel log, no console',
    { timeout: 600_000 },
    async () => {
      const sinks = join(folder, 'sinks');
      await buildImage({
        out: sinks,
        sources: await lockedSources(inputsFolder),
        toml: TOML,
        models: [gguf],
        simulatedTee: true,
        hooks: { 'test-start': SINKS },
      });
      guest = await startGuest({ emulator, folder: sinks, disks: [...standardDisks(sinks), modelDisk] });
      await guest.line(/"msg":"listening"/);
      // One connection for all: the guest is searched when it ends.
      const dispatcher = new Agent({ connect: { rejectUnauthorized: false }, connections: 1, pipelining: 1 });
      const ask = async (body: unknown, path = '/v1/chat/completions'): Promise<string> => {
        const headers = {
          'content-type': 'application/json',
          authorization: `Bearer ${CANARY}`,
          'user-agent': CANARY,
        };
        const response = await fetch(`https://127.0.0.1:${guest!.port}${path}`, {
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
      await guest.line(/probe: end/);
      const found = (start: string): string[] =>
        [...guest!.console().matchAll(new RegExp(`^probe: ${start} (.*)$`, 'gm'))].map((match) =>
          (match[1] ?? '').trim(),
        );
      expect(found('searched')).toContain('/run');
      // What the search itself put there, and so what it can find.
      expect(found('found')).toEqual(['/run/control']);
      expect(found('named')).toEqual([]);
      const [lines, hits] = (found('kernel log')[0] ?? '').split(' ').map(Number);
      expect(lines).toBeGreaterThan(10);
      expect(hits).toBe(0);
      expect(found('swap')[0]).toMatch(/^0 dumps/);
      expect(guest.console()).not.toContain(CANARY);
    },
  );

  test(
    'firmware and kernel measure under emulation what was predicted for RTMR1 and RTMR2',
    { timeout: 600_000 },
    async () => {
      const probe = join(folder, 'probe');
      const state = join(folder, 'tpm');
      mkdirSync(state, { recursive: true });
      const control = join(state, 'control');
      const [program, args] = emulator.command('swtpm', [
        'socket',
        '--tpm2',
        '--tpmstate',
        `dir=${state}`,
        '--ctrl',
        `type=unixio,path=${control}`,
      ]);
      const tpm = spawn(program, args, { stdio: 'ignore' });
      await new Promise<void>((resolve, reject) => {
        const watcher = watch(state, (_event, name) => name === 'control' && resolve());
        tpm.on('exit', () => reject(new Error('swtpm ended')));
        if (existsSync(control)) resolve();
        void ended(tpm).then(() => watcher.close());
      });
      const machine = ['-machine', 'q35,smm=off', '-bios', join(probe, 'OVMF.tdx.fd')];
      const device = [
        '-chardev',
        `socket,id=tpm,path=${control}`,
        '-tpmdev',
        'emulator,id=tpm0,chardev=tpm',
        '-device',
        'tpm-crb,tpmdev=tpm0',
      ];
      guest = await startGuest({
        emulator,
        folder: probe,
        disks: [...standardDisks(probe), modelDisk],
        extra: [...machine, ...device],
      });
      const [, log = ''] = /probe: tpm (\S+)/.exec(await guest.line(/probe: tpm/)) ?? [];
      await guest.stop();
      tpm.kill('SIGKILL');
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
        writeFileSync(join(folder, 'operator.img'), textDisk(text, 'operator'));
        return { file: join(folder, 'operator.img'), serial: 'assay-operator' };
      };
      const good = operatorConfig({
        address: '10.0.2.15/24',
        gateway: '10.0.2.2',
        dns: '10.0.2.3',
        toml: '[api]\nmax_requests_per_minute = 1000\n',
      });
      const test = join(folder, 'test');
      guest = await startGuest({ emulator, folder: test, disks: [...disks(test), disk(good)] });
      await guest.line(/"msg":"listening"/);
      await guest.stop();
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

function changed(word: string, to: string): string {
  return readFileSync(join(folder, 'cmdline'), 'utf8').replace(new RegExp(`${word}=\\S+`), `${word}=${to}`);
}
function copy(name: string): string {
  copyFileSync(join(folder, name), join(folder, `${name}.changed`));
  return join(folder, `${name}.changed`);
}
function flip(path: string, at: number): void {
  const file = openSync(path, 'r+');
  writeSync(file, Uint8Array.of((readFileSync(path)[at] ?? 0) ^ 1), 0, 1, at);
  closeSync(file);
}

describe.skipIf(!ready)('what is altered fails closed and says why', () => {
  test.each([
    [
      'wrong root hash',
      () => changed('assay.root', '0'.repeat(64)),
      /dm-verity device corrupted|the root image does not mount/,
    ],
    [
      'wrong configuration hash',
      () => changed('assay.cfg', '0'.repeat(64)),
      /the configuration disk has sha256 [0-9a-f]{64}, the measured command line says 0{64}/,
    ],
    [
      'root hash given twice',
      () => `${changed('assay.none', '')} assay.root=${'0'.repeat(64)}`,
      /refused to boot: assay.root is given 2 times/,
    ],
    [
      'no configuration hash',
      () => changed('assay.cfg', '').replace('assay.cfg=', ''),
      /refused to boot: assay.cfg is given 0 times/,
    ],
    [
      'malformed root hash',
      () => changed('assay.root', 'A'.repeat(64)),
      /assay.root is not 64 lower-case hex digits/,
    ],
    [
      'an unknown parameter',
      () => `${changed('assay.none', '')} assay.debug=1`,
      /a parameter that is not allowed: assay.debug/,
    ],
    [
      'another init',
      () => `${changed('assay.none', '')} init=/bin/busybox`,
      /a parameter that is not allowed: init/,
    ],
    ['more blocks than the disk has', () => changed('assay.blocks', '99999999'), /the root disk is smaller/],
  ] as const)('%s', { timeout: 300_000 }, async (_name, line, expected) => {
    expect(await bootToEnd({ cmdline: line() })).toMatch(expected);
  });

  test('a corrupted block of the root image', { timeout: 300_000 }, async () => {
    const path = copy('root.img');
    // In the inodes, which mounting reads.
    flip(path, 4096 + 16);
    expect(await bootToEnd({ disks: [{ file: path, serial: 'assay-root' }, ...disks().slice(1)] })).toMatch(
      /verity.*corrupted/,
    );
  });

  test(
    'a missing model disk, and one with other bytes behind the right serial',
    { timeout: 500_000 },
    async () => {
      expect(await bootToEnd({ disks: standardDisks(folder) })).toContain(
        'the disk of model demo-chat is missing',
      );
      const path = copy('model-demo-chat.img');
      flip(path, 4096 + 16);
      expect(
        await bootToEnd({ disks: [...standardDisks(folder), { file: path, serial: modelDisk.serial }] }),
      ).toMatch(/verity.*corrupted/);
    },
  );

  test('a changed configuration, even by one byte', { timeout: 300_000 }, async () => {
    const path = copy('config.img');
    flip(path, statSync(path).size > 400 ? 300 : 100);
    expect(
      await bootToEnd({
        disks: [standardDisks(folder)[0]!, { file: path, serial: 'assay-config' }, modelDisk],
      }),
    ).toMatch(/the configuration disk has sha256/);
  });

  test('no root disk, and two of them', { timeout: 300_000 }, async () => {
    expect(await bootToEnd({ disks: disks().slice(1) })).toContain(
      'there is no disk with the serial assay-root',
    );
    expect(await bootToEnd({ disks: [...disks(), standardDisks(folder)[0]!] })).toContain(
      'two disks have the serial assay-root',
    );
  });

  test("AMD's firmware does not boot a kernel without measured hashes", { timeout: 300_000 }, async () => {
    guest = await startGuest({
      emulator,
      folder,
      disks: disks(),
      extra: ['-machine', 'q35,smm=off', '-bios', join(folder, 'OVMF.snp.fd')],
    });
    await guest.line(/BdsDxe: No bootable option was found/);
    expect(guest.console()).not.toMatch(/assay:|Linux version|verity/);
    await guest.stop();
  });
});

test('the hooks of test images have their places, and the production script has none of their text', () => {
  expect(initScript()).not.toContain('#@');
  expect(initScript()).not.toContain('probe');
  expect(initScript({ 'test-start': 'echo here' })).toContain('echo here');
  expect(() => initScript({ other: '' })).toThrow(/no place/);
});
