// The language between the server and a confined process that works on files, one JSON text a line: one
// order, then progress, then one answer. The files travel as descriptors of the spawn, never as paths: 3 is
// the socket, 4 the output, 5 and on the sources.

export const TASK_SOCKET_FD = 3;
export const TASK_OUTPUT_FD = 4;
export const TASK_SOURCE_FD = 5;
/** Of the quantiser: the importance matrix it is given, or the text it collects one over. */
export const TASK_MATRIX_FD = 6;

/** Beside what the task itself wants to know. */
export interface TaskOrder {
  readonly parentPid: number;
}

export type TaskDone = { readonly kind: 'done' } & Readonly<Record<string, unknown>>;

export type TaskAnswer =
  | { readonly kind: 'progress'; readonly done: number; readonly total: number }
  | TaskDone
  | { readonly kind: 'refused'; readonly code: string; readonly message: string }
  | { readonly kind: 'failed'; readonly message: string };

const MAX_LINE_BYTES = 4 * 1024 * 1024;

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
    if (held.length > MAX_LINE_BYTES) throw new Error('a line is too long');
  };
}
