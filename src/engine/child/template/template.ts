// Chat messages → tokens, through the Jinja template of the GGUF (or of the model manifest). The template is
// the model author's code and the messages are a stranger's text, so user text never becomes a control token:
// control tokens are searched only in the template's own text, while the messages are disguised (disguise).
// Rendering is bounded (meter). When a template is loaded it renders probe conversations, which show what
// variables it needs, whether it works at all, and whether it writes a tool call in the detected format.

import { parse, tokenize as lex } from '@huggingface/jinja';
import { ApiError } from '../../../base/errors.ts';
import type { ChatMessage, ToolSpec } from '../../seam/engine.ts';
import { createMeter, createStopwatch, type Meter, type TemplateBounds } from './meter.ts';
import { runTemplate, type Program } from './metered-run.ts';
import type { ToolFormat } from '../../seam/tool-format.ts';
import { detectCallWriting, type CallWriting } from './calls/detect.ts';
import { detectReasoning, promptPhase, type ReasoningFormat } from '../../seam/reasoning.ts';
import {
  alternating,
  imageParts,
  oneTurn,
  ownShape,
  textParts,
  toolFunction,
  toolObject,
  toolShape,
  type Shaped,
} from './conversation.ts';
import { disguiseFor, type Disguise } from './disguise.ts';
import { numberImages } from './images.ts';
import { addressed, answerOpening, prefillOf } from './prefill.ts';
import { tokenizerOf, type TemplateVocabulary, type Tokenize } from './tokenizer.ts';

type Variables = Readonly<Record<string, unknown>>;

export interface RenderedPrompt {
  /** −1 − i stands for image i of the conversation. */
  readonly tokens: number[];
  /** The part of an answer that comes next; `answer` where the model does not reason. */
  readonly phase: 'before' | 'thinking' | 'answer';
}

export interface ChatTemplate {
  readonly toolFormat: ToolFormat;
  readonly reasoning: ReasoningFormat | null;
  /** Texts that end an answer where the template has no control token to do it. */
  readonly stops: readonly string[];
  /** The Jinja text that renders, that of the fallback where it does. */
  readonly source?: string | undefined;
  /**
   * `variables`: what a request sets for the template (`enable_thinking`); names that the template
   * is always given stay ours.
   */
  prompt(
    messages: readonly ChatMessage[],
    tools: readonly ToolSpec[],
    variables?: Variables,
    how?: Rendering,
  ): RenderedPrompt;
  /** The tokens of that prompt. */
  tokens(messages: readonly ChatMessage[], tools: readonly ToolSpec[], variables?: Variables): number[];
}

export interface Rendering {
  /** False: a last message of the assistant is not continued. */
  readonly prefill?: boolean | undefined;
  /** The time that a template is told, milliseconds since 1970; default: now. */
  readonly now?: number | undefined;
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
 * The variables of a request without tools. The transformers library passes none; some templates were only
 * ever run with lists, and Firefunction wants its tools as text, under another name, and the time.
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
/**
 * Compiles a template; `source` null takes ChatML where the vocabulary has it, else plain text. So does a
 * template that cannot render one question. Throws on a syntax error.
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
  const renderer = new Renderer(text, vocabulary, bounds);
  /** One budget for all that is rendered before the first request. */
  const loading = renderer.meter();
  const absence = settleParts(renderer, loading);
  if (absence === null && source !== null) return createChatTemplate(null, vocabulary, bounds);
  const lacking = absence ?? {};
  return new JinjaTemplate(renderer, tokenizerOf(vocabulary, renderer.disguise), {
    lacking,
    calls: detectCallWriting(source, (messages, tools, calls) => {
      const offered = { ...lacking, ...renderer.offered(tools, lacking, calls) };
      const shaped = toolShape(messages, tools, calls, { disguise: renderer.disguise, thought: undefined });
      return renderer.disguise.off(renderer.render(shaped, offered, loading));
    }),
    reasoning: detectReasoning(source),
    losesSystem: losesSystem(renderer, lacking, loading),
    stops: source === null && !hasChatMl ? ['\nUser:'] : [],
    source: text,
  });
}

/** A compiled template with the names it is always given. */
class Renderer {
  readonly disguise: Disguise;
  /** The template knows content as a list of parts only. */
  parts = false;
  /** The time it tells, milliseconds since 1970; undefined: that of the clock. */
  now: number | undefined;
  readonly #program: Program;
  readonly #bounds: TemplateBounds;
  readonly #stopwatch = createStopwatch();
  readonly #ends: Variables;

  constructor(text: string, vocabulary: TemplateVocabulary, bounds: TemplateBounds) {
    this.#program = parse(lex(text, { lstrip_blocks: true, trim_blocks: true }));
    this.#bounds = bounds;
    this.disguise = disguiseFor(vocabulary.specials);
    const textOf = (token: number | null): string =>
      vocabulary.specials.find((special) => special.token === token)?.text ?? '';
    this.#ends = { bos_token: textOf(vocabulary.bos), eos_token: textOf(vocabulary.eos) };
  }

  meter(): Meter {
    return createMeter(this.#bounds, this.#stopwatch);
  }

  render(turns: readonly Shaped[], more: Variables, meter: Meter): string {
    const messages = this.parts ? textParts(turns) : turns;
    const date = new Date(this.now ?? Date.now());
    const variables: Record<string, unknown> = { ...more, ...globals(meter, date) };
    if ('datetime' in more) variables['datetime'] = strftime(date, '%Y-%m-%d');
    const given = { ...variables, messages, add_generation_prompt: true, ...this.#ends };
    return runTemplate(this.#program, given, meter);
  }

  /** Renders a probe conversation. */
  probe(messages: readonly ChatMessage[], more: Variables, meter: Meter): string {
    const writing = { disguise: this.disguise, thought: undefined };
    const shaped = messages.map((message) => ownShape(message, writing));
    return this.render(shaped, more, meter);
  }

  /** The variables in which a template reads tools. */
  offered(tools: readonly ToolSpec[], lacking: Variables, { told }: CallWriting): Variables {
    if (tools.length === 0 || told === 'system-field') return {};
    const shaped = tools.map((tool) => this.disguise.deep(toolObject(tool)));
    if (!('functions' in lacking)) return { tools: shaped };
    const text = JSON.stringify(tools.map(toolFunction), null, 4);
    return { tools: shaped, functions: this.disguise.on(text) };
  }
}

/** Null where the template fails; a template over a bound is left to fail there with every request. */
function absenceFor(renderer: Renderer, meter: Meter): Variables | null {
  for (const probe of PROBES) {
    for (const absence of ABSENCES) {
      try {
        renderer.probe(probe, absence, meter);
        return absence;
      } catch (error) {
        if (error instanceof ApiError) return absence;
      }
    }
  }
  return null;
}

/** Templates of vision models may know content as parts only, and leave a string out: they get parts. */
function settleParts(renderer: Renderer, meter: Meter): Variables | null {
  const plain = absenceFor(renderer, meter);
  if (plain !== null && showsQuestion(renderer, plain, meter)) return plain;
  renderer.parts = true;
  const typed = absenceFor(renderer, meter);
  if (typed !== null && showsQuestion(renderer, typed, meter)) return typed;
  renderer.parts = false;
  return plain;
}

function showsQuestion(renderer: Renderer, absence: Variables, meter: Meter): boolean {
  try {
    const written = renderer.probe([PROBE_USER], absence, meter);
    return renderer.disguise.off(written).includes(PROBE_USER.content);
  } catch {
    return false;
  }
}

/** Some templates read a system message only where it is the first, and silently leave out any other. */
function losesSystem(renderer: Renderer, lacking: Variables, meter: Meter): boolean {
  try {
    const written = renderer.probe(PROBE_SYSTEM, lacking, meter);
    return !renderer.disguise.off(written).includes('probesystem');
  } catch {
    // Refused with an error: a request tries again with the turns merged.
    return false;
  }
}

interface Findings {
  /** The variables that stand for absent tools. */
  readonly lacking: Variables;
  readonly calls: CallWriting;
  readonly reasoning: ReasoningFormat | null;
  readonly losesSystem: boolean;
  readonly stops: readonly string[];
  readonly source: string;
}

class JinjaTemplate implements ChatTemplate {
  readonly toolFormat: ToolFormat;
  readonly reasoning: ReasoningFormat | null;
  readonly stops: readonly string[];
  readonly source: string;
  readonly #renderer: Renderer;
  readonly #tokenize: Tokenize;
  readonly #findings: Findings;

  constructor(renderer: Renderer, tokenize: Tokenize, findings: Findings) {
    this.toolFormat = findings.calls.format;
    this.reasoning = findings.reasoning;
    this.stops = findings.stops;
    this.source = findings.source;
    this.#renderer = renderer;
    this.#tokenize = tokenize;
    this.#findings = findings;
  }

  tokens(messages: readonly ChatMessage[], tools: readonly ToolSpec[], variables: Variables = {}): number[] {
    return this.prompt(messages, tools, variables).tokens;
  }

  prompt(
    messages: readonly ChatMessage[],
    tools: readonly ToolSpec[],
    variables: Variables = {},
    { prefill, now }: Rendering = {},
  ): RenderedPrompt {
    const { disguise } = this.#renderer;
    this.#renderer.now = now;
    // The names are the template's; their values are text of a request like any other.
    const set = Object.fromEntries(
      Object.entries(variables).map(([variable, value]) => [variable, disguise.deep(value)]),
    );
    const { lacking } = this.#findings;
    const offered = this.#ownTools ? this.#renderer.offered(tools, lacking, this.#findings.calls) : {};
    const given = { ...set, ...lacking, ...offered };
    const { history, words } = prefillOf(messages, prefill);
    const numbers = numberImages(history);
    const images = numbers.size;
    const shaped = this.#shaped(history, tools, numbers);
    // Templates refuse histories they were not trained on (two user turns, a system message in the
    // middle). Such a history is answered too: once more with the turns merged and the system text at
    // the head of the first one, and at last with the whole conversation as one question, which is
    // what every template renders.
    const meter = this.#renderer.meter();
    let failure: unknown;
    const attempts = [() => shaped, () => alternating(shaped), () => oneTurn(alternating(shaped))];
    if (images > 0 && this.#renderer.parts) attempts.unshift(() => imageParts(shaped));
    for (const attempt of attempts) {
      try {
        const toTools = words === null && tools.length > 0;
        const rendered = addressed(this.toolFormat, this.#renderer.render(attempt(), given, meter), toTools);
        if (words !== null) {
          const opened = rendered + answerOpening(this.reasoning, rendered) + disguise.on(words);
          return { tokens: this.#tokenize(opened, images), phase: 'answer' };
        }
        const phase = this.reasoning === null ? 'answer' : promptPhase(this.reasoning, rendered);
        return { tokens: this.#tokenize(rendered, images), phase };
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
  }

  get #ownTools(): boolean {
    return this.toolFormat.kind !== 'generic';
  }

  #shaped(
    messages: readonly ChatMessage[],
    tools: readonly ToolSpec[],
    numbers: ReturnType<typeof numberImages>,
  ): Shaped[] {
    const { disguise } = this.#renderer;
    const { calls, losesSystem } = this.#findings;
    const shaped = toolShape(messages, tools, calls, {
      disguise,
      thought: this.reasoning?.field,
      numbers,
    });
    if (!losesSystem) return shaped;
    return shaped.map((turn, i) => (turn.role === 'system' && i > 0 ? { ...turn, role: 'user' } : turn));
  }
}

/**
 * Why a template of the configuration cannot be used (a fallback would silently replace it); null when it
 * can.
 */
export function templateProblem(source: string): string | null {
  try {
    const vocabulary = { specials: [], bos: null, eos: null, addBos: false, tokenize: () => [] };
    // Only the fallback has such texts.
    if (createChatTemplate(source, vocabulary).stops.length > 0) return 'it cannot render a question';
    const renderer = new Renderer(source, vocabulary, DEFAULT_BOUNDS);
    const meter = renderer.meter();
    const written = renderer.probe([PROBE_USER], settleParts(renderer, meter) ?? {}, meter);
    return renderer.disguise.off(written).includes(PROBE_USER.content) ? null : 'it leaves the question out';
  } catch (error) {
    // The library stumbles over some texts: its words tell a reader of the configuration little.
    if (!(error instanceof Error) || error instanceof TypeError) return 'it does not parse';
    return error.message.split('\n')[0] ?? '';
  }
}

/** The names every chat template may use. */
function globals(meter: Meter, date: Date): Record<string, unknown> {
  return {
    true: true,
    false: false,
    none: null,
    True: true,
    False: false,
    None: null,
    // The template's own text is dropped: it may quote the messages.
    raise_exception: () => {
      throw new Error('the template refuses');
    },
    strftime_now: (format: string) => strftime(date, format),
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

/** The strftime directives that templates use; UTC. */
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
