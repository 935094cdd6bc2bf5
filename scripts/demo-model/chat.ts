// demo-chat: a two-layer llama whose weights are computed from text.ts, not trained. A constant in dimension
// BIAS of the residual stream (width 480) dominates the RMS norms, so that they are nearly constant and
// their weights undo them.

// The layers:
//   layer 1 attention: heads 0–3 copy the codes of the four previous tokens (RoPE phases peak at 1…4);
//     head 4 finds the latest role marker; head 5 sees whether tools are offered.
//   layer 1 FFN: a saturating pair of units per keyword and form: "this word, in a user turn" → mark, topic.
//   layer 2 attention: head 0 copies the topic of the latest mark.
//   layer 2 FFN: one unit per rule "after these words (under this topic) comes that word".

import { buildLanguage } from './language.ts';
import type { Language } from './language.ts';
import { cosSin, goldCode, ropeFrequencies, squareRoot } from './numbers.ts';
import { CHAT_TEMPLATE } from './text.ts';
import { llamaMetadata, matrix } from './llama.ts';
import type { Tensor } from './gguf.ts';
import { writeGguf } from './gguf.ts';

const WIDTH = 480;
const CODE = 63;
/** Codes: the current token, then those 1…4 back, then the predicted one. */
const CURRENT = 0;
function previous(back: number): number {
  return 64 * back;
}
const PREDICTED = 320;
const BIAS = 384;
const ROLE_MARKER = 385;
const USER_MARKER = 386;
const TOOLS_MARKER = 387;
const START_MARKER = 388;
const IN_USER_TURN = 389;
const TOOLS_OFFERED = 390;
const MARK = 391;
const MARKED_TOPIC = 416;
const TOPIC = 448;

const BALLAST = 64;
const HEADS = 6;
const HEAD = 64;
const SHARPNESS = 40;
/** Logit of a certain next token; the rest stay a quarter of it or lower. */
const LOGIT = 36;

export function buildChatModel(): Buffer {
  const language = buildLanguage();
  const { vocabulary } = language;
  const codes = vocabulary.tokens.map((_, id) => goldCode(id));
  const units = Math.ceil(Math.max(2 * language.topicRules.length, language.nextRules.length) / 32) * 32;
  const tensors: Tensor[] = [
    {
      name: 'token_embd.weight',
      type: 'F16',
      shape: [WIDTH, codes.length],
      values: embeddings(language, codes),
    },
    ...firstAttention(),
    ...topicUnits(language, codes, units),
    ...secondAttention(),
    ...nextUnits(language, codes, units),
    norm('output_norm.weight', 6),
    { name: 'output.weight', type: 'F16', shape: [WIDTH, codes.length], values: outputs(language, codes) },
  ];
  const metadata = llamaMetadata({
    name: 'Assay demo chat',
    description: 'Answers questions about attestation; weights computed from a text by scripts/demo-model',
    width: WIDTH,
    layers: 2,
    units,
    heads: HEADS,
    headWidth: HEAD,
    context: 2048,
    fileType: 7,
    vocabulary,
    special: { bos: '<s>', eos: '</s>', eot: '<|end|>', padding: '<|pad|>' },
    chatTemplate: CHAT_TEMPLATE,
  });
  return writeGguf(metadata, tensors);
}

function embeddings(language: Language, codes: readonly (readonly number[])[]): Float32Array {
  const id = (piece: string): number => language.vocabulary.id(piece);
  const values = new Float32Array(WIDTH * codes.length);
  codes.forEach((code, token) => {
    values.set(code, WIDTH * token + CURRENT);
    values[WIDTH * token + BIAS] = BALLAST;
  });
  for (const marker of ['<|system|>', '<|user|>', '<|assistant|>', '<|tool|>'])
    values[WIDTH * id(marker) + ROLE_MARKER] = 1;
  values[WIDTH * id('<|user|>') + USER_MARKER] = 1;
  values[WIDTH * id('<|tools|>') + TOOLS_MARKER] = 1;
  values[WIDTH * id('<s>') + START_MARKER] = 1;
  return values;
}

/** Undoes the RMS of a residual stream holding `codeCount` codes and the ballast; the bias comes out as 1. */
function norm(name: string, codeCount: number): Tensor {
  const rms = squareRoot((BALLAST * BALLAST + CODE * codeCount) / WIDTH);
  const values = new Float32Array(WIDTH).fill(rms);
  values[BIAS] = rms / BALLAST;
  return { name, type: 'F32', shape: [WIDTH], values };
}

function firstAttention(): readonly Tensor[] {
  const q = matrix('blk.0.attn_q.weight', 'F16', WIDTH, HEADS * HEAD);
  const k = matrix('blk.0.attn_k.weight', 'F16', WIDTH, HEADS * HEAD);
  const v = matrix('blk.0.attn_v.weight', 'F16', WIDTH, HEADS * HEAD);
  const o = matrix('blk.0.attn_output.weight', 'F16', HEADS * HEAD, WIDTH);
  const frequencies = ropeFrequencies();
  for (let back = 1; back <= 4; back++) {
    const head = HEAD * (back - 1);
    // Σ cos((Δ − back)·θ) over the sixteen fastest pairs peaks at Δ = back and is 1.05 lower next to it.
    for (let pair = 0; pair < 16; pair++) {
      const [cos, sin] = cosSin(-back * frequencies[pair]!);
      q.set(head + 2 * pair, BIAS, 20 * cos);
      q.set(head + 2 * pair + 1, BIAS, 20 * sin);
      k.set(head + 2 * pair, BIAS, 16);
    }
    for (let i = 0; i < CODE; i++) {
      v.set(head + i, CURRENT + i, 1);
      o.set(previous(back) + i, head + i, 1);
    }
  }
  const role = HEAD * 4;
  recency(q, role, k, ROLE_MARKER);
  v.set(role, USER_MARKER, 1);
  o.set(IN_USER_TURN, role, 1);
  // Constant scores (the slowest pair hardly turns): 60 for the tools marker, 30 for the start, 0 for the
  // rest.
  const tools = HEAD * 5;
  q.set(tools + 62, BIAS, 24);
  k.set(tools + 62, TOOLS_MARKER, 20);
  k.set(tools + 62, START_MARKER, 10);
  v.set(tools, TOOLS_MARKER, 1);
  o.set(TOOLS_OFFERED, tools, 1);
  return [norm('blk.0.attn_norm.weight', 1), q.tensor, k.tensor, v.tensor, o.tensor];
}

/**
 * Scores of tokens flagged in `flag` fall almost linearly with distance, by about 2.5 per token, and stay
 * above those of other tokens (0) up to about 1400 tokens back.
 */
function recency(query: Matrix, head: number, key: Matrix, flag: number): void {
  const frequencies = ropeFrequencies();
  for (let pair = 24; pair < 30; pair++) {
    const [cos, sin] = cosSin(1.5707963267948966 - 1400 * frequencies[pair]!);
    query.set(head + 2 * pair, BIAS, 90 * cos);
    query.set(head + 2 * pair + 1, BIAS, 90 * sin);
    key.set(head + 2 * pair, flag, 90);
  }
}

type Matrix = ReturnType<typeof matrix>;

/**
 * silu(K·(x − t)) − silu(K·(x − t − 0.3)): zero below the threshold t, then a short ramp, then
 * constant. Marks must be equal to 1e-3, because layer 2 multiplies them with distances; hence F16
 * here where the rest is Q8_0.
 */
function topicUnits(
  language: Language,
  codes: readonly (readonly number[])[],
  units: number,
): readonly Tensor[] {
  const gate = matrix('blk.0.ffn_gate.weight', 'F16', WIDTH, units);
  const up = matrix('blk.0.ffn_up.weight', 'F16', WIDTH, units);
  const down = matrix('blk.0.ffn_down.weight', 'F16', units, WIDTH);
  language.topicRules.forEach((rule, i) => {
    let need = 0;
    if (rule.where === 'user') need += 1;
    if (rule.tools === true) need += 1;
    for (const [unit, threshold, sign] of [
      [2 * i, need + 0.5, 1],
      [2 * i + 1, need + 0.8, -1],
    ] as const) {
      codes[rule.token]!.forEach((bit, j) => gate.set(unit, CURRENT + j, (SHARPNESS * bit) / CODE));
      if (rule.where === 'user') gate.set(unit, IN_USER_TURN, SHARPNESS);
      if (rule.tools !== undefined) gate.set(unit, TOOLS_OFFERED, rule.tools ? SHARPNESS : -SHARPNESS);
      gate.set(unit, BIAS, -SHARPNESS * threshold);
      up.set(unit, BIAS, 1);
      down.set(MARK, unit, sign / (0.3 * SHARPNESS));
      down.set(MARKED_TOPIC + rule.topic, unit, sign / (0.3 * SHARPNESS));
    }
  });
  return [norm('blk.0.ffn_norm.weight', 5), gate.tensor, up.tensor, down.tensor];
}

function secondAttention(): readonly Tensor[] {
  const q = matrix('blk.1.attn_q.weight', 'F16', WIDTH, HEADS * HEAD);
  const k = matrix('blk.1.attn_k.weight', 'F16', WIDTH, HEADS * HEAD);
  const v = matrix('blk.1.attn_v.weight', 'F16', WIDTH, HEADS * HEAD);
  const o = matrix('blk.1.attn_output.weight', 'F16', HEADS * HEAD, WIDTH);
  recency(q, 0, k, MARK);
  for (let topic = 0; topic < 32; topic++) {
    v.set(topic, MARKED_TOPIC + topic, 1);
    o.set(TOPIC + topic, topic, 1);
  }
  return [norm('blk.1.attn_norm.weight', 5), q.tensor, k.tensor, v.tensor, o.tensor];
}

function nextUnits(
  language: Language,
  codes: readonly (readonly number[])[],
  units: number,
): readonly Tensor[] {
  const gate = matrix('blk.1.ffn_gate.weight', 'Q8_0', WIDTH, units);
  const up = matrix('blk.1.ffn_up.weight', 'Q8_0', WIDTH, units);
  const down = matrix('blk.1.ffn_down.weight', 'Q8_0', units, WIDTH);
  language.nextRules.forEach((rule, unit) => {
    // Every matching token adds 1, one that does not at most 15/63; so all but one is at least 0.76 short.
    const need = rule.context.length + (rule.topic === undefined ? 0 : 1);
    rule.context.toReversed().forEach((token, back) => {
      codes[token]!.forEach((bit, column) =>
        gate.set(unit, (back === 0 ? CURRENT : previous(back)) + column, (SHARPNESS * bit) / CODE),
      );
    });
    if (rule.topic !== undefined) gate.set(unit, TOPIC + rule.topic, SHARPNESS);
    gate.set(unit, BIAS, -SHARPNESS * (need - 0.4));
    up.set(unit, BIAS, 1);
    codes[rule.next]!.forEach((bit, row) =>
      down.set(PREDICTED + row, unit, (rule.strength * bit) / (0.4 * SHARPNESS)),
    );
  });
  return [norm('blk.1.ffn_norm.weight', 5), gate.tensor, up.tensor, down.tensor];
}

/**
 * Logits: the predicted code, plus small preferences that matter only where a grammar
 * forbids what the text wants.
 */
function outputs(language: Language, codes: readonly (readonly number[])[]): Float32Array {
  const { vocabulary } = language;
  const values = new Float32Array(WIDTH * codes.length);
  const silent = new Set(
    ['<s>', '</s>', '<|system|>', '<|user|>', '<|assistant|>', '<|tool|>', '<|tools|>', '<|pad|>'].map(
      (token) => vocabulary.id(token),
    ),
  );
  codes.forEach((code, token) => {
    if (!silent.has(token))
      values.set(
        code.map((bit) => (LOGIT * bit) / CODE),
        WIDTH * token + PREDICTED,
      );
  });
  const prefer = (piece: string, logit: number): void =>
    void (values[WIDTH * vocabulary.id(piece) + BIAS] = logit);
  prefer('"', 12);
  prefer('{"', 11.5);
  prefer(':', 11.2);
  prefer('}', 11);
  prefer(']', 10.5);
  prefer(',', 10);
  prefer('<|end|>', 9);
  prefer(' The', 8);
  for (const token of silent) values[WIDTH * token + BIAS] = -20;
  return values;
}
