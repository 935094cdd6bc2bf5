// What the server wants to know of a model file before it serves it.
// Provisional until the strict reader (gguf.ts) lands: says what the engine decides by itself anyway.
import type { ModelSummary } from './registry.ts';

export function inspectModel(path: string): Promise<ModelSummary> {
  const type = /embed/.test(path) ? 'embedding' : /rerank/.test(path) ? 'rerank' : /context/.test(path) ? 'completion' : 'chat';
  return Promise.resolve({
    type,
    architecture: 'llama',
    parameters: 0,
    quantization: 'unknown',
    contextLength: 2048,
    hasChatTemplate: type === 'chat',
    tokenizer: 'unknown',
    cacheBytesPerToken: 4096,
  });
}
