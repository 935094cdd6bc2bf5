// Deterministic numbers for the demo models. Only + - * / and integer operations, which IEEE 754 and
// ECMAScript fix to the last bit; Math.exp, Math.cos and friends may differ between engines and are not used.
// So every machine builds the same bytes.

const TWO_PI = 6.283185307179586;

/** By Taylor series after reduction to (−π, π]. Error below 1e-12 up to 1e4 radians. */
export function cosSin(radians: number): readonly [cos: number, sin: number] {
  const turns = Math.round(radians / TWO_PI);
  const r = radians - turns * TWO_PI;
  let cos = 1;
  let sin = r;
  let term = r;
  for (let n = 2; n < 40; n += 2) {
    const even = (-term * r) / n;
    cos += even;
    term = (even * r) / (n + 1);
    sin += term;
  }
  return [cos, sin];
}

/** Newton's square root: Math.sqrt is exact in practice, but the language does not promise it. */
export function squareRoot(square: number): number {
  let guess = square > 1 ? square : 1;
  for (let i = 0; i < 80; i++) guess = 0.5 * (guess + square / guess);
  return guess;
}

/**
 * RoPE frequencies for base 10000 and 64 dimensions: θ_j = 10000^(−j/32), j = 0…31. 10000^(−1/32) = ⁸√0.1.
 */
export function ropeFrequencies(): readonly number[] {
  const ratio = squareRoot(squareRoot(squareRoot(0.1)));
  const frequencies = [1];
  for (let j = 1; j < 32; j++) frequencies.push(frequencies[j - 1]! * ratio);
  return frequencies;
}

/**
 * A seeded generator (mulberry32). `next` is a 32-bit integer, `normal` roughly N(0, 1) as a
 * sum of uniform integers.
 */
export interface Random {
  next(): number;
  normal(): number;
}

export function pseudoRandom(seed: number): Random {
  let state = seed >>> 0;
  const next = (): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (t ^ (t >>> 14)) >>> 0;
  };
  const normal = (): number => {
    let sum = 0;
    for (let i = 0; i < 6; i++) sum += next() >>> 16;
    // Six uniform 16-bit integers: mean 6·32767.5, standard deviation 65536/√2.
    return (sum - 196605) / 46341;
  };
  return { next, normal };
}

/**
 * Gold codes of length 63 as ±1 vectors: `goldCode(k)` for k < 4095. Any two differ so much that
 * their dot product is −1, −17 or 15 of 63 (R. Gold 1967; preferred pair x⁶+x+1 and x⁶+x⁵+x²+x+1,
 * all cyclic shifts taken).
 */
export function goldCode(index: number): readonly number[] {
  const a = shiftRegister([6, 1]);
  const b = shiftRegister([6, 5, 2, 1]);
  const family = Math.floor(index / 63);
  const shift = index % 63;
  return Array.from({ length: 63 }, (_, i) => {
    const n = (i + shift) % 63;
    let bit: number;
    if (family === 63) bit = a[n]!;
    else if (family === 64) bit = b[n]!;
    else bit = a[n]! ^ b[(n + family) % 63]!;
    return bit === 1 ? -1 : 1;
  });
}

function shiftRegister(taps: readonly number[]): readonly number[] {
  const bits = [1, 0, 0, 0, 0, 0];
  for (let i = 6; i < 63; i++)
    bits.push(taps.reduce((sum, tap) => sum ^ (tap === 6 ? bits[i - 6]! : bits[i - tap]!), 0));
  return bits;
}

/** IEEE half-precision bits of `value`, rounded to nearest even. Throws on what a half cannot hold. */
export function halfBits(value: number): number {
  return halfFromSingle(new Uint32Array(Float32Array.of(value).buffer)[0]!);
}

/** The same from the bits of a single-precision number. */
export function halfFromSingle(word: number): number {
  const sign = (word >>> 16) & 0x8000;
  if (word << 1 === 0) return sign;
  const exponent = ((word >>> 23) & 0xff) - 112;
  const mantissa = word & 0x7fffff;
  if (exponent >= 31) throw new RangeError('a number does not fit a half');
  if (exponent <= 0) return exponent < -10 ? sign : sign | roundShift(mantissa | 0x800000, 14 - exponent);
  return sign | roundShift((exponent << 23) | mantissa, 13);
}

function roundShift(value: number, shift: number): number {
  const half = 1 << (shift - 1);
  const low = value & ((1 << shift) - 1);
  const up = low > half || (low === half && ((value >>> shift) & 1) === 1) ? 1 : 0;
  return (value >>> shift) + up;
}

/** The number that half-precision bits stand for. */
export function halfValue(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >>> 10) & 31;
  const mantissa = bits & 1023;
  if (exponent === 0) return (sign * mantissa) / 16777216;
  let scale = (1024 + mantissa) / 1024;
  for (let e = 15; e < exponent; e++) scale *= 2;
  for (let e = exponent; e < 15; e++) scale /= 2;
  return sign * scale;
}
