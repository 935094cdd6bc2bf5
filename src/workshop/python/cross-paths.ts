// The paths between formats of models: what each takes, what it needs of the environment, and what is true
// of it here. A path without a backend that installs from the registry says why. `available` is asked of
// the environment and of the jail each time: a job of the path would be taken.

import { ApiError } from '../../base/errors.ts';
import type { PythonEnvironment } from './environment.ts';
import { pythonProgram, TOOL_PACKAGES, type PythonProgram } from './tools.ts';

interface Declared {
  readonly from: string;
  readonly to: string;
  readonly extensions: readonly string[];
  /** Of the environment; undefined: there is no backend. */
  readonly packages?: readonly string[] | undefined;
  /** The built-in converter does the second half. */
  readonly builtin?: boolean | undefined;
  readonly note: string;
}

const EXPORT = ['transformers', 'torchvision', 'onnx', 'onnxscript', 'onnxruntime'] as const;
const FOLDER_OR_PROGRAM =
  'a .pt2 exported program, a folder with config.json and safetensors, or one .safetensors file with a named architecture';

const DECLARED = {
  pytorch_to_onnx: {
    from: 'PyTorch',
    to: 'ONNX',
    extensions: ['.pt2', '.safetensors'],
    packages: EXPORT,
    note: `PyTorch to ONNX: ${FOLDER_OR_PROGRAM}; the result is run beside the original`,
  },
  onnx_to_pytorch: {
    from: 'ONNX',
    to: 'PyTorch',
    extensions: ['.onnx'],
    packages: ['onnx', 'onnxruntime', 'onnx2torch', 'torchvision'],
    note: 'to an exported program (.pt2) of fixed shapes, with the operators onnx2torch has; others are refused by name',
  },
  safetensors_to_pytorch: {
    from: 'SafeTensors',
    to: 'PyTorch',
    extensions: ['.safetensors'],
    packages: [],
    note: 'the state dict as .bin, one for each file',
  },
  pytorch_to_safetensors: {
    from: 'PyTorch',
    to: 'SafeTensors',
    extensions: ['.bin', '.pt', '.pth'],
    packages: [],
    note: 'state dicts of tensors alone: a pickle that names anything else is refused and never run',
  },
  onnx_to_tflite: {
    from: 'ONNX',
    to: 'TFLite',
    extensions: ['.onnx'],
    packages: ['onnx', 'onnxruntime', 'onnx2torch', 'torchvision', 'litert-torch', 'ai-edge-litert'],
    note: 'through PyTorch (onnx2torch, then litert-torch), with fixed shapes and the operators onnx2torch has',
  },
  onnx_to_tensorrt: {
    from: 'ONNX',
    to: 'TensorRT',
    extensions: ['.onnx'],
    note: 'not here: TensorRT builds an engine for the NVIDIA GPU it runs on, and its builder is no part of this environment',
  },
  keras_to_onnx: {
    from: 'Keras',
    to: 'ONNX',
    extensions: ['.keras'],
    packages: ['keras', ...EXPORT],
    note: 'Keras 3 archives without code of their own (safe mode), over the PyTorch backend',
  },
  onnx_to_keras: {
    from: 'ONNX',
    to: 'Keras',
    extensions: ['.onnx'],
    note: 'not here: the converters the registry has want TensorFlow and stopped at old forms of ONNX',
  },
  pytorch_to_gguf: {
    from: 'PyTorch',
    to: 'GGUF',
    extensions: ['.bin', '.safetensors'],
    packages: [],
    builtin: true,
    note: 'HuggingFace to GGUF: a folder whose weights are pickled is rewritten as safetensors, then the built-in converter; with safetensors use /api/gguf/convert/hf-to-gguf, which needs no Python',
  },
  gguf_to_onnx: {
    from: 'GGUF',
    to: 'ONNX',
    extensions: ['.gguf'],
    packages: ['gguf', 'sentencepiece', ...EXPORT],
    note: 'decoders of the architectures transformers reads; quantised weights become the floats they stand for',
  },
  onnx_to_openvino: {
    from: 'ONNX',
    to: 'OpenVINO',
    extensions: ['.onnx'],
    packages: ['onnx', 'onnxruntime', 'openvino'],
    note: 'PyTorch to OpenVINO: pytorch_to_onnx, then this',
  },
  onnx_to_vitis: {
    from: 'ONNX',
    to: 'Vitis AI',
    extensions: ['.onnx'],
    note: 'not here: the compiler for AMD Vitis AI comes in a vendor image, not from the registry',
  },
  onnx_to_rknn: {
    from: 'ONNX',
    to: 'RKNN',
    extensions: ['.onnx'],
    note: 'not here: the Rockchip toolkit wants versions of PyTorch and ONNX that the other paths cannot have',
  },
  pytorch_to_tflite_litert: {
    from: 'PyTorch',
    to: 'TFLite (LiteRT)',
    extensions: ['.pt2', '.safetensors'],
    packages: ['litert-torch', 'ai-edge-litert', 'transformers', 'torchvision'],
    note: `litert-torch: ${FOLDER_OR_PROGRAM}; the result is run beside the original`,
  },
} as const satisfies Readonly<Record<string, Declared>>;

export type CrossPathId = keyof typeof DECLARED;
export const CROSS_PATHS: Readonly<Record<CrossPathId, Declared>> = DECLARED;
// oxlint-disable-next-line typescript/no-unsafe-type-assertion -- its own keys
export const CROSS_PATH_IDS = Object.keys(DECLARED) as readonly CrossPathId[];

export interface CrossPath {
  readonly id: CrossPathId;
  readonly from_format: string;
  readonly to_format: string;
  readonly source_extensions: readonly string[];
  readonly available: boolean;
  readonly note: string;
}

export interface CrossPaths {
  readonly paths: readonly CrossPath[];
  readonly total: number;
  readonly available_count: number;
}

/** The answer of `GET /api/convert/cross/paths`. `barred`: why no such job runs on this machine. */
export async function crossPaths(environment: PythonEnvironment, barred: string | null): Promise<CrossPaths> {
  const { state, missing, command, reason } = await environment.status();
  const paths = CROSS_PATH_IDS.map((id): CrossPath => {
    const { from, to, extensions, packages, note } = CROSS_PATHS[id];
    const absent = packages === undefined ? [] : absentOf(packages, state === 'ready' ? undefined : missing);
    const there = packages !== undefined && state === 'ready';
    const available = there && barred === null;
    const why =
      absent.length > 0 ? `needs ${absent.join(', ')}` : (reason ?? 'the environment is incomplete');
    const words = there || packages === undefined ? note : `${note}. ${why}: run "${command}"`;
    return {
      id,
      from_format: from,
      to_format: to,
      source_extensions: extensions,
      available,
      note: packages === undefined || barred === null ? words : `${words}. ${barred}`,
    };
  });
  return { paths, total: paths.length, available_count: paths.filter(({ available }) => available).length };
}

function absentOf(
  packages: readonly string[],
  missing: readonly { readonly name: string }[] | undefined,
): readonly string[] {
  if (missing === undefined) return [];
  const names = new Set(missing.map(({ name }) => name));
  return [...new Set([...TOOL_PACKAGES.cross, ...packages])].filter((name) => names.has(name));
}

/** Of a path with a backend: everything it imports. 400 unsupported_parameter says why there is none. */
export function packagesOf(id: CrossPathId): readonly string[] {
  const { packages, note } = CROSS_PATHS[id];
  if (packages === undefined)
    throw new ApiError('unsupported_parameter', `${id} is ${note}`, { param: 'path' });
  return [...TOOL_PACKAGES.cross, ...packages];
}

/** As `packagesOf`. */
export async function crossProgram(id: CrossPathId, environment: PythonEnvironment): Promise<PythonProgram> {
  packagesOf(id);
  return pythonProgram(environment, 'cross', { builtin: CROSS_PATHS[id].builtin });
}
