// Floats of 16 and 32 bits, converted as numpy and ggml do: round to nearest, ties to even. Only finite
// values: what holds an infinity or NaN, or would become one, is told by its index.

export type FloatType = 'F32' | 'F16' | 'BF16';

export const FLOAT_BYTES: Readonly<Record<FloatType, number>> = { F32: 4, F16: 2, BF16: 2 };

const SINGLE = new Float32Array(1);
const SINGLE_BITS = new Uint32Array(SINGLE.buffer);

/** Bits of a half from those of a single. */
export function halfOfSingle(bits: number): number {
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  if (magnitude >= 0x47800000) return sign | (magnitude > 0x7f800000 ? 0x7e00 : 0x7c00);
  if (magnitude >= 0x38800000) {
    const half = (magnitude - 0x38000000) >>> 13;
    const rest = magnitude & 0x1fff;
    return sign | (half + Number(rest > 0x1000 || (rest === 0x1000 && (half & 1) === 1)));
  }
  if (magnitude < 0x33000000) return sign;
  // A subnormal half: the mantissa, shifted by as many binary places as the exponent is too small.
  const shift = 126 - (magnitude >>> 23);
  const mantissa = (magnitude & 0x7fffff) | 0x800000;
  const half = mantissa >>> shift;
  const rest = mantissa & ((1 << shift) - 1);
  const middle = 1 << (shift - 1);
  return sign | (half + Number(rest > middle || (rest === middle && (half & 1) === 1)));
}

/** Bits of a single from those of a half. */
export function singleOfHalf(half: number): number {
  const sign = (half & 0x8000) << 16;
  const exponent = (half >>> 10) & 0x1f;
  const mantissa = half & 0x3ff;
  if (exponent === 0x1f) return (sign | 0x7f800000 | (mantissa << 13)) >>> 0;
  if (exponent > 0) return (sign | ((exponent + 112) << 23) | (mantissa << 13)) >>> 0;
  SINGLE[0] = mantissa * 2 ** -24;
  return (sign | SINGLE_BITS[0]!) >>> 0;
}

/**
 * Fills `to` from `from`, both little-endian and aligned; the index of the first value
 * that is not finite, or -1.
 */
export type Conversion = (from: Uint8Array, to: Uint8Array) => number;

/** The bits that are all ones in an infinity or NaN. */
const EXPONENT: Readonly<Record<FloatType, number>> = { F32: 0x7f800000, F16: 0x7c00, BF16: 0x7f80 };

/** `shift` is added in the type of the source, as PyTorch adds a number to a tensor. */
export function conversion(from: FloatType, to: FloatType, shift: 0 | 1 = 0): Conversion {
  if (from === 'F32') return shift === 0 ? FROM_SINGLE[to] : shiftedSingle(to);
  if (from === to && shift === 0) return copyHalf(EXPONENT[to]);
  return byTable(from, to, shift);
}

function bitsOf(value: number): number {
  SINGLE[0] = value;
  return SINGLE_BITS[0]!;
}

function valueOf(bits: number): number {
  SINGLE_BITS[0] = bits;
  return SINGLE[0]!;
}

/** Rounded as ggml_compute_fp32_to_bf16 does. */
function brainOfSingle(bits: number): number {
  return (((bits >>> 0) + 0x7fff + ((bits >>> 16) & 1)) / 65536) & 0xffff;
}

function stored(bits: number, to: FloatType): number {
  if (to === 'F32') return bits >>> 0;
  return to === 'F16' ? halfOfSingle(bits) : brainOfSingle(bits);
}

/** Of 16 bits there are 65 536 values: each is converted once, and then looked up. */
function byTable(from: 'F16' | 'BF16', to: FloatType, shift: 0 | 1): Conversion {
  const exponent = EXPONENT[to];
  const table = to === 'F32' ? new Uint32Array(1 << 16) : new Uint16Array(1 << 16);
  for (let word = 0; word < table.length; word++) {
    let bits = from === 'F16' ? singleOfHalf(word) : (word << 16) >>> 0;
    // The official converter makes singles of BF16 before it adds, and adds to halves as halves.
    if (shift !== 0) bits = bitsOf(valueOf(bits) + shift);
    if (shift !== 0 && from === 'F16') bits = singleOfHalf(halfOfSingle(bits));
    table[word] = stored(bits, to);
  }
  return (source, target) => {
    const words = new Uint16Array(source.buffer, source.byteOffset, source.length >>> 1);
    const out = outFor(to, target, words.length);
    for (let i = 0; i < words.length; i++) {
      const bits = table[words[i]!]!;
      if ((bits & exponent) === exponent) return i;
      out[i] = bits;
    }
    return -1;
  };
}

function copyHalf(exponent: number): Conversion {
  return (source, target) => {
    const words = new Uint16Array(source.buffer, source.byteOffset, source.length >>> 1);
    for (let i = 0; i < words.length; i++) if ((words[i]! & exponent) === exponent) return i;
    target.set(source);
    return -1;
  };
}

const FROM_SINGLE: Readonly<Record<FloatType, Conversion>> = {
  F32: (source, target) => {
    const words = new Uint32Array(source.buffer, source.byteOffset, source.length >>> 2);
    for (let i = 0; i < words.length; i++) if ((words[i]! & EXPONENT.F32) === EXPONENT.F32) return i;
    target.set(source);
    return -1;
  },
  F16: (source, target) => {
    const words = new Uint32Array(source.buffer, source.byteOffset, source.length >>> 2);
    const out = new Uint16Array(target.buffer, target.byteOffset, words.length);
    for (let i = 0; i < words.length; i++) {
      const half = halfOfSingle(words[i]!);
      if ((half & EXPONENT.F16) === EXPONENT.F16) return i;
      out[i] = half;
    }
    return -1;
  },
  BF16: (source, target) => {
    const words = new Uint32Array(source.buffer, source.byteOffset, source.length >>> 2);
    const out = new Uint16Array(target.buffer, target.byteOffset, words.length);
    for (let i = 0; i < words.length; i++) {
      const bits = words[i]!;
      const brain = brainOfSingle(bits);
      if ((brain & EXPONENT.BF16) === EXPONENT.BF16 || (bits & EXPONENT.F32) === EXPONENT.F32) return i;
      out[i] = brain;
    }
    return -1;
  },
};

/** Norms only, which are small. */
function shiftedSingle(to: FloatType): Conversion {
  return (source, target) => {
    const values = new Float32Array(source.buffer, source.byteOffset, source.length >>> 2);
    const out = outFor(to, target, values.length);
    for (let i = 0; i < values.length; i++) {
      const bits = stored(bitsOf(values[i]! + 1), to);
      if ((bits & EXPONENT[to]) === EXPONENT[to]) return i;
      out[i] = bits;
    }
    return -1;
  };
}

function outFor(to: FloatType, target: Uint8Array, length: number): Uint32Array | Uint16Array {
  return to === 'F32'
    ? new Uint32Array(target.buffer, target.byteOffset, length)
    : new Uint16Array(target.buffer, target.byteOffset, length);
}
