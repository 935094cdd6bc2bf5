// Chat messages → tokens, through the Jinja template of the GGUF (or of the model manifest). The template is the model
// author's code and the messages are a stranger's text, so user text never becomes a control token: control tokens are looked
// for in what the template itself wrote while the text is disguised (disguise). Rendering is bounded (meter). When a template
// is loaded it renders two conversations of ours, which tell what variables it needs, whether it works at all, and whether it
// writes a tool call in the format it is taken for.

import { parse, tokenize as lex } from '@huggingface/jinja';
import { ApiError } from '../../../base/errors.ts';
import type { ChatMessage, ToolSpec } from '../../seam/engine.ts';
import type { SpecialToken } from '../llama/vocabulary.ts';
import { createMeter, createStopwatch, type Meter, type TemplateBounds } from './meter.ts';
import { runTemplate } from './metered-run.ts';
import { detectToolFormat, GENERIC_TOOL_FORMAT, holdsCall, type ToolFormat } from '../../seam/tool-format.ts';
import { alternating, genericShape, oneTurn, ownShape, toolObject } from './conversation.ts';
import { disguiseFor } from './disguise.ts';

export interface TemplateVocabulary {
  readonly specials: readonly SpecialToken[];
  readonly bos: number | null;
  readonly eos: number | null;
  readonly addBos: boolean;
  /** Plain text: no control token is ever matched. */
  tokenize(text: string): readonly number[];
}

type Variables = Readonly<Record<string, unknown>>;

export interface ChatTemplate {
  readonly toolFormat: ToolFormat;
  /** Texts that end an answer where the template has no control token to do it. */
  readonly stops: readonly string[];
  /** `variables`: what a request sets for the template (`enable_thinking`); names the template is always given stay ours. */
  tokens(messages: readonly ChatMessage[], tools: readonly ToolSpec[], variables?: Variables): number[];
}

const DEFAULT_BOUNDS: TemplateBounds = {
  timeoutMs: 2000,
  maxOutputCharacters: 16 * 1024 * 1024,
  maxRange: 100_000,
  maxWork: 200_000_000,
};

const CHAT_ML = `{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}{{ '<|im_start|>assistant\\n' }}`;
const PLAIN = `{% for m in messages %}{% if m.role == 'system' %}{{ m.content + '\\n\\n' }}{% elif m.role == 'assistant' %}{{ 'Assistant: ' + m.content + '\\n' }}{% else %}{{ 'User: ' + m.content + '\\n' }}{% endif %}{% endfor %}Assistant:`;

/**
 * What is there when a request brings no tools. The transformers library passes none; some templates were only ever run
 * with lists, and Firefunction wants its tools as text, under another name, and the time.
 */
const ABSENCES: readonly Readonly<Record<string, unknown>>[] = [
  { tools: null, documents: null },
  {},
  { tools: [], documents: [] },
  { tools: [], documents: [], functions: '', datetime: '' },
];

const PROBE_USER: ChatMessage = { role: 'user', content: 'question' };
const PROBES: readonly (readonly ChatMessage[])[] = [
  [PROBE_USER, { role: 'assistant', content: 'answer' }, PROBE_USER],
  [PROBE_USER],
];
const PROBE_SYSTEM: readonly ChatMessage[] = [
  PROBE_USER,
  { role: 'assistant', content: 'answer' },
  { role: 'system', content: 'probesystem' },
  PROBE_USER,
];
/** Letters and digits only (nine in the id: Mistral's templates insist), so that no stand-ins get in. */
const PROBE_CALL = { id: 'call00001', name: 'probetool', arguments: '{"probekey":"probevalue"}' };
const PROBE_TOOL: ToolSpec = {
  name: PROBE_CALL.name,
  description: 'probepurpose',
  parameters: {
    type: 'object',
    properties: { probekey: { type: 'string', description: 'Key' } },
    required: ['probekey'],
  },
};
const PROBE_HISTORY: readonly ChatMessage[] = [
  PROBE_USER,
  { role: 'assistant', content: '', toolCalls: [PROBE_CALL] },
  { role: 'tool', content: 'proberesult', toolCallId: PROBE_CALL.id },
];

/**
 * Compiles a template; `source` null takes ChatML where the vocabulary has it, else plain text. So does a template that
 * cannot render one question. Throws on a syntax error.
 */
export function createChatTemplate(
  source: string | null,
  vocabulary: TemplateVocabulary,
  bounds: TemplateBounds = DEFAULT_BOUNDS,
): ChatTemplate {
  const hasChatMl = ['<|im_start|>', '<|im_end|>'].every((text) =>
    vocabulary.specials.some((special) => special.text === text),
  );
  const text = source ?? (hasChatMl ? CHAT_ML : PLAIN);
  const program = parse(lex(text, { lstrip_blocks: true, trim_blocks: true }));
  const stopwatch = createStopwatch();
  const disguise = disguiseFor(vocabulary.specials);
  const control = vocabulary.specials.filter((special) => special.control);
  const find = matcher(control.map((special) => special.text));
  const byText = new Map(control.map((special) => [special.text, special]));
  const textOf = (token: number | null): string =>
    vocabulary.specials.find((special) => special.token === token)?.text ?? '';

  const render = (messages: readonly unknown[], more: Variables, meter: Meter): string =>
    runTemplate(
      program,
      {
        ...more,
        ...globals(meter),
        ...('datetime' in more && { datetime: strftime(new Date(), '%Y-%m-%d') }),
        messages,
        add_generation_prompt: true,
        bos_token: textOf(vocabulary.bos),
        eos_token: textOf(vocabulary.eos),
      },
      meter,
    );

  /** One budget for all that is rendered before the first request. */
  const loading = createMeter(bounds, stopwatch);
  /** Null where the template fails; a template over a bound is left to fail there with every request. */
  const absent = ((): Variables | null => {
    for (const probe of PROBES) {
      for (const absence of ABSENCES) {
        try {
          render(
            probe.map((message) => ownShape(message, disguise)),
            absence,
            loading,
          );
          return absence;
        } catch (error) {
          if (error instanceof ApiError) return absence;
        }
      }
    }
    return null;
  })();
  if (absent === null && source !== null) return createChatTemplate(null, vocabulary, bounds);
  const lacking = absent ?? {};

  const detected = detectToolFormat(source);
  const toolFormat = ((): ToolFormat => {
    if (detected.kind === 'generic') return detected;
    try {
      const shaped = PROBE_HISTORY.map((message) => ownShape(message, disguise));
      const written = render(shaped, { ...lacking, tools: [disguise.deep(toolObject(PROBE_TOOL))] }, loading);
      const plain = disguise.off(written);
      const told = plain.includes('probepurpose') && plain.includes('proberesult');
      return told && holdsCall(detected, plain, PROBE_CALL.name, PROBE_CALL.arguments)
        ? detected
        : GENERIC_TOOL_FORMAT;
    } catch {
      return GENERIC_TOOL_FORMAT;
    }
  })();
  const ownTools = toolFormat.kind !== 'generic';

  /** Some templates read a system message only where it is the first, and leave out any other without a word. */
  const losesSystem = ((): boolean => {
    try {
      const written = render(
        PROBE_SYSTEM.map((message) => ownShape(message, disguise)),
        lacking,
        loading,
      );
      return !disguise.off(written).includes('probesystem');
    } catch {
      // Refused aloud: a request tries again with the turns merged.
      return false;
    }
  })();

  /** Control tokens where the template wrote them, plain text between. */
  const tokenize = (rendered: string): number[] => {
    const tokens: number[] = [];
    let rest = rendered;
    const push = (segment: string): void => {
      if (segment !== '') for (const token of vocabulary.tokenize(disguise.off(segment))) tokens.push(token);
    };
    for (;;) {
      const found = find(rest);
      if (found === null) break;
      const special = byText.get(found.text);
      if (special === undefined) break;
      const before = rest.slice(0, found.at);
      push(special.lstrip ? before.trimEnd() : before);
      tokens.push(special.token);
      rest = rest.slice(found.at + found.text.length);
      if (special.rstrip) rest = rest.trimStart();
    }
    push(rest);
    if (vocabulary.addBos && vocabulary.bos !== null && tokens[0] !== vocabulary.bos)
      tokens.unshift(vocabulary.bos);
    return tokens;
  };

  return {
    toolFormat,
    stops: source === null && !hasChatMl ? ['\nUser:'] : [],
    tokens(messages, tools, variables = {}) {
      // Names as the template writes them; what they stand for is text of a request like any other.
      const set = Object.fromEntries(
        Object.entries(variables).map(([variable, value]) => [variable, disguise.deep(value)]),
      );
      const offered =
        ownTools && tools.length > 0 ? { tools: tools.map((tool) => disguise.deep(toolObject(tool))) } : {};
      const own = ownTools
        ? messages.map((message) => ownShape(message, disguise))
        : genericShape(messages, tools, disguise);
      const shaped = losesSystem
        ? own.map((turn, i) => (turn.role === 'system' && i > 0 ? { ...turn, role: 'user' } : turn))
        : own;
      // Templates refuse histories they were not trained on (two user turns, a system message in the middle). Such a history
      // is answered too: once more with the turns merged and the system text at the head of the first one, and at last with
      // the whole conversation as one question, which is what every template renders.
      const meter = createMeter(bounds, stopwatch);
      let failure: unknown;
      for (const attempt of [() => shaped, () => alternating(shaped), () => oneTurn(alternating(shaped))]) {
        try {
          return tokenize(render(attempt(), { ...set, ...lacking, ...offered }, meter));
        } catch (error) {
          if (error instanceof ApiError) throw error;
          failure = error;
        }
      }
      // The cause's text may quote the messages; only its kind is kept.
      throw new ApiError('invalid_messages', 'the chat template of this model cannot render these messages', {
        param: 'messages',
        cause: failure instanceof Error ? failure.name : undefined,
      });
    },
  };
}

/** Why a template of the configuration cannot be used (a fallback would silently replace it); null when it can. */
export function templateProblem(source: string): string | null {
  try {
    const vocabulary = { specials: [], bos: null, eos: null, addBos: false, tokenize: () => [] };
    // Only the fallback has such texts.
    return createChatTemplate(source, vocabulary).stops.length > 0 ? 'it cannot render a question' : null;
  } catch (error) {
    return error instanceof Error ? (error.message.split('\n')[0] ?? '') : 'it cannot be read';
  }
}

/** The names every chat template may use. */
function globals(meter: Meter): Record<string, unknown> {
  return {
    true: true,
    false: false,
    none: null,
    True: true,
    False: false,
    None: null,
    // The text may quote the messages: nobody reads it.
    raise_exception: () => {
      throw new Error('the template refuses');
    },
    strftime_now: (format: string) => strftime(new Date(), format),
    range: (start: number, stop?: number, stride?: number): number[] => {
      const [from, to] = stop === undefined ? [0, start] : [start, stop];
      const by = stride ?? 1;
      const length = by === 0 ? Infinity : Math.max(0, Math.ceil((to - from) / by));
      meter.countRange(length);
      return Array.from({ length }, (_, i) => from + i * by);
    },
  };
}

function two(value: number): string {
  return String(value).padStart(2, '0');
}

/** The directives templates use to tell the date; UTC. */
function strftime(date: Date, format: string): string {
  const [, month = '', day = '', year = ''] =
    /, (\w+) (\d+), (\d+)$/.exec(
      new Intl.DateTimeFormat('en-US', { dateStyle: 'full', timeZone: 'UTC' }).format(date),
    ) ?? [];
  const fields: Record<string, string> = {
    Y: year,
    m: two(date.getUTCMonth() + 1),
    d: two(Number(day)),
    b: month.slice(0, 3),
    B: month,
    H: two(date.getUTCHours()),
    M: two(date.getUTCMinutes()),
    S: two(date.getUTCSeconds()),
    '%': '%',
  };
  return format.replaceAll(/%([YmdbBHMS%])/g, (_, directive: string) => fields[directive] ?? '');
}

/** Finds the first, and there the longest, of some texts. */
function matcher(
  texts: readonly string[],
): (text: string) => { readonly at: number; readonly text: string } | null {
  if (texts.length === 0) return () => null;
  const escaped = [...texts]
    .sort((a, b) => b.length - a.length)
    .map((text) => text.replace(/[.*+?^${}()|[\]\\/]/g, '\\$&'));
  const pattern = new RegExp(escaped.join('|'), 'u');
  return (text) => {
    const found = pattern.exec(text);
    return found === null ? null : { at: found.index, text: found[0] };
  };
}
