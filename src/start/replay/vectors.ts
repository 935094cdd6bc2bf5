// Vectors and scores of an answer beside those computed here: inputs are packed together, so the last bits
// may differ. What is compared is the recorded answer itself.

import { isRecord } from '../../base/shape.ts';

/** The largest difference of a number of a unit vector, or of a score, that rounding explains. */
export const VECTOR_TOLERANCE = 1e-3;

/** The largest difference; undefined: they are not answers of the same form, or name other inputs. */
export function vectorDistance(recorded: Uint8Array, here: Uint8Array): number | undefined {
  const [theirs, ours] = [numbersIn(recorded), numbersIn(here)];
  if (theirs === undefined || ours === undefined || theirs.length !== ours.length) return undefined;
  let most = 0;
  for (const [i, value] of theirs.entries()) {
    const difference = Math.abs(value - (ours[i] ?? Number.NaN));
    if (!(difference <= most)) most = difference;
  }
  return Number.isNaN(most) ? undefined : most;
}

/** The numbers of an answer in the order of its inputs. */
function numbersIn(body: Uint8Array): readonly number[] | undefined {
  const json = jsonOf(body);
  if (!isRecord(json)) return undefined;
  const { data, results } = json;
  if (Array.isArray(data)) return listed(data, (entry) => vectorOf(entry['embedding']));
  if (!Array.isArray(results)) return undefined;
  const byInput = (results as readonly unknown[]).toSorted((a, b) => indexOf(a) - indexOf(b));
  return listed(byInput, (entry) => {
    const score = entry['relevance_score'];
    return typeof score === 'number' ? [score] : undefined;
  });
}

function listed(
  entries: readonly unknown[],
  numbersOf: (entry: Readonly<Record<string, unknown>>) => readonly number[] | undefined,
): readonly number[] | undefined {
  const all: number[] = [];
  for (const entry of entries) {
    const found = isRecord(entry) ? numbersOf(entry) : undefined;
    if (found === undefined) return undefined;
    all.push(indexOf(entry), ...found);
  }
  return all;
}

function indexOf(entry: unknown): number {
  const index = isRecord(entry) ? entry['index'] : undefined;
  return typeof index === 'number' ? index : Number.NaN;
}

function vectorOf(value: unknown): readonly number[] | undefined {
  if (typeof value === 'string') {
    const bytes = Buffer.from(value, 'base64');
    return Array.from({ length: Math.floor(bytes.length / 4) }, (_, i) => bytes.readFloatLE(4 * i));
  }
  const isList = Array.isArray(value) && value.every((each): each is number => typeof each === 'number');
  return isList ? value : undefined;
}

function jsonOf(body: Uint8Array): unknown {
  try {
    return JSON.parse(Buffer.from(body).toString());
  } catch {
    return undefined;
  }
}
