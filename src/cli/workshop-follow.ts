// A job or publication of a workshop from its id to its end: its progress on standard error, and a signal
// that cancels it there. The first SIGINT or SIGTERM cancels, and the command ends once the work has; a
// second one leaves at once. A lost terminal (SIGHUP) or a kill leaves the work running.

import { CommandError } from './arguments.ts';
import { shownText, type LocalClient } from './local-client.ts';

export type WorkshopAnswer = Readonly<Record<string, unknown>>;

/** Of a job, or of a publication by the beginning of its id. Below it is `/cancel`. */
export function pathOf(id: string): string {
  return id.startsWith('publish-') ? `/api/finetune/publish/${id}` : `/api/jobs/${id}`;
}

/** A signal to this command ended it; its exit code is that of a shell. */
export class Cancelled extends CommandError {
  readonly exitCode: number;

  constructor(message: string, exitCode: number) {
    super(message);
    this.exitCode = exitCode;
  }
}

const EXIT_CODES = { SIGINT: 130, SIGTERM: 143 } as const;
type Asked = keyof typeof EXIT_CODES;

export function isRunning(answer: WorkshopAnswer): boolean {
  return answer['status'] === 'queued' || answer['status'] === 'running';
}

/** Resolves with the last answer, of work that is done; throws CommandError, and Cancelled after a signal. */
export async function followed(client: LocalClient, id: string): Promise<WorkshopAnswer> {
  const at = pathOf(id);
  const show = progressOn(process.stderr.isTTY, id);
  let asked: Asked | undefined;
  const onSignal = (signal: NodeJS.Signals): void => {
    const again = asked !== undefined;
    asked ??= signal === 'SIGTERM' ? 'SIGTERM' : 'SIGINT';
    if (again) {
      process.stderr.write(`\nassay: left; it may go on: ${howToReturn(id)}\n`);
      process.exit(EXIT_CODES[asked]);
    }
    process.stderr.write(`\nassay: cancelling ${id}; once more leaves it\n`);
    // The request that waits for the end tells how it ended.
    client.call('POST', `${at}/cancel`).catch((error: unknown) => {
      process.stderr.write(`assay: ${error instanceof Error ? error.message : 'not cancelled'}\n`);
    });
  };
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, onSignal);
  try {
    const last = await toItsEnd(client, at, show);
    if (last['status'] === 'done') return last;
    const { error } = last;
    const how = `${id} ${shownText(last, 'status')}`;
    if (asked !== undefined && last['status'] === 'cancelled') throw new Cancelled(how, EXIT_CODES[asked]);
    throw new CommandError(`${how}: ${shownText(error, 'message')} (${shownText(error, 'code')})`);
  } catch (error) {
    if (!(error instanceof CommandError) || error.message.startsWith(id)) throw error;
    throw new CommandError(`${error.message}; it may go on: ${howToReturn(id)}`);
  } finally {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.off(signal, onSignal);
  }
}

function howToReturn(id: string): string {
  return `assay workshop jobs wait ${id}`;
}

/** Each request waits in the workshop for the end, at most a second. */
async function toItsEnd(
  client: LocalClient,
  at: string,
  show: (answer: WorkshopAnswer) => void,
): Promise<WorkshopAnswer> {
  for (;;) {
    const answer = (await client.call('GET', `${at}?wait=1`)) as WorkshopAnswer;
    show(answer);
    if (!isRunning(answer)) return answer;
  }
}

const WIDTH = 20;

/**
 * On a terminal one line that is rewritten; elsewhere a line for each stage, and for each tenth that is done.
 */
export function progressOn(
  terminal: boolean,
  id: string,
  write = (text: string): unknown => process.stderr.write(text),
): (answer: WorkshopAnswer) => void {
  let last = '';
  return (answer) => {
    const fraction = Math.min(1, Math.max(0, Number(answer['progress']) || 0));
    const percent = Math.floor(fraction * 100);
    const over = !isRunning(answer);
    const stage = (over ? '' : shownText(answer, 'stage')) || shownText(answer, 'status');
    if (terminal) {
      const filled = Math.floor(fraction * WIDTH);
      const bar = `[${'#'.repeat(filled)}${'-'.repeat(WIDTH - filled)}]`;
      write(`\r\u001b[K${bar} ${percent} % ${stage}${over ? '\n' : ''}`);
      return;
    }
    const step = `${stage} ${Math.floor(percent / 10)}`;
    if (step !== last) write(`${id} ${percent} % ${stage}\n`);
    last = step;
  };
}
