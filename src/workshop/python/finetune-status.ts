// The means of training on this machine: the answer of `GET /api/finetune/status`. CUDA counts only where a
// driver is, Unsloth is not part of the environment, and both are said rather than assumed.

import { existsSync } from 'node:fs';
import type { PythonEnvironment } from './environment.ts';
import { TOOL_PACKAGES } from './tools.ts';

const NVIDIA_DRIVER = '/proc/driver/nvidia/version';

interface Part {
  readonly available: boolean;
  readonly version: string | null;
  readonly note?: string | undefined;
}

export interface FinetuneStatus {
  readonly ready: boolean;
  readonly backend: string;
  readonly cuda: Part;
  readonly unsloth: Part;
  readonly torch: Part;
  readonly transformers: Part;
  readonly peft: Part;
  readonly trl: Part;
  readonly bitsandbytes: Part;
  readonly export_formats: readonly string[];
  readonly missing: readonly string[];
  /** Null where `ready`. */
  readonly command: string | null;
}

export const EXPORTS = ['lora', 'safetensors', 'gguf', 'gguf_adapter'] as const;

export async function finetuneStatus(
  environment: PythonEnvironment,
  { driver = NVIDIA_DRIVER }: { readonly driver?: string | undefined } = {},
): Promise<FinetuneStatus> {
  const { state, missing, command } = await environment.status();
  const absent = new Map(missing.map(({ name, found }) => [name, found]));
  const part = (name: string): Part =>
    absent.has(name)
      ? { available: false, version: absent.get(name) ?? null }
      : { available: true, version: environment.version(name) };
  const cuda = existsSync(driver);
  const ready = state === 'ready';
  return {
    ready,
    backend: 'peft + trl',
    cuda: {
      available: cuda,
      version: null,
      note: cuda ? 'a driver is loaded' : 'no NVIDIA driver: trains on the CPU, and use_4bit falls to false',
    },
    unsloth: {
      available: false,
      version: null,
      note: 'not in the environment: it needs a GPU; LoRA is trained with peft and trl instead',
    },
    torch: part('torch'),
    transformers: part('transformers'),
    peft: part('peft'),
    trl: part('trl'),
    bitsandbytes: {
      available: false,
      version: null,
      note: 'not in the environment: weights are trained over as 32-bit floats',
    },
    export_formats: EXPORTS,
    missing: TOOL_PACKAGES.finetune.filter((name) => absent.has(name)),
    command: ready ? null : command,
  };
}
