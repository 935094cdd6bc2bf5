// Strict reader of whisper models in the ggml format (whisper.cpp, convert-pt-to-ggml.py; little-endian):
// eleven numbers, mel filters, a vocabulary, then tensors up to the end of the file. whisper.cpp believes
// its file: lengths size its buffers, numbers its products. So everything it will read is compared here
// first, with 400 `invalid_whisper_model` naming the field: every tensor by name, shape, type and size, each
// once. Costs a read of the head and of one tensor header each, however large the file.

import { ApiError } from '../../base/errors.ts';
import type { ByteSource } from '../gguf/bytes.ts';
import { expectedTensors, type TensorKind, type WhisperSizes } from './tensors.ts';

/** "ggml", as the first four bytes of the file have it. */
export const WHISPER_MAGIC = 0x67676d6c;

export interface WhisperInfo extends WhisperSizes {
  /** Its vocabulary has tokens for languages. */
  readonly multilingual: boolean;
  /** Sum of tensor elements. */
  readonly parameters: number;
  /** As llama.cpp names types: `F16`, `Q5_1`. */
  readonly quantization: string;
}

/** ggml.h, enum ggml_ftype: the type of the large tensors, and bytes of a block of so many numbers. */
const FILE_TYPES: ReadonlyMap<number, readonly [name: string, type: number]> = new Map([
  [0, ['F32', 0]],
  [1, ['F16', 1]],
  [2, ['Q4_0', 2]],
  [3, ['Q4_1', 3]],
  [7, ['Q8_0', 8]],
  [8, ['Q5_0', 6]],
  [9, ['Q5_1', 7]],
]);

/** ggml.h, enum ggml_type → numbers in a block, and its bytes. */
const BLOCKS: ReadonlyMap<number, readonly [numbers: number, bytes: number]> = new Map([
  [0, [1, 4]],
  [1, [1, 2]],
  [2, [32, 18]],
  [3, [32, 20]],
  [6, [32, 22]],
  [7, [32, 24]],
  [8, [32, 34]],
]);

/** A head is at most a vocabulary of half a megabyte and 128 × 201 filters. */
const MAX_HEAD_BYTES = 16 * 1024 * 1024;
const FIRST_READ_BYTES = 1024 * 1024;
const TENSOR_HEAD_BYTES = 12 + 4 * 4 + 128;
const QUANTIZATION_VERSION = 1000;
/** Vocabularies of the published models: English, many languages, and one more language. */
const MULTILINGUAL_VOCAB = 51_865;
const SPECTRUM = 201;

export function invalidWhisperModel(message: string): ApiError {
  return new ApiError('invalid_whisper_model', `not a usable whisper model: ${message}`);
}

/** Whether the file begins as such a model does. */
export async function isWhisperModel(source: ByteSource): Promise<boolean> {
  if (source.size < 4) return false;
  const start = await source.read(0, 4);
  return start.length === 4 && viewOf(start).getUint32(0, true) === WHISPER_MAGIC;
}

/** Throws ApiError `invalid_whisper_model`, and the errors of the source. */
export async function inspectWhisper(source: ByteSource): Promise<WhisperInfo> {
  let bytes = await source.read(0, Math.min(source.size, FIRST_READ_BYTES));
  let head = readHead(bytes);
  if (head === undefined && source.size > bytes.length) {
    bytes = await source.read(0, Math.min(source.size, MAX_HEAD_BYTES));
    head = readHead(bytes);
  }
  if (head === undefined) throw invalidWhisperModel('its head does not end within the file');
  const { sizes, end } = head;
  const [quantization, large] = fileTypeOf(sizes.fileType);
  const parameters = await readTensors(source, end, { sizes, large });
  return { ...sizes, multilingual: sizes.vocab >= MULTILINGUAL_VOCAB, parameters, quantization };
}

interface Head {
  readonly sizes: WhisperSizes;
  /** Where the tensors begin. */
  readonly end: number;
}

/** Undefined when `bytes` end inside of it. */
function readHead(bytes: Uint8Array): Head | undefined {
  const view = viewOf(bytes);
  if (bytes.length < 56) return undefined;
  if (view.getUint32(0, true) !== WHISPER_MAGIC) throw invalidWhisperModel('it does not begin with "ggml"');
  const sizes = checkedSizes(Array.from({ length: 11 }, (_, i) => view.getInt32(4 + 4 * i, true)));
  const [mels, spectrum] = [view.getInt32(48, true), view.getInt32(52, true)];
  if (mels !== sizes.mels || spectrum !== SPECTRUM)
    throw invalidWhisperModel(`its filters are ${mels} × ${spectrum}, expected ${sizes.mels} × ${SPECTRUM}`);
  let at = 56 + 4 * mels * spectrum;
  if (at + 4 > bytes.length) return undefined;
  const words = view.getInt32(at, true);
  at += 4;
  if (words < 1 || words > sizes.vocab)
    throw invalidWhisperModel(`it has ${words} words, expected 1 to ${sizes.vocab}`);
  let space = false;
  for (let i = 0; i < words; i++) {
    if (at + 4 > bytes.length) return undefined;
    const length = view.getUint32(at, true);
    if (length > MAX_WORD_BYTES) throw invalidWhisperModel(`word ${i} has ${length} bytes`);
    space ||= length === 1 && bytes[at + 4] === 0x20;
    at += 4 + length;
  }
  // whisper.cpp looks it up without asking whether it is there.
  if (!space) throw invalidWhisperModel('its vocabulary has no space');
  return at > bytes.length ? undefined : { sizes, end: at };
}

const MAX_WORD_BYTES = 1024;

/** Bounds of what the graphs of whisper.cpp are made for; its own code checks none of them. */
function checkedSizes(numbers: readonly number[]): WhisperSizes {
  const [vocab, audioContext, audioState, audioHeads, audioLayers, textContext, ...rest] = numbers;
  const [textState, textHeads, textLayers, mels, fileType] = rest;
  const sizes = {
    vocab: within('n_vocab', vocab, 51_864, 51_866),
    audioContext: within('n_audio_ctx', audioContext, 1500, 1500),
    audioState: within('n_audio_state', audioState, 64, 2048),
    audioHeads: within('n_audio_head', audioHeads, 1, 64),
    audioLayers: within('n_audio_layer', audioLayers, 1, 64),
    textContext: within('n_text_ctx', textContext, 448, 448),
    textState: within('n_text_state', textState, 64, 2048),
    textHeads: within('n_text_head', textHeads, 1, 64),
    textLayers: within('n_text_layer', textLayers, 1, 64),
    mels: within('n_mels', mels, 80, 128),
    fileType: within('ftype', fileType, 0, 4 * QUANTIZATION_VERSION),
  };
  if (sizes.mels !== 80 && sizes.mels !== 128) throw invalidWhisperModel(`n_mels is ${sizes.mels}`);
  if (sizes.textState !== sizes.audioState)
    throw invalidWhisperModel('n_text_state and n_audio_state are not the same');
  for (const [name, heads] of [
    ['n_audio_head', sizes.audioHeads],
    ['n_text_head', sizes.textHeads],
  ] as const)
    if (sizes.audioState % (heads * 4) !== 0)
      throw invalidWhisperModel(`${name} is ${heads}, which does not divide a state of ${sizes.audioState}`);
  return sizes;
}

function within(name: string, value: number | undefined, least: number, most: number): number {
  if (value === undefined || value < least || value > most)
    throw invalidWhisperModel(`${name} is ${String(value)}, expected ${least} to ${most}`);
  return value;
}

function fileTypeOf(fileType: number): readonly [name: string, type: number] {
  const known = FILE_TYPES.get(fileType % QUANTIZATION_VERSION);
  if (known === undefined) throw invalidWhisperModel(`ftype is ${fileType}`);
  return known;
}

interface Expected {
  readonly sizes: WhisperSizes;
  /** ggml type of the large tensors. */
  readonly large: number;
}

/** Walks the tensors to the end of the file. Returns the number of their elements. */
async function readTensors(source: ByteSource, start: number, { sizes, large }: Expected): Promise<number> {
  const missing = expectedTensors(sizes);
  let parameters = 0;
  for (let at = start; at < source.size;) {
    const bytes = await source.read(at, Math.min(TENSOR_HEAD_BYTES, source.size - at));
    const { name, shape, type, length } = readTensorHead(bytes);
    const expected = missing.get(name);
    if (expected === undefined)
      throw invalidWhisperModel('it has a tensor twice, or one that no whisper model has');
    missing.delete(name);
    if (String(padded(shape)) !== String(padded(expected.shape)))
      throw invalidWhisperModel(`${name} has the shape ${shape.join(' × ')}`);
    if (type !== typeOf(expected.kind, large)) throw invalidWhisperModel(`${name} has the type ${type}`);
    const elements = shape.reduce((product, each) => product * each, 1);
    const [numbers, size] = BLOCKS.get(type) ?? [1, 4];
    if (shape[0]! % numbers !== 0) throw invalidWhisperModel(`${name} has rows of no whole blocks`);
    parameters += elements;
    at += length + (elements / numbers) * size;
    if (at > source.size) throw invalidWhisperModel(`the file ends inside ${name}`);
  }
  const [first] = missing.keys();
  if (first !== undefined) throw invalidWhisperModel(`${missing.size} tensors are missing, as ${first}`);
  return parameters;
}

interface TensorHead {
  readonly name: string;
  readonly shape: readonly number[];
  readonly type: number;
  /** Bytes of the head. */
  readonly length: number;
}

function readTensorHead(bytes: Uint8Array): TensorHead {
  if (bytes.length < 12) throw invalidWhisperModel('the file ends inside the head of a tensor');
  const view = viewOf(bytes);
  const [dimensions, nameBytes, type] = [0, 4, 8].map((at) => view.getInt32(at, true));
  if (dimensions === undefined || dimensions < 1 || dimensions > 3)
    throw invalidWhisperModel(`a tensor has ${String(dimensions)} dimensions`);
  if (nameBytes === undefined || nameBytes < 1 || nameBytes > 128)
    throw invalidWhisperModel(`the name of a tensor has ${String(nameBytes)} bytes`);
  const length = 12 + 4 * dimensions + nameBytes;
  if (length > bytes.length) throw invalidWhisperModel('the file ends inside the head of a tensor');
  const shape = Array.from({ length: dimensions }, (_, i) => view.getInt32(12 + 4 * i, true));
  const name = Buffer.from(bytes.buffer, bytes.byteOffset + length - nameBytes, nameBytes).toString('latin1');
  return { name, shape, type: type ?? -1, length };
}

function typeOf(kind: TensorKind, large: number): number {
  if (kind === 'numbers') return 0;
  // Convolutions are never quantised.
  return kind === 'convolution' && large !== 0 ? 1 : large;
}

function padded(shape: readonly number[]): readonly number[] {
  return [...shape, 1, 1, 1].slice(0, 3);
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
