// WebP on the real server, in each dialect: the answer to a PNG of the same pixels, whose vectors are found
// again; of an animation the first frame; damaged files are refused by name. Without its decoder it is
// refused.

import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import Anthropic from '@anthropic-ai/sdk';
import OpenAI, { APIError } from 'openai';
import { Agent, fetch as plainFetch } from 'undici';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { startRealServer, type RealServer } from '../fixtures/e2e/real-server.ts';
import { dataUri, picture, pictured } from '../fixtures/images.ts';
import { visionProjector, visionText } from '../fixtures/models/vision-model.ts';
import { haveVision, haveWebp } from '../fixtures/native/libraries.ts';
import { animation, chunk, lossless, losslessFrame } from '../fixtures/webp.ts';

const SQUARE = { width: 48, height: 48 };
const QUESTION = 'What is this?';

/** The pixels of `picture(48, 48, seed)`. */
function file(seed: number): Buffer {
  return lossless(SQUARE, pictured(seed));
}

describe.skipIf(!haveVision)('WebP', () => {
  let folder: string;
  let server: RealServer;
  const dispatcher = new Agent({ connect: { rejectUnauthorized: false } });
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- undici's own types of the same function
  const ownFetch = ((url: string, init: object) =>
    plainFetch(url, { ...init, dispatcher })) as unknown as typeof fetch;
  const clientOf = () =>
    new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'unused', maxRetries: 0, fetch: ownFetch });

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'assay-webp-'));
    await mkdir(join(folder, 'models/sees'), { recursive: true });
    await writeFile(join(folder, 'models/sees/tiny.gguf'), visionText());
    await writeFile(join(folder, 'models/sees/mmproj-tiny.gguf'), visionProjector());
    const path = JSON.stringify(join(folder, 'models/sees'));
    await writeFile(
      join(folder, 'assay.toml'),
      `[store]\nmodel_roots = [${path}]\n[api.models.sees]\npath = ${path}\nformat = "vision"\n`,
    );
    server = await startRealServer({
      dataFolder: join(folder, 'data'),
      args: ['--config', join(folder, 'assay.toml')],
    });
  }, 60_000);
  afterAll(async () => {
    await dispatcher.close();
    expect(await server.stop()).toBe(0);
    await rm(folder, { recursive: true });
  });

  const ask = (url: string) =>
    clientOf().chat.completions.create({
      model: 'sees',
      temperature: 0,
      max_tokens: 12,
      messages: [
        {
          role: 'user',
          content: [
            { type: 'image_url', image_url: { url } },
            { type: 'text', text: QUESTION },
          ],
        },
      ],
    });
  const asPng = (seed: number) => ask(dataUri(picture(SQUARE.width, SQUARE.height, seed)));
  const asWebp = (bytes: Uint8Array) => ask(dataUri(bytes, 'webp'));

  test.skipIf(haveWebp)('is refused by name where its decoder is not', async () => {
    const { status, message } = await apiError(asWebp(file(1)));
    expect(status).toBe(400);
    expect(message).toContain('a WebP image, expected PNG, JPEG or GIF');
  });

  describe.skipIf(!haveWebp)('where its decoder is', () => {
    test('the OpenAI SDK gets the answer to a PNG of the same pixels, found again', async () => {
      const png = await asPng(61);
      const webp = await asWebp(file(61));
      expect(webp.choices).toEqual(png.choices);
      expect(webp.usage?.prompt_tokens_details?.cached_tokens).toBe((png.usage?.prompt_tokens ?? 0) - 1);
      const other = await asWebp(file(62));
      expect(other.choices[0]?.message.content).not.toBe(png.choices[0]?.message.content);
    });

    test('of an animation the first frame is seen', async () => {
      const frame = (seed: number) => ({
        ...SQUARE,
        image: chunk('VP8L', losslessFrame(SQUARE, pictured(seed))),
      });
      const moving = await asWebp(animation(SQUARE, frame(63), frame(64)));
      expect(moving.choices).toEqual((await asPng(63)).choices);
    });

    test('Responses and Messages say what a chat says', async () => {
      const chat = (await asPng(65)).choices[0]?.message.content ?? '';
      expect(chat).not.toBe('');
      const image = {
        type: 'input_image' as const,
        detail: 'auto' as const,
        image_url: dataUri(file(65), 'webp'),
      };
      const response = await clientOf().responses.create({
        model: 'sees',
        temperature: 0,
        max_output_tokens: 16,
        input: [{ role: 'user', content: [image, { type: 'input_text', text: QUESTION }] }],
      });
      expect(response.output_text.startsWith(chat)).toBe(true);
      const anthropic = new Anthropic({
        baseURL: server.url,
        apiKey: 'unused',
        maxRetries: 0,
        fetch: ownFetch,
      });
      const source = {
        type: 'base64' as const,
        media_type: 'image/webp' as const,
        data: file(65).toString('base64'),
      };
      const content = [
        { type: 'image' as const, source },
        { type: 'text' as const, text: QUESTION },
      ];
      const asked = {
        model: 'sees',
        temperature: 0,
        max_tokens: 12,
        messages: [{ role: 'user' as const, content }],
      };
      const said = await anthropic.messages.create(asked);
      expect(said.content).toMatchObject([{ type: 'text', text: chat }]);
    });

    test('a damaged file is a refusal that names it, and no byte of it is in a log', async () => {
      const secret = `canary${randomBytes(9).toString('hex')}`;
      const whole = file(66);
      const damaged = [
        Buffer.concat([whole.subarray(0, 60), Buffer.from(secret), whole.subarray(90)]),
        whole.subarray(0, 500),
        Buffer.from(whole).fill(0xff, 30),
      ];
      for (const bytes of damaged) {
        // The header is in order: it is the decoder that refuses.
        bytes.writeUInt32LE(bytes.length - 8, 4);
        bytes.writeUInt32LE(bytes.length - 20, 16);
        const { status, message } = await apiError(asWebp(bytes));
        expect(status).toBe(400);
        expect(message).toContain('messages[0].content[0].image_url.url cannot be decoded');
        expect(message).not.toContain(secret);
      }
      expect(server.stdout() + server.stderr()).not.toContain(secret);
      expect((await asPng(1)).choices[0]?.finish_reason).toBe('length');
    });
  });
});

async function apiError(
  asked: Promise<unknown>,
): Promise<{ readonly status: number; readonly message: string }> {
  try {
    await asked;
  } catch (error) {
    expect(error).toBeInstanceOf(APIError);
    const { status, message } = error as InstanceType<typeof APIError>;
    return { status: Number(status), message };
  }
  throw new Error('it was answered');
}
