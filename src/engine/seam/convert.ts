// The language between the server and the process that converts a model folder, one JSON text a line: one order, then progress, then
// one answer. The files travel as descriptors of the spawn, never as paths.

/** Descriptors of the child, in the order the server lists them when it starts it. */
export const CONVERT_SOCKET_FD = 3;
export const CONVERT_OUTPUT_FD = 4;
/** Of the first source; the others follow. */
export const CONVERT_SOURCE_FD = 5;

export type ConvertType = 'auto' | 'f32' | 'f16' | 'bf16';

export interface ConvertOrder {
  readonly parentPid: number;
  readonly type: ConvertType;
  /** By path below the folder, in the order of their descriptors. */
  readonly sources: readonly { readonly name: string; readonly size: number }[];
  /** Names of files that are not opened, so that a refusal can name one. */
  readonly unopened: readonly string[];
}

export interface ConvertedModel {
  readonly architecture: string;
  readonly type: string;
  readonly tensors: number;
  readonly bytes: number;
}

export type ConvertAnswer =
  | { readonly kind: 'progress'; readonly written: number; readonly total: number }
  | ({ readonly kind: 'done' } & ConvertedModel)
  | { readonly kind: 'refused'; readonly code: string; readonly message: string }
  | { readonly kind: 'failed'; readonly message: string };

export const MAX_CONVERT_LINE = 1024 * 1024;

/** Feeds chunks of the stream; calls back per line. Throws at a line that is too long or no JSON. */
export function lineReader(onValue: (value: unknown) => void): (chunk: Buffer) => void {
  let held = Buffer.alloc(0);
  return (chunk) => {
    held = Buffer.concat([held, chunk]);
    for (let end = held.indexOf(0x0a); end >= 0; end = held.indexOf(0x0a)) {
      const line = held.toString('utf8', 0, end);
      held = held.subarray(end + 1);
      onValue(JSON.parse(line));
    }
    if (held.length > MAX_CONVERT_LINE) throw new Error('a line of the converter is too long');
  };
}
