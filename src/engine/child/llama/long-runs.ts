// Long runs without white space (base64, a line of dashes, a page of Chinese) in pieces. libllama splits
// text with regular expressions before it tokenizes (`tokenizer.ggml.pre`), and for most models the
// standard library's matcher recurses once per character of a run: about ten thousand of them overflow the
// stack and end the process.

const LONGEST = 8000;
/** Characters before the limit in which a place is searched where the expressions would cut as well. */
const BACK = 2000;

/**
 * Cuts `text` so that no piece has a run of over 8 000 characters of white space, or of other
 * text. Joined they are `text`.
 */
export function cutRuns(text: string): readonly string[] {
  if (text.length <= LONGEST) return [text];
  const pieces: string[] = [];
  let start = 0;
  let run = 0;
  let blank = false;
  for (let i = 0; i < text.length; i += 1) {
    const space = isBlank(text.charCodeAt(i));
    if (space === blank) run += 1;
    else {
      blank = space;
      run = 1;
    }
    if (run <= LONGEST) continue;
    const cut = blank ? i : boundary(text, i);
    pieces.push(text.slice(start, cut));
    start = cut;
    run = i - cut + 1;
  }
  pieces.push(text.slice(start));
  return pieces;
}

/** ASCII's white space only: treating other white space as text only causes more cuts. */
function isBlank(code: number): boolean {
  return code === 32 || (code >= 9 && code <= 13);
}

/** The last change between letters and others before `at`, else `at`; never inside a surrogate pair. */
function boundary(text: string, at: number): number {
  for (let i = at; i > at - BACK; i -= 1)
    if (isLetter(text, i - 1) !== isLetter(text, i) && !inPair(text, i)) return i;
  return inPair(text, at) ? at - 1 : at;
}

function isLetter(text: string, index: number): boolean {
  return /\p{L}/u.test(text.charAt(index));
}

function inPair(text: string, index: number): boolean {
  return (text.charCodeAt(index) & 0xfc00) === 0xdc00 && (text.charCodeAt(index - 1) & 0xfc00) === 0xd800;
}
