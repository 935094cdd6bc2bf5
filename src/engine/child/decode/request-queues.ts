// The requests of a scheduler, and the queues of those that have a choice to start: one queue per scope (one
// per API key), served in turn, so that many requests of one scope never hold up another's.

import type { Request } from './batch.ts';

export class RequestQueues {
  readonly #byId = new Map<number, Request>();
  /** The map keeps the order of turns: a served scope goes to its end. */
  readonly #queues = new Map<string, Request[]>();

  get(id: number): Request | undefined {
    return this.#byId.get(id);
  }

  /** Requests that are not finished, waiting or not. */
  all(): IterableIterator<Request> {
    return this.#byId.values();
  }

  /** Requests in the queues. */
  get length(): number {
    let count = 0;
    for (const queue of this.#queues.values()) count += queue.length;
    return count;
  }

  add(request: Request): void {
    this.#byId.set(request.job.id, request);
    this.#queue(request).push(request);
  }

  /** Puts a request that lost a slot at the head of its scope's queue, unless it waits already. */
  putBack(request: Request): void {
    const queue = this.#queue(request);
    if (!queue.includes(request)) queue.unshift(request);
  }

  /** Forgets a request that is finished or cancelled. */
  remove(request: Request): void {
    this.#byId.delete(request.job.id);
    for (const waiting of request.preempted) waiting.choice.free();
    request.preempted.length = 0;
    this.#takeOut(request);
  }

  /** Requests that wait for a slot. */
  wanting(): number {
    let count = 0;
    for (const queue of this.#queues.values()) count += queue.filter(wantsSlot).length;
    return count;
  }

  someWant(): boolean {
    for (const queue of this.#queues.values()) if (queue.some(wantsSlot)) return true;
    return false;
  }

  /**
   * Offers slots to the scopes in turn, as long as
   * `free` says that there are any and `admit` seats a request.
   */
  serve(free: () => boolean, admit: (request: Request) => boolean): void {
    for (let idle = 0; free() && idle < this.#queues.size;) {
      const next = this.#queues.entries().next();
      if (next.done === true) return;
      const [scope, queue] = next.value;
      this.#queues.delete(scope);
      this.#queues.set(scope, queue);
      const request = queue.find(wantsSlot);
      if (request === undefined || !admit(request)) {
        idle += 1;
        continue;
      }
      idle = 0;
      if (request.preempted.length === 0 && request.nextChoice === request.job.n) {
        request.promptLogits = null;
        this.#takeOut(request);
      }
    }
  }

  #queue(request: Request): Request[] {
    const found = this.#queues.get(request.job.scope) ?? [];
    this.#queues.set(request.job.scope, found);
    return found;
  }

  #takeOut(request: Request): void {
    const queue = this.#queues.get(request.job.scope);
    if (queue === undefined) return;
    const at = queue.indexOf(request);
    if (at >= 0) queue.splice(at, 1);
    if (queue.length === 0) this.#queues.delete(request.job.scope);
  }
}

/** A request waits while it has choices to start; later choices wait for the first one's prompt. */
function wantsSlot(request: Request): boolean {
  if (request.paused || request.cancelled) return false;
  if (request.preempted.length > 0) return true;
  return request.nextChoice < request.job.n && (request.nextChoice === 0 || request.promptLogits !== null);
}
