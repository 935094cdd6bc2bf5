// Dimensions of a WebP file (RFC 9649 §2, §3.4; RFC 6386 §9.1): of the only frame, or of the canvas of an
// extended file, whose first frame must fit it: what the decoder will allocate is bounded before it runs.
// Reads at most a bounded number of chunks. Whether frames decode is the decoder's to say.

interface Size {
  readonly width: number;
  readonly height: number;
}

interface Chunk {
  readonly type: string;
  /** Of its data. */
  readonly start: number;
  readonly end: number;
}

/** Before the first frame stand a canvas, a colour profile, an animation's facts and alpha. */
const MAX_CHUNKS = 64;
const FRAME_HEADER = 16;

/** Undefined: not a WebP file, or one whose parts contradict each other or are cut off. */
export function webpSize(file: Uint8Array): Size | undefined {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  if (file.length < 12 || text(view, 0) !== 'RIFF' || text(view, 8) !== 'WEBP') return undefined;
  const end = 8 + view.getUint32(4, true);
  const first = end > file.length ? undefined : chunkAt(view, 12, end);
  if (first === undefined) return undefined;
  return first.type === 'VP8X' ? canvas(view, first, end) : frame(view, first);
}

function canvas(view: DataView, { start, end: next }: Chunk, end: number): Size | undefined {
  if (next - start < 10) return undefined;
  const size = { width: uint24(view, start + 4) + 1, height: uint24(view, start + 7) + 1 };
  const image = firstImage(view, padded(start, next), end);
  if (image === undefined) return undefined;
  if (image.type !== 'ANMF') return same(frame(view, image), size) ? size : undefined;
  if (image.end - image.start < FRAME_HEADER) return undefined;
  const [x, y, width, height] = [0, 3, 6, 9].map((at) => uint24(view, image.start + at)) as Four;
  const placed = { width: width + 1, height: height + 1 };
  if (2 * x + placed.width > size.width || 2 * y + placed.height > size.height) return undefined;
  const inside = firstImage(view, image.start + FRAME_HEADER, image.end);
  return inside !== undefined && same(frame(view, inside), placed) ? size : undefined;
}

type Four = [number, number, number, number];

function firstImage(view: DataView, from: number, end: number): Chunk | undefined {
  let at = from;
  for (let count = 0; count < MAX_CHUNKS; count += 1) {
    const chunk = chunkAt(view, at, end);
    if (chunk === undefined || IMAGES.has(chunk.type)) return chunk;
    at = padded(chunk.start, chunk.end);
  }
  return undefined;
}

const IMAGES = new Set(['VP8 ', 'VP8L', 'ANMF']);

function chunkAt(view: DataView, at: number, end: number): Chunk | undefined {
  if (at + 8 > end) return undefined;
  const start = at + 8;
  const chunk = { type: text(view, at), start, end: start + view.getUint32(at + 4, true) };
  return chunk.end > end ? undefined : chunk;
}

/** Where the chunk behind begins: at an even distance. */
function padded(start: number, end: number): number {
  return end + ((end - start) & 1);
}

function frame(view: DataView, { type, start, end }: Chunk): Size | undefined {
  if (type === 'VP8 ') {
    // A key frame, then its start code.
    if (end - start < 10 || (view.getUint8(start) & 1) !== 0) return undefined;
    if (view.getUint16(start + 3) !== 0x9d01 || view.getUint8(start + 5) !== 0x2a) return undefined;
    // The upper two bits are a wish for scaling, which decoders leave to others.
    const [width, height] = [6, 8].map((at) => view.getUint16(start + at, true) & 0x3fff) as [number, number];
    return { width, height };
  }
  if (type !== 'VP8L' || end - start < 5 || view.getUint8(start) !== 0x2f) return undefined;
  const bits = view.getUint32(start + 1, true);
  // The last three bits are the version.
  if (bits >>> 29 !== 0) return undefined;
  return { width: (bits & 0x3fff) + 1, height: ((bits >>> 14) & 0x3fff) + 1 };
}

function same(size: Size | undefined, { width, height }: Size): boolean {
  return size?.width === width && size.height === height;
}

function uint24(view: DataView, at: number): number {
  return view.getUint16(at, true) + (view.getUint8(at + 2) << 16);
}

function text(view: DataView, at: number): string {
  return String.fromCharCode(...[0, 1, 2, 3].map((i) => view.getUint8(at + i)));
}
