// The image with the libraries of `make native` boots under emulation: a model that sees and one that hears,
// each from a disk of its own, are attested with every file and answer through the verifying client. The same
// image without the libraries refuses them. Runs with ASSAY_IMAGE_TEST=1, as test/e2e/image-boot.test.ts does.

import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import OpenAI, { toFile } from 'openai';
import { Agent, fetch } from 'undici';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { allowSimulated, type AppraisalPolicy } from '@assay/attestation';
import { parseManifest } from '@assay/attestation/launch';
import { attestedFetch, type AttestedFetch } from '@assay/attestation/node';
import { buildImage, lockedSources } from '../../image/build.ts';
import { modelSerial } from '../../image/disks.ts';
import { type Emulator, openEmulator } from '../../image/emulator.ts';
import { readLock } from '../../image/lock.ts';
import { findMirrors, openInputs } from '../../image/mirror.ts';
import { nativeParts } from '../../image/native.ts';
import { TOP } from '../../image/top.ts';
import { toneWav } from '../fixtures/audio/sound.ts';
import { randomWhisper } from '../fixtures/audio/whisper-file.ts';
import { dataUri, picture } from '../fixtures/images.ts';
import { WANTED } from '../fixtures/image/boot-image.ts';
import {
  type Disk,
  type Guest,
  haveInputs,
  inputsFolder,
  standardDisks,
  startGuest,
} from '../fixtures/image/guest.ts';
import { TILE_TOKENS, visionProjector, visionText } from '../fixtures/models/vision-model.ts';

const NATIVE = join(TOP, 'dist/native/linux-x64');
const ready = WANTED && haveInputs('image', 'emulator') && built();

/** All of them, as they are recorded. */
function built(): boolean {
  try {
    return nativeParts(NATIVE, TOP).size > 0;
  } catch {
    return false;
  }
}

if (WANTED && !ready)
  console.warn(
    '\n! the locked inputs or the native parts are missing: the image with native parts is not booted (make native image-inputs)\n',
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
[api.models.sees]
path = "/run/models/sees"
[api.models.hears]
path = "/run/models/hears/model.bin"
`;

describe.skipIf(!ready)('the image with native parts', () => {
  let folder: string;
  let emulator: Emulator;
  let guest: Guest | undefined;

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'assay-native-boot-'));
    const sees = join(folder, 'sees');
    mkdirSync(sees);
    writeFileSync(join(sees, 'tiny.gguf'), visionText());
    writeFileSync(join(sees, 'mmproj-tiny.gguf'), visionProjector());
    writeFileSync(join(folder, 'hears.bin'), randomWhisper());
    const inputs = openInputs(inputsFolder, () => findMirrors(process.env));
    emulator = await openEmulator(
      readLock(join(TOP, 'image/inputs.lock.json')),
      inputs,
      join(TOP, '.cache/emulator'),
    );
    const sources = await lockedSources(inputsFolder);
    const models = [sees, join(folder, 'hears.bin')];
    for (const [name, native] of [
      ['with', NATIVE],
      ['without', undefined],
    ] as const)
      await buildImage({ out: join(folder, name), sources, toml: TOML, models, simulatedTee: true, native });
  }, 600_000);

  afterEach(async () => {
    await guest?.stop();
    guest = undefined;
  });

  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  const manifestOf = (name: string) =>
    parseManifest(readFileSync(join(folder, name, 'manifest.json'), 'utf8'));

  const boot = (name: string): Promise<Guest> => {
    const place = join(folder, name);
    const models = manifestOf(name).models.map((model): Disk => ({
      file: join(place, `model-${model.name}.img`),
      serial: modelSerial(model.rootHash),
    }));
    return startGuest({
      emulator,
      folder: place,
      disks: [...standardDisks(place), ...models],
      memoryMiB: 2048,
    });
  };

  test(
    'a picture and a sound are answered over the attested connection',
    { timeout: 1_200_000 },
    async () => {
      guest = await boot('with');
      await guest.line(/"msg":"listening"/);
      const url = `https://127.0.0.1:${guest.port}`;
      // The simulated hierarchy is made in the guest: its measurement is learned from it, once.
      const plain = new Agent({ connect: { rejectUnauthorized: false } });
      const evidence = await fetch(`${url}/v1/attestation?nonce=${'00'.repeat(32)}`, { dispatcher: plain });
      const { measurement } = (await evidence.json()) as { readonly measurement: string };
      await plain.close();
      const { models } = manifestOf('with');
      const policy = {
        measurements: [{ name: 'guest', measurement }],
        models: Object.fromEntries(models.map(({ name, sha256 }) => [name, sha256])),
        [allowSimulated]: true,
      } as unknown as AppraisalPolicy;
      const attested: AttestedFetch = attestedFetch({
        policy,
        connectTimeoutMs: 120_000,
        attestTimeoutMs: 120_000,
      });
      const client = new OpenAI({
        baseURL: `${url}/v1`,
        apiKey: 'any',
        fetch: attested as unknown as typeof globalThis.fetch,
        maxRetries: 0,
        timeout: 600_000,
      });
      const content = [
        { type: 'image_url' as const, image_url: { url: dataUri(picture(48, 48)) } },
        { type: 'text' as const, text: 'What?' },
      ];
      const seen = await client.chat.completions.create({
        model: 'sees',
        max_tokens: 4,
        messages: [{ role: 'user', content }],
      });
      expect(seen.usage?.prompt_tokens).toBeGreaterThan(TILE_TOKENS);
      const heard = await client.audio.transcriptions.create({
        model: 'hears',
        file: await toFile(toneWav({ seconds: 1, rate: 16_000, channels: 1 }), 'tone.wav'),
        temperature: 0.01,
      });
      expect(heard).toMatchObject({ usage: { type: 'duration', seconds: 1 } });
      await attested.close();
      expect(guest.console()).toContain('model sees verified');
      expect(guest.console().split('the console is silent from here on')[1]?.trim()).toBe('');
    },
  );

  test('without the libraries the same disks end the start by name', { timeout: 600_000 }, async () => {
    guest = await boot('without');
    await guest.ended;
    expect(guest.console()).toMatch(/libwhisper[\s\S]*the server ended, powering off/);
    expect(guest.console()).not.toContain('listening');
  });
});
