// Looks at a vocabulary while it is read: whether two tokens are equal (llama.cpp asserts that none are) and for how many of
// the 256 bytes there is a token. A hash table over the bytes themselves, because half a million strings would hold up the
// event loop for longer than a reader of headers may.

export interface TokenSet {
  /** Tokens in order, as subarrays of one buffer that stays as it is. */
  add(bytes: Uint8Array, index: number): void;
  /** Index of the first token that equals an earlier one. */
  firstRepeated(): number | undefined;
  /** Bytes with a token `<0xNN>` or the byte itself, 0…256. */
  byteTokens(): number;
}

/** For at most `count` tokens. */
export function createTokenSet(count: number): TokenSet {
  let slots = 64;
  while (slots < 2 * count) slots *= 2;
  const table = new Int32Array(slots).fill(-1);
  const hashes = new Int32Array(count);
  const tokens: Uint8Array[] = [];
  const bytesSeen = new Uint8Array(256);
  let repeated: number | undefined;
  return {
    add: (given, index) => {
      // llama.cpp reads tokens as C strings and names empty ones itself.
      const nul = given.indexOf(0);
      const bytes =
        nul === 0 || given.length === 0 ? new TextEncoder().encode(`[EMPTY_${index}]`) : nul < 0 ? given : given.subarray(0, nul);
      noteByte(bytesSeen, bytes);
      const hash = hashOf(bytes);
      hashes[tokens.length] = hash;
      let slot = hash & (slots - 1);
      for (; table[slot] !== -1; slot = (slot + 1) & (slots - 1)) {
        const other = table[slot]!;
        if (hashes[other] === hash && equal(tokens[other]!, bytes)) repeated ??= index;
      }
      table[slot] = tokens.push(bytes) - 1;
    },
    firstRepeated: () => repeated,
    byteTokens: () => bytesSeen.reduce((sum, seen) => sum + seen, 0),
  };
}

/** FNV-1a, with its high bits folded into the low ones that choose the slot. */
function hashOf(bytes: Uint8Array): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < bytes.length; i++) hash = Math.imul(hash ^ bytes[i]!, 0x01000193);
  return hash ^ (hash >>> 15);
}

function equal(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

function noteByte(seen: Uint8Array, token: Uint8Array): void {
  if (token.length === 1) seen[token[0]!] = 1;
  if (token.length !== 6 || token[0] !== 0x3c) return;
  const named = /^<0x([0-9A-F]{2})>$/.exec(String.fromCharCode(...token))?.[1];
  if (named !== undefined) seen[parseInt(named, 16)] = 1;
}
