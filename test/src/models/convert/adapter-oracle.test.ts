// Against PEFT and the official converter, on adapters trained on tiny random models: the tensors are the
// same, and libllama computes with ours what PEFT computes. Needs `make convert-oracle`.

import { createHash } from 'node:crypto';
import {
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { loadAdapter } from '../../../../src/engine/child/llama/adapters.ts';
import { LlamaContext } from '../../../../src/engine/child/llama/context.ts';
import { libcSymbol, loadLlama } from '../../../../src/engine/child/llama/library.ts';
import { loadLlamaModel, openModelFile } from '../../../../src/engine/child/llama/model.ts';
import { convertAdapter, type AdapterBase } from '../../../../src/models/convert/adapter.ts';
import { convertFolder } from '../../../../src/models/convert/convert.ts';
import type { FolderFile } from '../../../../src/models/convert/folder.ts';
import { checkAdapter } from '../../../../src/models/gguf/adapter.ts';
import { readHeader } from '../../../../src/models/gguf/header.ts';
import { haveOracle, oracleCase, runOracle } from '../../../fixtures/models/convert-oracle.ts';
import { source } from '../../../fixtures/models/gguf-source.ts';

const SCRIPT = fileURLToPath(new URL('../../../../scripts/convert-oracle/adapter.py', import.meta.url));
const KINDS = ['plain', 'rslora', 'ranks'] as const;
const MINUTES = 60_000;

const work = mkdtempSync(join(tmpdir(), 'assay-adapter-oracle-'));
afterAll(() => rmSync(work, { recursive: true }));

/** The folder of a case, with its adapters made; made ones are kept under the hash of their script. */
async function adaptersOf(
  name: string,
): Promise<{ readonly model: string; readonly folder: string; readonly tokens: readonly number[] }> {
  const made = await oracleCase(name, []);
  const folder = dirname(made.folder);
  const stamp = join(
    folder,
    `adapters-${createHash('sha256').update(readFileSync(SCRIPT)).digest('hex').slice(0, 12)}`,
  );
  if (!existsSync(stamp)) {
    await runOracle(SCRIPT, [dirname(folder), name]);
    writeFileSync(stamp, '');
  }
  return { model: made.folder, folder, tokens: made.tokens };
}

function converted(
  folder: string,
  files: readonly string[],
  convert: (files: ReadonlyMap<string, FolderFile>, output: { write(bytes: Uint8Array): void }) => void,
): Buffer {
  const fds = files.map((name) => openSync(join(folder, name), 'r'));
  const pieces: Buffer[] = [];
  try {
    const opened = new Map(
      files.map((name, i) => [
        name,
        {
          size: statSync(join(folder, name)).size,
          read: (position: number, into: Uint8Array) => readSync(fds[i]!, into, 0, into.length, position),
        },
      ]),
    );
    convert(opened, { write: (bytes) => void pieces.push(Buffer.from(bytes)) });
  } finally {
    fds.forEach((fd) => closeSync(fd));
  }
  return Buffer.concat(pieces);
}

/** Digests of a GGUF file's tensors with their types and shapes, by name. */
async function tensorsOf(file: Buffer): Promise<ReadonlyMap<string, string>> {
  const header = await readHeader(source(file));
  return new Map(
    header.tensors.map(({ name, type, shape, offset, bytes }) => {
      const at = header.dataOffset + offset;
      const digest = createHash('sha256')
        .update(file.subarray(at, at + bytes))
        .digest('hex');
      return [name, `${type.name} ${shape.join('×')} ${digest}`];
    }),
  );
}

const CASES: Readonly<Record<string, string>> = { 'llama-spm': 'llama', qwen2: 'qwen2' };

describe.skipIf(!haveOracle).each(Object.entries(CASES))('%s, trained by PEFT', (name, architecture) => {
  let made: Awaited<ReturnType<typeof adaptersOf>>;
  let modelPath: string;
  let base: AdapterBase;

  beforeAll(async () => {
    made = await adaptersOf(name);
    modelPath = join(work, `${name}.gguf`);
    writeFileSync(
      modelPath,
      converted(
        made.model,
        readdirSync(made.model),
        (files, output) => void convertFolder(files, output, { type: 'f32' }),
      ),
    );
    const config = JSON.parse(readFileSync(join(made.model, 'config.json'), 'utf8')) as Record<
      string,
      number
    >;
    base = {
      architecture,
      layers: config['num_hidden_layers']!,
      heads: config['num_attention_heads']!,
      headsKv: config['num_key_value_heads']!,
    };
  }, 20 * MINUTES);

  test.each(KINDS)(
    '%s: tensors as the official converter has them, logits as PEFT has them',
    async (kind) => {
      const ours = converted(
        join(made.folder, `adapter-${kind}`),
        ['adapter_config.json', 'adapter_model.safetensors'],
        (files, output) => void convertAdapter(files, output, { base }),
      );
      const official = readFileSync(join(made.folder, `adapter-${kind}.gguf`));
      expect(await tensorsOf(ours)).toEqual(await tensorsOf(official));
      const info = checkAdapter(
        await readHeader(source(ours)),
        await readHeader(source(readFileSync(modelPath))),
      );
      // The official converter leaves rslora out, which is another adapter.
      expect(info.alpha).toBe(kind === 'rslora' ? 8 * Math.sqrt(4) : 8);

      const path = join(work, `${name}-${kind}.gguf`);
      writeFileSync(path, ours);
      const { llama } = loadLlama();
      llama.llama_log_set(libcSymbol('abs'), null); // its log of a load is long
      const model = await loadLlamaModel(llama, openModelFile(modelPath), () => {});
      const adapters = [loadAdapter(llama, model.handle, { path, scale: 1 })];
      const context = new LlamaContext(llama, model, {
      sequences: 1, cells: 64, batchTokens: 64, threads: 1, threadpool: null, embeddings: 'none', exact: true, unified: true, adapters,
    }); // prettier-ignore
      const logits = (adapter: number): Float32Array => {
        context.clearBatch();
        context.clearMemory();
        context.useAdapter(adapter);
        let last = 0;
        for (const [i, token] of made.tokens.entries())
          last = context.add(token, i, 0, i === made.tokens.length - 1);
        expect(context.decodeSync()).toBe(0);
        return context.logits(last).slice();
      };
      const results = JSON.parse(readFileSync(join(made.folder, 'adapters.json'), 'utf8')) as Record<
        string,
        string
      >;
      const bytes = Buffer.from(results[kind]!, 'base64');
      const theirs = Float32Array.from({ length: bytes.length / 4 }, (_, i) => bytes.readFloatLE(4 * i));
      const scale = theirs.reduce((largest, value) => Math.max(largest, Math.abs(value)), 0);
      const difference = (ours: Float32Array): number =>
        ours.reduce((largest, value, i) => Math.max(largest, Math.abs(value - theirs[i]!)), 0) / scale;
      expect(difference(logits(1))).toBeLessThan(1e-5);
      expect(difference(logits(0))).toBeGreaterThan(1e-2);
    },
    5 * MINUTES,
  );
});
