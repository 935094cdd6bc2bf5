// A prompt of the seam → token ids, with every refusal a request can meet before it is queued. Refuses:
// prompts that do not fit the context, token ids outside the vocabulary, a suffix without
// fill-in-the-middle tokens.

import { ApiError } from '../../base/errors.ts';
import type { Prompt } from '../seam/engine.ts';
import type { LoadedModel } from './llama/model.ts';
import type { ChatTemplate, RenderedPrompt } from './template/template.ts';
import { assertFits, type ContextRoom } from '../seam/context-limits.ts';

/** The field of the request that a prompt came by. */
export function promptField(prompt: Prompt): string {
  return prompt.kind === 'chat' ? (prompt.param ?? 'messages') : 'prompt';
}

/** At least one token; text that cannot fit the context is refused before it is tokenized. */
export function promptTokens(
  model: LoadedModel,
  template: ChatTemplate,
  prompt: Prompt,
  contextLength: number,
): RenderedPrompt {
  const room = { contextLength, param: promptField(prompt) };
  if (prompt.kind === 'tokens') assertFits(prompt.tokens.length, room);
  else assertMayFit(model, textsOf(prompt), room);
  const rendered = unchecked(model, template, prompt);
  if (rendered.tokens.length > 0) return rendered;
  const start = model.bos ?? model.eos;
  if (start === null) throw new ApiError('invalid_prompt', 'the prompt is empty', { param: room.param });
  return { ...rendered, tokens: [start] };
}

function unchecked(model: LoadedModel, template: ChatTemplate, prompt: Prompt): RenderedPrompt {
  if (prompt.kind !== 'chat') return { tokens: plainTokens(model, prompt), phase: 'answer' };
  try {
    const { messages, tools = [], templateVariables, prefill, now } = prompt;
    return template.prompt(messages, tools, templateVariables, { prefill, now });
  } catch (error) {
    // The template does not know the field that the messages came by.
    if (!(error instanceof ApiError && error.code === 'invalid_messages')) throw error;
    throw new ApiError(error.code, error.message, { param: promptField(prompt), cause: error.cause });
  }
}

function plainTokens(model: LoadedModel, prompt: Exclude<Prompt, { readonly kind: 'chat' }>): number[] {
  if (prompt.kind === 'tokens') {
    checkTokens(model, prompt.tokens, 'prompt');
    return [...prompt.tokens];
  }
  if (prompt.suffix === undefined || prompt.suffix === '') return model.tokenize(prompt.text, true, false);
  if (model.fim === null) {
    throw new ApiError('unsupported_parameter', 'suffix needs a model with fill-in-the-middle tokens', {
      param: 'suffix',
    });
  }
  const bos = model.addBos && model.bos !== null ? [model.bos] : [];
  const before = model.tokenize(prompt.text, false, false);
  const after = model.tokenize(prompt.suffix, false, false);
  return [...bos, model.fim.pre].concat(before, [model.fim.suf], after, [model.fim.mid]);
}

export function checkTokens(model: LoadedModel, tokens: readonly number[], param: string): void {
  for (const token of tokens) {
    if (!Number.isInteger(token) || token < 0 || token >= model.vocabSize) {
      throw new ApiError('invalid_token', `a token id is outside the vocabulary of ${model.vocabSize}`, {
        param,
      });
    }
  }
}

/** All texts of a prompt that may reach the tokenizer. */
function textsOf(prompt: Exclude<Prompt, { readonly kind: 'tokens' }>): readonly string[] {
  if (prompt.kind === 'text') return [prompt.text, prompt.suffix ?? ''];
  const said = prompt.messages.flatMap((message) => [
    message.content,
    message.reasoning ?? '',
    message.name ?? '',
    message.toolCallId ?? '',
    ...(message.toolCalls ?? []).flatMap((call) => [call.id, call.name, call.arguments]),
  ]);
  const offered = (prompt.tools ?? []).flatMap((tool) => [
    tool.name,
    tool.description ?? '',
    JSON.stringify(tool.parameters) ?? '',
  ]);
  return said.concat(offered, JSON.stringify(prompt.templateVariables ?? {}));
}

/**
 * Refuses texts that together cannot fit before they are rendered and tokenized, which for megabytes would
 * hold up every stream: no token stands for more bytes than the longest of the vocabulary.
 */
export function assertMayFit(model: LoadedModel, texts: readonly string[], room: ContextRoom): void {
  const { contextLength } = room;
  // Almost every prompt passes here, without a search through the vocabulary.
  if (texts.reduce((sum, text) => sum + text.length, 0) < contextLength * 4) return;
  const raw = texts.reduce((sum, text) => sum + Buffer.byteLength(text), 0);
  const most = contextLength * model.longestPiece();
  const folds =
    raw >= most &&
    raw < most * FOLDED_CONTEXTS &&
    FOLDING_TOKENIZERS.has(model.meta('tokenizer.ggml.model') ?? '');
  const bytes = folds
    ? texts.reduce((sum, text) => sum + Buffer.byteLength(text.replaceAll(/\s{2,}/g, ' ')), 0)
    : raw;
  assertFits(Math.floor(bytes / model.longestPiece()), room, 'at least ');
}

/**
 * WordPiece and Unigram collapse runs of white space, so tables and indented text have more bytes
 * than their tokens stand for.
 */
const FOLDING_TOKENIZERS: ReadonlySet<string> = new Set(['bert', 't5']);
/** Bytes, in contexts, beyond which white space counts there too: reading it takes time. */
const FOLDED_CONTEXTS = 8;

/**
 * Query and document joined as the reranker was trained: its own template, else BOS query EOS SEP document
 * EOS.
 */
export function rankTokens(model: LoadedModel, query: string): (document: string) => number[] {
  const plain = (text: string): readonly number[] => model.tokenize(text, false, false);
  const asked = plain(query); // once for all documents
  if (model.rerankTemplate !== null) {
    const parts = model.rerankTemplate.split(/(\{query\}|\{document\})/).map((part) => {
      if (part === '{document}') return null;
      return part === '{query}' ? asked : model.tokenize(part, false, true);
    });
    return (document) => parts.flatMap((part) => part ?? plain(document));
  }
  const end = model.eos ?? model.sep;
  const ending = model.addEos && end !== null ? [end] : [];
  const before = (model.addBos && model.bos !== null ? [model.bos] : []).concat(
    asked,
    ending,
    model.addSep && model.sep !== null ? [model.sep] : [],
  );
  return (document) => before.concat(plain(document), ending);
}
