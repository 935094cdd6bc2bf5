// Where only the text of an answer was kept: the tokens picked here for as long as they write that text, and
// the token that the text most likely goes on with. Read from answers of chat and completions, whole or
// streamed, whose text is all they have.

import { isRecord } from '../../base/shape.ts';
import type { Engine } from '../../engine/seam/engine.ts';

/** The texts of the choices; undefined where the answer has more than text, or another form. */
export function textsIn(response: Uint8Array): readonly string[] | undefined {
  const text = Buffer.from(response).toString();
  const chunks = text.startsWith('{') ? [text] : text.split(/\r\n|\n|\r/).flatMap(dataOf);
  const texts: string[] = [];
  for (const chunk of chunks) {
    const pieces = piecesOf(chunk);
    if (pieces === undefined) return undefined;
    for (const [index, piece] of pieces) texts[index] = (texts[index] ?? '') + piece;
  }
  return texts.length === 0 ? undefined : Array.from(texts, (each) => each ?? '');
}

function dataOf(line: string): readonly string[] {
  return line.startsWith('data: {') ? [line.slice(6)] : [];
}

type Piece = readonly [index: number, text: string];

function piecesOf(chunk: string): readonly Piece[] | undefined {
  let json: unknown;
  try {
    json = JSON.parse(chunk);
  } catch {
    return undefined;
  }
  const choices = isRecord(json) ? json['choices'] : undefined;
  if (!Array.isArray(choices)) return undefined;
  const pieces: Piece[] = [];
  for (const choice of choices as readonly unknown[]) {
    if (!isRecord(choice) || typeof choice['index'] !== 'number') return undefined;
    const said = choice['message'] ?? choice['delta'] ?? { content: choice['text'] };
    if (!isRecord(said) || said['tool_calls'] !== undefined || said['reasoning_content'] !== undefined)
      return undefined;
    const content = said['content'] ?? '';
    if (typeof content !== 'string') return undefined;
    pieces.push([choice['index'], content]);
  }
  return pieces;
}

/** The lists of tokens to write so that the first difference shows; undefined: the texts show none. */
export async function recordedBy(
  engine: Engine,
  here: readonly (readonly number[])[],
  texts: readonly string[],
): Promise<readonly (readonly number[])[] | undefined> {
  const lists: (readonly number[])[] = [];
  let differs = false;
  for (const [choice, tokens] of here.entries()) {
    const recorded = Buffer.from(texts[choice] ?? '');
    const pieces = await engine.pieces(tokens);
    let at = 0;
    let agreed = 0;
    while (agreed < pieces.length) {
      const piece = pieces[agreed] ?? new Uint8Array(0);
      if (!recorded.subarray(at, at + piece.length).equals(piece)) break;
      at += piece.length;
      agreed += 1;
    }
    const rest = recorded.subarray(at).toString();
    const [next] = rest === '' ? [] : await engine.tokenize({ text: rest, addSpecial: false });
    if (next !== undefined) differs = true;
    lists.push(next === undefined ? tokens : [...tokens.slice(0, agreed), next]);
  }
  return differs ? lists : undefined;
}
