// Signals of supervisors, terminals and users. Those that ask for the end drain the server; TERM, INT and
// QUIT a second time stop it at once. HUP never counts as a second one: systemd sends it with TERM, and a
// lost terminal sends it twice. All others that would end the process are ignored, since an end without drain
// loses answers and leaves the audit log unclosed. Left to the kernel: KILL and STOP, job control, real-time
// signals, and faults of the processor.

import { EventEmitter } from 'node:events';

const INSISTENT = ['SIGTERM', 'SIGINT', 'SIGQUIT'] as const;
const DRAINING = [...INSISTENT, 'SIGHUP', 'SIGPWR', 'SIGXCPU', 'SIGABRT'] as const;
/** USR1 opens Node's debugger, see main; XFSZ comes with EFBIG, which the writer handles. */
const IGNORED = [
  'SIGUSR1',
  'SIGUSR2',
  'SIGALRM',
  'SIGVTALRM',
  'SIGPROF',
  'SIGIO',
  'SIGSTKFLT',
  'SIGXFSZ',
  'SIGPIPE',
] as const;

export interface Stop {
  /**
   * Aborted by the first signal that asks for the end, or by `fail`; the reason is its name, or `failure`.
   */
  readonly asked: AbortSignal;
  /** Stops the server because a part it needs has failed. */
  readonly fail: () => void;
  readonly failed: () => boolean;
  /** Called when the end is asked for a second time. */
  onInsisted(listener: (signal: string) => void): void;
}

/** Takes over the signals of this process. */
export function takeSignals(): Stop {
  const asked = new AbortController();
  const emitter = new EventEmitter();
  let failed = false;
  let insistent = 0;
  for (const signal of DRAINING) {
    process.on(signal, () => {
      const again = INSISTENT.some((name) => name === signal) && ++insistent > 1;
      asked.abort(signal);
      if (again) emitter.emit('insisted', signal);
    });
  }
  for (const signal of IGNORED) process.on(signal, () => undefined);
  return {
    asked: asked.signal,
    fail() {
      failed = true;
      asked.abort('failure');
    },
    failed: () => failed,
    onInsisted: (listener) => void emitter.on('insisted', listener),
  };
}
