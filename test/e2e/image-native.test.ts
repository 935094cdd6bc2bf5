// The image with the libraries of `make native` boots under emulation: a model that sees and one that hears,
// each from a disk of its own, are attested with every file and answer through the verifying client. Runs
// with ASSAY_IMAGE_TEST=1, as test/e2e/image-boot.test.ts does.

import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type OpenAI, toFile } from 'openai';
import { expect, test } from 'vitest';
import { parseManifest } from '@assay/attestation/launch';
import { buildImage, lockedSources } from '../../image/build.ts';
import { modelSerial } from '../../image/disks.ts';
import { openEmulator } from '../../image/emulator.ts';
import { readLock } from '../../image/lock.ts';
import { findMirrors, openInputs } from '../../image/mirror.ts';
import { nativeParts } from '../../image/native.ts';
import { TOP } from '../../image/top.ts';
import { toneWav } from '../fixtures/audio/sound.ts';
import { randomWhisper } from '../fixtures/audio/whisper-file.ts';
import { attestedClient } from '../fixtures/image/attested-client.ts';
import { TOML, WANTED } from '../fixtures/image/boot-image.ts';
import { type Disk, haveInputs, inputsFolder, standardDisks, startGuest } from '../fixtures/image/guest.ts';
import { dataUri, picture } from '../fixtures/images.ts';
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

const MODELS = `
[api.models.sees]
path = "/run/models/sees"
[api.models.hears]
path = "/run/models/hears/model.bin"
`;

test.skipIf(!ready)(
  'with native parts, a picture and a sound are answered over the attested connection',
  { timeout: 1_800_000 },
  async () => {
    const folder = mkdtempSync(join(tmpdir(), 'assay-native-boot-'));
    const sees = join(folder, 'sees');
    const hears = join(folder, 'hears.bin');
    mkdirSync(sees);
    writeFileSync(join(sees, 'tiny.gguf'), visionText());
    writeFileSync(join(sees, 'mmproj-tiny.gguf'), visionProjector());
    writeFileSync(hears, randomWhisper({ isShort: true }));
    const lock = readLock(join(TOP, 'image/inputs.lock.json'));
    const inputs = openInputs(inputsFolder, () => findMirrors(process.env));
    const emulator = await openEmulator(lock, inputs, join(TOP, '.cache/emulator'));
    await buildImage({
      out: folder,
      sources: await lockedSources(inputsFolder),
      toml: TOML.slice(0, TOML.indexOf('[api.models')) + MODELS,
      models: [sees, hears],
      simulatedTee: true,
      native: NATIVE,
    });
    const manifest = parseManifest(readFileSync(join(folder, 'manifest.json'), 'utf8'));
    const disks = manifest.models.map(({ name, rootHash }): Disk => ({
      file: join(folder, `model-${name}.img`),
      serial: modelSerial(rootHash),
    }));
    const guest = await startGuest({
      emulator,
      folder,
      disks: [...standardDisks(folder), ...disks],
      memoryMiB: 2048,
    });
    try {
      await guest.line(/"msg":"listening"/);
      const { client, close } = await attestedClient(guest, manifest);
      const text = { type: 'text' as const, text: 'What?' };
      const image = { type: 'image_url' as const, image_url: { url: dataUri(picture(48, 48)) } };
      const tokensOf = async (content: OpenAI.ChatCompletionContentPart[]): Promise<number> => {
        const messages = [{ role: 'user' as const, content }];
        const { usage } = await client.chat.completions.create({ model: 'sees', max_tokens: 4, messages });
        return usage?.prompt_tokens ?? NaN;
      };
      // Four tiles, the overview, and their marks.
      expect((await tokensOf([image, text])) - (await tokensOf([text]))).toBeGreaterThan(5 * TILE_TOKENS);
      const heard = await client.audio.transcriptions.create({
        model: 'hears',
        file: await toFile(toneWav({ seconds: 1 }), 'tone.wav'),
        temperature: 0.01,
      });
      expect(heard).toMatchObject({ usage: { type: 'duration', seconds: 1 } });
      await close();
      for (const { name } of manifest.models) expect(guest.console()).toContain(`model ${name} verified`);
      expect(guest.console().split('the console is silent from here on')[1]?.trim()).toBe('');
    } finally {
      await guest.stop();
      rmSync(folder, { recursive: true });
    }
  },
);
