// `GET /api/gguf/pipeline/status` (seed 004): the tools, types and architectures there really are. The
// lists are those the quantiser and the converter work from, not llama.cpp's or the original's.

import { choice, flag, integer, list, literal, nullable, object, text } from '../../base/shape.ts';
import { QUANTIZE_TYPES, type QuantizeType } from '../../engine/seam/quantize.ts';
import { type Route, route } from '../../http/route.ts';
import { ARCHITECTURES } from '../../models/convert/architectures.ts';
import { CONVERTER } from '../../models/derive.ts';

/** The original's tools, and the kind of job that does their work here; null: the server's work, not ours. */
const TOOLS: Readonly<Record<string, string | null>> = {
  'llama-cli': null,
  'llama-quantize': 'gguf/quantize',
  'llama-imatrix': 'gguf/imatrix',
  'llama-gguf-split': 'gguf/split',
  'llama-export-lora': 'gguf/merge-lora',
  'convert_hf_to_gguf.py': 'gguf/convert',
};

const words = text({ max: 4096 });
const names = list(words, { max: 10_000 });
const tools = object(Object.fromEntries(Object.keys(TOOLS).map((tool) => [tool, flag()])));
const CAPABILITIES = ['read_metadata', 'quantize', 'convert_hf', 'imatrix', 'split_join', 'lora_merge', 'inference'] as const; // prettier-ignore

const statusAnswer = object({
  llama_cpp_tools: object({ tools, available: names, any_available: flag(), note: words }),
  gguf_python_lib: object({ available: flag(), version: nullable(words), note: literal('not used') }),
  quant_types_available: names,
  quant_types: list(
    object({
      name: choice(Object.keys(QUANTIZE_TYPES)),
      llama_ftype: integer({ min: 0, max: 65_536 }),
      needs_imatrix: flag(),
    }),
    { max: 256 },
  ),
  supported_architectures: names,
  supported_model_classes: names,
  capabilities: object(Object.fromEntries(CAPABILITIES.map((each) => [each, flag()]))),
});

export function pipelineStatus(kinds: ReadonlySet<string>): Route {
  return route({
    method: 'GET',
    path: '/api/gguf/pipeline/status',
    access: 'key',
    limited: true,
    summary: 'The tools, quantisation types and architectures of this workshop.',
    tag: 'Jobs',
    answer: statusAnswer,
    handle: () => Promise.resolve(status(kinds)),
  });
}

function status(kinds: ReadonlySet<string>): object {
  const tools = Object.fromEntries(
    Object.entries(TOOLS).map(([tool, kind]) => [tool, kind !== null && kinds.has(kind)]),
  );
  const available = Object.keys(tools).filter((tool) => tools[tool] === true);
  const types: readonly (readonly [string, QuantizeType])[] = Object.entries(QUANTIZE_TYPES);
  const classes = Object.keys(ARCHITECTURES).toSorted();
  return {
    llama_cpp_tools: {
      tools,
      available,
      any_available: available.length > 0,
      note: `no command-line tools of llama.cpp are used: their work is done by ${CONVERTER}`,
    },
    gguf_python_lib: { available: false, version: null, note: 'not used' },
    quant_types_available: types.map(([name]) => name),
    quant_types: types.map(([name, { id, needsMatrix }]) => ({
      name,
      llama_ftype: id,
      needs_imatrix: needsMatrix,
    })),
    supported_architectures: [...new Set(Object.values(ARCHITECTURES).map(({ gguf }) => gguf))].toSorted(),
    supported_model_classes: classes,
    capabilities: {
      read_metadata: kinds.has('gguf/inspect'),
      quantize: kinds.has('gguf/quantize'),
      convert_hf: kinds.has('gguf/convert'),
      imatrix: kinds.has('gguf/imatrix'),
      split_join: kinds.has('gguf/split') && kinds.has('gguf/merge'),
      lora_merge: kinds.has('gguf/merge-lora'),
      inference: false,
    },
  };
}
