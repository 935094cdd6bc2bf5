// The content blocks of /v1/messages (Anthropic API, "Create a Message"). Text and images are parts of a chat
// message, read as chat reads them. Other fields of blocks are ignored, as in a chat. Refuses documents,
// search results, and blocks of tools that Anthropic runs.

import {
  anything,
  choice,
  either,
  flag,
  list,
  literal,
  map,
  openObject,
  optional,
  tagged,
  text,
} from '../../base/shape.ts';
import type { Infer, Shape } from '../../base/shape.ts';
import { IMAGE_KINDS, mediaType } from '../../base/image-formats.ts';
import { imageOfBase64, imageOfUri } from '../chat/images.ts';
import { contentPart } from '../chat/messages.ts';
import { forEach, unsupportedParameter } from '../unsupported.ts';

const MAX_TEXT = 16 * 1024 * 1024;
const MAX_BLOCKS = 1024;
const words = text({ max: MAX_TEXT });

/** A part of a chat message. */
export type MessagePart = Infer<typeof contentPart>;

export function textPart(value: string): MessagePart {
  return contentPart.read({ type: 'text', text: value }, '');
}

export interface PartBlock {
  readonly kind: 'part';
  readonly part: MessagePart;
}

const textBlock: Shape<PartBlock> = map(
  openObject({ type: literal('text'), text: words }),
  (block, path) => ({ kind: 'part', part: contentPart.read(block, path) }),
);

const imageBlock: Shape<PartBlock> = map(
  openObject({
    type: literal('image'),
    source: tagged('type', {
      base64: openObject({
        type: literal('base64'),
        media_type: choice(IMAGE_KINDS.map(mediaType)),
        data: words,
      }),
      url: openObject({ type: literal('url'), url: words }),
      file: unsupportedParameter('this server stores no files, send the image itself'),
    }),
  }),
  ({ source }, path) => {
    const part =
      source?.type === 'base64'
        ? imageOfBase64(source.data, `${path}.source.data`)
        : imageOfUri(source?.url ?? '', `${path}.source.url`);
    return { kind: 'part', part };
  },
);

const foreign = unsupportedParameter('blocks are text, image, tool_use, tool_result and thinking');
const document = unsupportedParameter('this server reads no documents, send their text as a text block');
/** They stand in what is said to the model. */
const FOREIGN = ['search_result', 'browser_state', 'container_upload', 'mcp_tool_result', 'compaction'] as const; // prettier-ignore
/** They stand in what a model of Anthropic said. */
const SERVED = ['server_tool_use', 'web_search_tool_result', 'web_fetch_tool_result', 'code_execution_tool_result', 'bash_code_execution_tool_result', 'text_editor_code_execution_tool_result', 'tool_search_tool_result', 'advisor_tool_result', 'mcp_tool_use', 'mcp_tool_listing', 'fallback', ...FOREIGN] as const; // prettier-ignore

const reference = map(
  openObject({ type: literal('tool_reference'), tool_name: text({ min: 1, max: 256 }) }),
  ({ tool_name: name }) => ({ kind: 'reference' as const, name }),
);

const resultContent = either(
  {
    string: words,
    array: list(
      tagged('type', {
        text: textBlock,
        image: imageBlock,
        tool_reference: reference,
        document,
        ...forEach(FOREIGN, foreign),
      }),
      { max: MAX_BLOCKS },
    ),
  },
  'a string or an array of content blocks',
);

export interface ResultBlock {
  readonly kind: 'result';
  readonly id: string | undefined;
  readonly parts: readonly MessagePart[];
  /** Names of tools it refers to. */
  readonly tools: readonly string[];
}

const toolResult: Shape<ResultBlock> = map(
  openObject({
    type: literal('tool_result'),
    tool_use_id: optional(text({ max: 65_536 })),
    content: optional(resultContent),
    is_error: optional(flag('Told to the model in front of the content.')),
  }),
  ({ tool_use_id: id, content = '', is_error: failed }) => {
    const tools: string[] = [];
    const parts: MessagePart[] = failed === true ? [textPart('Error:')] : [];
    if (typeof content === 'string') parts.push(textPart(content));
    else
      for (const block of content) {
        if (block?.kind === 'part') parts.push(block.part);
        if (block?.kind !== 'reference') continue;
        tools.push(block.name);
        parts.push(textPart(`The tool ${block.name} can be called now.`));
      }
    return { kind: 'result', id, parts, tools };
  },
);

const user = tagged('type', {
  text: textBlock,
  image: imageBlock,
  tool_result: toolResult,
  document,
  ...forEach(FOREIGN, foreign),
});

const thinking = map(
  openObject({ type: literal('thinking'), thinking: optional(words), signature: optional(words) }),
  ({ thinking: plain = '', signature = '' }) => ({
    kind: 'thought' as const,
    plain,
    sealed: signature,
    field: 'signature',
  }),
);
const redacted = map(openObject({ type: literal('redacted_thinking'), data: words }), ({ data }) => ({
  kind: 'thought' as const,
  plain: '',
  sealed: data,
  field: 'data',
}));
const toolUse = map(
  openObject({
    type: literal('tool_use'),
    id: optional(text({ max: 65_536 })),
    name: text({ min: 1, max: 256 }),
    input: optional(anything),
  }),
  ({ id, name, input = {} }) => ({ kind: 'call' as const, id, name, input }),
);
const saidText = map(openObject({ type: literal('text'), text: words }), (block) => ({
  kind: 'said' as const,
  text: block.text,
}));

const assistant = tagged('type', {
  text: saidText,
  thinking,
  redacted_thinking: redacted,
  tool_use: toolUse,
  ...forEach(SERVED, foreign),
});

const changedTool = openObject({
  type: choice(['tool_reference'], 'A tool of the request.'),
  name: text({ min: 1, max: 256 }),
});
function toolChange(type: 'tool_addition' | 'tool_removal') {
  return map(openObject({ type: literal(type), tool: changedTool }), ({ tool }) => ({
    kind: 'change' as const,
    name: tool.name,
    offered: type === 'tool_addition',
  }));
}
const system = tagged('type', {
  text: textBlock,
  tool_addition: toolChange('tool_addition'),
  tool_removal: toolChange('tool_removal'),
});

/** A content as blocks; a string is one text. */
function blocks<T>(item: Shape<T>, ofText: (value: string) => T): Shape<readonly T[]> {
  return map(
    either(
      { string: words, array: list(item, { max: MAX_BLOCKS }) },
      'a string or an array of content blocks',
    ),
    (value) => (typeof value === 'string' ? [ofText(value)] : value),
  );
}

export const userBlocks = blocks(user, (value) => ({ kind: 'part' as const, part: textPart(value) }));
export const assistantBlocks = blocks(assistant, (value) => ({ kind: 'said' as const, text: value }));
export const systemBlocks = blocks(system, (value) => ({ kind: 'part' as const, part: textPart(value) }));
/** The system prompt of the request. */
export const systemPrompt = blocks(textBlock, (value) => ({ kind: 'part' as const, part: textPart(value) }));
