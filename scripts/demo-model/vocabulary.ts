// Word-level vocabulary for the llama demo models, in the GPT-2 byte-level form of llama.cpp
// (`tokenizer.ggml.model` gpt2, `pre` llama-bpe, no merges): 256 single bytes, so that any text can be
// encoded, and one token per pre-token of the texts given. llama-bpe takes a whole pre-token that is in the
// vocabulary without needing merges.

export interface DemoVocabulary {
  /** Tokens as the GGUF stores them (bytes mapped to printable characters). */
  readonly tokens: readonly string[];
  /** tokenizer.ggml.token_type: 1 normal, 3 control, 4 user defined. */
  readonly types: readonly number[];
  /** Id of a special token or of a whole pre-token; throws when there is none. */
  id(piece: string): number;
  /** Ids of plain text, special tokens not recognised; words not in the vocabulary fall apart into bytes. */
  encode(text: string): readonly number[];
}

/** The pre-tokenizer of llama-bpe (Llama 3's regular expression). */
const PRE_TOKEN =
  /'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+/gu;

export function preTokens(text: string): readonly string[] {
  return text.match(PRE_TOKEN) ?? [];
}

/** `control` tokens come first, then `literal` ones (matched in text, printed as they are), bytes, words. */
export function buildVocabulary(
  control: readonly string[],
  literal: readonly string[],
  words: Iterable<string>,
): DemoVocabulary {
  const byteNames = Array.from({ length: 256 }, (_, byte) => byteName(byte));
  const wordNames = [...new Set(words)].map(nameOf).filter((name) => [...name].length > 1);
  const tokens = [...control, ...literal, ...byteNames, ...wordNames];
  const types = [
    ...control.map(() => 3),
    ...literal.map(() => 4),
    ...[...byteNames, ...wordNames].map(() => 1),
  ];
  const ids = new Map(tokens.map((token, i) => [token, i]));
  const special = new Set([...control, ...literal]);
  const id = (piece: string): number => {
    const found = ids.get(special.has(piece) ? piece : nameOf(piece));
    if (found === undefined) throw new Error(`no token for ${JSON.stringify(piece)}`);
    return found;
  };
  const encode = (text: string): readonly number[] =>
    preTokens(text).flatMap((piece) => {
      const whole = ids.get(nameOf(piece));
      return whole === undefined
        ? Array.from(Buffer.from(piece, 'utf8'), (byte) => ids.get(byteName(byte))!)
        : [whole];
    });
  return { tokens, types, id, encode };
}

function nameOf(piece: string): string {
  return Array.from(Buffer.from(piece, 'utf8'), byteName).join('');
}

/** GPT-2's byte table: printable Latin-1 stays, the other 68 bytes move to U+0100 and up. */
function byteName(byte: number): string {
  if (printable(byte)) return String.fromCharCode(byte);
  let rank = 0;
  for (let b = 0; b < byte; b++) if (!printable(b)) rank += 1;
  return String.fromCharCode(256 + rank);
}

function printable(byte: number): boolean {
  return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
}
