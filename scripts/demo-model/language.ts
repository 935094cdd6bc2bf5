// Turns the text of text.ts into the rules the chat model's weights encode: which words choose a topic, and
// which run of words (with or without the topic) continues with which word. Pure tables; no numbers yet.

import { FALLBACK, TOOL_CALL_CLOSE, TOOL_CALL_OPEN, TOOL_RESULT, TOPICS, COMMON_WORDS } from './text.ts';
import { buildVocabulary, preTokens } from './vocabulary.ts';
import type { DemoVocabulary } from './vocabulary.ts';

export const CONTROL = [
  '<s>',
  '</s>',
  '<|end|>',
  '<|system|>',
  '<|user|>',
  '<|assistant|>',
  '<|tool|>',
  '<|tools|>',
  '<|pad|>',
] as const;
const LITERAL = [TOOL_CALL_OPEN, TOOL_CALL_CLOSE];
const LONGEST_CONTEXT = 5;

/**
 * `token` in a user turn (or anywhere, for markers) sets `topic`. `tools`: only with tools offered / only
 * without.
 */
export interface TopicRule {
  readonly token: number;
  readonly topic: number;
  readonly where: 'user' | 'anywhere';
  readonly tools?: boolean | undefined;
}

/**
 * After `context` (oldest first), under `topic` when given, comes `next`. `strength` 1 is
 * certain; less is a guess.
 */
export interface NextRule {
  readonly context: readonly number[];
  readonly topic: number | undefined;
  readonly next: number;
  readonly strength: number;
}

export interface Language {
  readonly vocabulary: DemoVocabulary;
  readonly topicCount: number;
  readonly topicRules: readonly TopicRule[];
  readonly nextRules: readonly NextRule[];
}

export function buildLanguage(): Language {
  const topics = [FALLBACK, TOOL_RESULT, ...TOPICS];
  const words = topics.flatMap((topic) => preTokens(topic.answer.replaceAll(/<\/?tool_call>/g, '')));
  const forms = topics.flatMap((topic) => topic.keywords.flatMap(formsOf));
  const vocabulary = buildVocabulary(CONTROL, LITERAL, [
    'answer',
    ...words,
    ...forms,
    ...COMMON_WORDS.flatMap((word) => formsOf(word).slice(0, 3)),
  ]);
  const texts = topics.map((topic) => [
    vocabulary.id('<|assistant|>'),
    ...encodeAnswer(vocabulary, topic.answer),
    vocabulary.id('<|end|>'),
  ]);
  return {
    vocabulary,
    topicCount: topics.length,
    topicRules: topicRules(vocabulary),
    nextRules: nextRules(vocabulary, texts),
  };
}

/** Token ids of an answer, tool-call tags as single tokens. */
export function encodeAnswer(vocabulary: DemoVocabulary, answer: string): readonly number[] {
  return answer
    .split(/(<\/?tool_call>)/)
    .flatMap((part) => (LITERAL.includes(part) ? [vocabulary.id(part)] : vocabulary.encode(part)));
}

function topicRules(vocabulary: DemoVocabulary): readonly TopicRule[] {
  const rules: TopicRule[] = [
    { token: vocabulary.id('<|user|>'), topic: 0, where: 'anywhere' },
    { token: vocabulary.id('<|tool|>'), topic: 1, where: 'anywhere' },
  ];
  const withTools = new Set(TOPICS.filter((topic) => topic.needsTools).flatMap((topic) => topic.keywords));
  for (const [i, topic] of TOPICS.entries()) {
    for (const keyword of topic.keywords) {
      const withoutTools = withTools.has(keyword) ? false : undefined;
      const tools = topic.needsTools ? true : withoutTools;
      for (const form of formsOf(keyword)) {
        rules.push({ token: vocabulary.id(form), topic: i + 2, where: 'user', tools });
      }
    }
  }
  return rules;
}

/**
 * A word as it appears in running text: lower and Capitalised, alone or after a space;
 * short ones also as ACRONYM.
 */
function formsOf(word: string): readonly string[] {
  const upper = word.toUpperCase();
  const forms = [word, ` ${word}`, upper[0]! + word.slice(1), ` ${upper[0]!}${word.slice(1)}`];
  return word.length > 4 ? forms : [...new Set([...forms, upper, ` ${upper}`, `-${upper}`])];
}

/**
 * For every place of every text the shortest context that settles the next token: without the topic if three
 * tokens do, else with it. Then, weaker, a guess for each token alone, for prompts that are not in the text.
 */
function nextRules(vocabulary: DemoVocabulary, texts: readonly (readonly number[])[]): readonly NextRule[] {
  const seen = new Map<string, Set<number>>();
  const count = new Map<number, Map<number, number>>();
  // A tool call is made under its topic only: elsewhere JSON is what a grammar asks for.
  const isCall = (topic: number): boolean => texts[topic]![1] === vocabulary.id(TOOL_CALL_OPEN);
  const note = (key: string, next: number): void =>
    void (seen.get(key) ?? seen.set(key, new Set()).get(key)!).add(next);
  eachPlace(texts, (topic, context, next) => {
    for (let n = 1; n <= context.length; n++) {
      const tail = context.slice(-n).join(' ');
      note(tail, next);
      note(`${topic}:${tail}`, next);
    }
    if (isCall(topic)) return;
    const followers =
      count.get(context.at(-1)!) ?? count.set(context.at(-1)!, new Map()).get(context.at(-1)!)!;
    followers.set(next, (followers.get(next) ?? 0) + 1);
  });
  const rules = new Map<string, NextRule>();
  eachPlace(texts, (topic, context, next) => {
    const settled = (length: number, prefix: string): boolean =>
      length <= context.length && seen.get(prefix + context.slice(-length).join(' '))!.size === 1;
    const lengths = [1, 2, 3, 4, 5];
    const free = isCall(topic) ? undefined : lengths.slice(0, 3).find((each) => settled(each, ''));
    const bound = lengths.find((each) => settled(each, `${topic}:`));
    const length = free ?? bound;
    if (length === undefined)
      throw new Error(`text of topic ${topic} is ambiguous before ${vocabulary.tokens[next]}: reword it`);
    const tail = context.slice(-length);
    const key = `${free === undefined ? topic : ''}:${tail.join(' ')}`;
    rules.set(key, { context: tail, topic: free === undefined ? topic : undefined, next, strength: 1 });
  });
  for (const [token, followers] of count) {
    if (rules.has(`:${token}`) || token === vocabulary.id('<|assistant|>')) continue;
    const [next] = [...followers].sort(
      ([one, times], [other, othersTimes]) => othersTimes - times || one - other,
    )[0]!;
    rules.set(`guess:${token}`, { context: [token], topic: undefined, next, strength: 0.5 });
  }
  // Where the text ends but a grammar holds a JSON string open, the quote is the second choice.
  const end = vocabulary.id('<|end|>');
  for (const [key, rule] of rules)
    if (rule.next === end) rules.set(`close:${key}`, { ...rule, next: vocabulary.id('"'), strength: 0.3 });
  // A JSON string opened by a grammar starts with the topic's answer.
  for (const quote of [vocabulary.id('"'), vocabulary.id('":"'), ...vocabulary.encode(' "').slice(-1)]) {
    texts.forEach((text, topic) => {
      if (!isCall(topic))
        rules.set(`json:${topic}:${quote}`, { context: [quote], topic, next: text[1]!, strength: 0.6 });
    });
  }
  // An object that a grammar asks for begins {"answer":" unless the grammar wants another key.
  const [brace, colon] = [vocabulary.id('{"'), vocabulary.id('":"')];
  rules.set('object:key', {
    context: [brace],
    topic: undefined,
    next: vocabulary.id('answer'),
    strength: 0.6,
  });
  rules.set('object:value', {
    context: [brace, vocabulary.id('answer')],
    topic: undefined,
    next: colon,
    strength: 1,
  });
  // After the answer the object ends, and then the text.
  texts.forEach((text, topic) => {
    if (!isCall(topic))
      rules.set(`last:${topic}`, {
        context: [text.at(-2)!, vocabulary.id('"')],
        topic,
        next: vocabulary.id('}'),
        strength: 0.5,
      });
  });
  for (const piece of ['}', '"}'])
    rules.set(`done:${piece}`, {
      context: vocabulary.encode(piece).slice(-1),
      topic: undefined,
      next: end,
      strength: 0.5,
    });
  // After words the text does not know, a sentence begins.
  const letters = Array.from({ length: 26 }, (_, i) => String.fromCharCode(97 + i));
  for (const piece of [
    ...letters,
    ...letters.map((letter) => letter.toUpperCase()),
    ...COMMON_WORDS.map((word) => ` ${word}`),
  ]) {
    if (count.has(vocabulary.encode(piece).at(-1)!)) continue;
    rules.set(`unknown:${piece}`, {
      context: vocabulary.encode(piece),
      topic: undefined,
      next: vocabulary.id(' The'),
      strength: 0.4,
    });
  }
  return [...rules.values()];
}

function eachPlace(
  texts: readonly (readonly number[])[],
  visit: (topic: number, context: readonly number[], next: number) => void,
): void {
  texts.forEach((text, topic) => {
    for (let at = 1; at < text.length; at++)
      visit(topic, text.slice(Math.max(0, at - LONGEST_CONTEXT), at), text[at]!);
  });
}
