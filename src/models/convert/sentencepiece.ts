// Reads `tokenizer.model`: a protocol buffer, ModelProto of github.com/google/sentencepiece. Of each piece the text, the score and the
// kind; the rest is skipped. Bounds every length by what is left of the file, refuses wire types the format does not use,
// pieces that are not UTF-8, and a piece that is there twice.

import { invalidDescription } from './folder.ts';

export interface VocabularyPiece {
  readonly text: string;
  /** A single. */
  readonly score: number;
  /** 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte: the same numbers as GGUF's token types. */
  readonly kind: number;
}

const MAX_PIECES = 1 << 20;
const MAX_PIECE_BYTES = 1024;
const [VARINT, FIXED64, BYTES, FIXED32] = [0, 1, 2, 5];

export function readPieces(name: string, bytes: Uint8Array): readonly VocabularyPiece[] {
  const pieces: VocabularyPiece[] = [];
  const texts = new Set<string>();
  for (const field of fieldsOf(name, bytes)) {
    if (field.number !== 1) continue;
    if (field.bytes === undefined) throw invalidDescription(name, 'pieces is no list of messages');
    if (pieces.length === MAX_PIECES) throw invalidDescription(name, `more than ${MAX_PIECES} pieces`);
    const piece = readPiece(name, pieces.length, field.bytes);
    if (texts.has(piece.text))
      throw invalidDescription(name, `pieces[${pieces.length}] repeats an earlier piece`);
    texts.add(piece.text);
    pieces.push(piece);
  }
  if (pieces.length === 0) throw invalidDescription(name, 'pieces is empty');
  return pieces;
}

function readPiece(name: string, index: number, bytes: Uint8Array): VocabularyPiece {
  let text = '';
  let score = 0;
  let kind = 1;
  for (const field of fieldsOf(name, bytes)) {
    if (field.number === 1 && field.bytes !== undefined && field.bytes.length <= MAX_PIECE_BYTES) {
      try {
        text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(field.bytes);
      } catch {
        throw invalidDescription(name, `pieces[${index}].piece is not UTF-8`);
      }
    } else if (field.number === 2 && field.wire === FIXED32) score = field.float;
    else if (field.number === 3 && field.wire === VARINT) kind = field.integer;
    else if (field.number <= 3)
      throw invalidDescription(name, `pieces[${index}] has a field of another type`);
  }
  if (text === '') throw invalidDescription(name, `pieces[${index}].piece is empty`);
  if (!Number.isFinite(score)) throw invalidDescription(name, `pieces[${index}].score is not finite`);
  if (kind < 1 || kind > 6) throw invalidDescription(name, `pieces[${index}].type is ${kind}`);
  return { text, score, kind };
}

interface Field {
  readonly number: number;
  readonly wire: number;
  readonly bytes?: Uint8Array | undefined;
  readonly integer: number;
  readonly float: number;
}

/** Fields of one message (protobuf.dev, "Encoding"). */
function* fieldsOf(name: string, bytes: Uint8Array): Generator<Field> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const cut = (): Error => invalidDescription(name, 'it ends inside of a field, or is no protocol buffer');
  let at = 0;
  const varint = (): number => {
    let value = 0;
    for (let factor = 1, i = 0; i < 10; i++, factor *= 128) {
      if (at >= bytes.length) throw cut();
      const byte = bytes[at++]!;
      value += (byte & 0x7f) * factor;
      if (byte < 128) return value;
    }
    throw cut();
  };
  const need = (length: number): number => {
    if (length > bytes.length - at) throw cut();
    at += length;
    return at - length;
  };
  while (at < bytes.length) {
    const tag = varint();
    const number = Math.floor(tag / 8);
    const wire = tag % 8;
    if (number === 0) throw cut();
    const none = { number, wire, integer: 0, float: 0 };
    if (wire === VARINT) yield { ...none, integer: varint() };
    else if (wire === FIXED64) need(8);
    else if (wire === FIXED32) yield { ...none, float: view.getFloat32(need(4), true) };
    else if (wire === BYTES) {
      const length = varint();
      const start = need(length);
      yield { ...none, bytes: bytes.subarray(start, start + length) };
    } else throw cut();
  }
}
