// How a model frames its reasoning. A block stands at the head of an answer: a start (or the prompt
// has opened it), the thoughts, an end, and in some families framing before the answer proper. Found
// by the marks that the chat template writes; a template without them has no reasoning, and its
// answers are passed on as they are.

export interface ReasoningFormat {
  readonly starts: readonly string[];
  readonly end: string;
  /** Texts that begin a further block right behind one. */
  readonly again?: readonly string[] | undefined;
  /** Text that closes a block at the end of its budget, as the model would write it. */
  readonly close: string;
  /** Framing of the answer, which is no part of it. */
  readonly answer: readonly string[];
  /** Text that ends an answer so framed; none follows. */
  readonly ending?: string | undefined;
  /** Texts that open a further block within the answer. */
  readonly inside?: readonly string[] | undefined;
  /** Framing of words before the answer, which end as a block does. */
  readonly preamble?: readonly string[] | undefined;
  /**
   * The field of a message in which the template reads earlier reasoning; `parts`: it reads it as a part of
   * the content, `{type: "thinking", thinking}`; null where it has no place for it.
   */
  readonly field: 'reasoning_content' | 'thinking' | 'reasoning' | 'parts' | null;
}

type Marks = Omit<ReasoningFormat, 'field'>;

function block(start: string, end: string, close = `\n${end}\n\n`, answer: readonly string[] = []): Marks {
  return { starts: [start], end, close, answer };
}

const HARMONY_THOUGHTS = '<|channel|>analysis<|message|>';
const HARMONY_FINAL = '<|channel|>final<|message|>';
/** As models write it before an answer that is JSON. */
const HARMONY_JSON = '<|channel|>final <|constrain|>json<|message|>';
const MUSE_ANSWER = '<|start|>assistant to=user<|message|>';
const HARMONY_PREAMBLE = '<|channel|>commentary<|message|>';

const GEMMA_THOUGHTS = '<|channel>thought';

/** The first whose text is in the template. Tags that contain another's come before it. */
const FAMILIES: readonly (readonly [written: string, marks: Marks])[] = [
  [
    HARMONY_THOUGHTS,
    {
      ...block(
        HARMONY_THOUGHTS,
        '<|end|>',
        `<|end|><|start|>assistant${HARMONY_FINAL}`,
        [HARMONY_FINAL, HARMONY_JSON].flatMap((text) => [`<|start|>assistant${text}`, text]),
      ),
      again: [`<|start|>assistant${HARMONY_THOUGHTS}`],
      preamble: [`<|start|>assistant${HARMONY_PREAMBLE}`, HARMONY_PREAMBLE],
    },
  ],
  [
    '<|open|>',
    {
      ...block(
        '<|open|>think<|sep|>',
        '<|close|>think<|sep|>',
        '<|close|>think<|sep|><|open|>response<|sep|>',
        ['<|open|>response<|sep|>'],
      ),
      ending: '<|close|>response<|sep|>',
    },
  ],
  [
    'to=self<|message|>',
    block('to=self<|message|>', '<|eom|>', `<|eom|>${MUSE_ANSWER}`, [MUSE_ANSWER, 'to=user<|message|>']),
  ],
  ['</seed:think>', block('<seed:think>', '</seed:think>')],
  ["':opensource'", block('<think:opensource>', '</think:opensource>')],
  // An answer without thoughts begins with the end of the block.
  ['</mm:think>', block('<mm:think>', '</mm:think>', '\n</mm:think>\n\n', ['</mm:think>'])],
  ['[/THINK]', block('[THINK]', '[/THINK]', '[/THINK]')],
  [
    GEMMA_THOUGHTS,
    {
      ...block(GEMMA_THOUGHTS, '<channel|>', '\n<channel|>'),
      // It sometimes opens a channel twice.
      starts: [GEMMA_THOUGHTS, `<|channel>${GEMMA_THOUGHTS}`],
      again: [GEMMA_THOUGHTS],
      inside: [GEMMA_THOUGHTS],
    },
  ],
  ['<|END_THINKING|>', block('<|START_THINKING|>', '<|END_THINKING|>', '<|END_THINKING|>')],
  ['<|inner_suffix|>', block('<|inner_prefix|>', '<|inner_suffix|>', '<|inner_suffix|>')],
  [
    '<|begin|>assistant<|think|>',
    block('<|think|>', '<|end|>', '<|end|><|begin|>assistant<|content|>', [
      '<|begin|>assistant<|content|>',
      '<|content|>',
    ]),
  ],
  [
    '[BEGIN FINAL RESPONSE]',
    {
      ...block('Here are my reasoning steps:', '[BEGIN FINAL RESPONSE]', '\n[BEGIN FINAL RESPONSE]\n'),
      ending: '[END FINAL RESPONSE]',
    },
  ],
  [
    '<response>',
    { ...block('<think>', '</think>', '</think><response>', ['<response>']), ending: '</response>' },
  ],
  ['</think>', block('<think>', '</think>')],
];

export function detectReasoning(template: string | null): ReasoningFormat | null {
  if (template === null) return null;
  const found = FAMILIES.find(([written, { end }]) =>
    written === '<response>'
      ? template.includes(written) && template.includes(end)
      : template.includes(written),
  );
  return found === undefined ? null : { ...found[1], field: fieldOf(template) };
}

function fieldOf(template: string): ReasoningFormat['field'] {
  if (/\breasoning_content\b/.test(template)) return 'reasoning_content';
  if (/\[['"]type['"]\] == ['"]thinking['"]/.test(template)) return 'parts';
  if (/message(?:\.thinking\b|\[['"]thinking['"]\])/.test(template)) return 'thinking';
  return /message(?:\.reasoning\b|\[['"]reasoning['"]\])/.test(template) ? 'reasoning' : null;
}

/** Whether a prompt that ends so has opened the block, or closed it. */
export function promptPhase(format: ReasoningFormat, rendered: string): 'before' | 'thinking' | 'answer' {
  const tail = rendered.slice(-256).trimEnd();
  if (format.starts.some((start) => tail.endsWith(start))) return 'thinking';
  const closed = tail.endsWith(format.end) || format.answer.some((text) => tail.endsWith(text));
  return closed && format.end !== '<|end|>' ? 'answer' : 'before';
}
