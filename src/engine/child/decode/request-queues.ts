// The requests of a scheduler, and the queues of those that have a choice to start: one queue per scope (one
// per API key), served in turn, so that many requests of one scope never hold up another's. Within a scope
// the adapters of the model take turns, and within an adapter the oldest request is first.

import { AdapterTurns } from './adapter-turns.ts';
import type { Request } from './batch.ts';

export class RequestQueues {
  readonly #byId = new Map<number, Request>();
  /** The map keeps the order of turns: a served scope goes to its end. */
  readonly #queues = new Map<string, Queue>();

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
    for (const { requests } of this.#queues.values()) count += requests.length;
    return count;
  }

  /** Requests in the queues that are no background work. */
  get foregroundLength(): number {
    let count = 0;
    for (const { requests } of this.#queues.values()) count += requests.filter(isForeground).length;
    return count;
  }

  add(request: Request): void {
    this.#byId.set(request.job.id, request);
    this.#queue(request).requests.push(request);
  }

  /** Puts a request that lost a slot at the head of its scope's queue, unless it waits already. */
  putBack(request: Request): void {
    const { requests } = this.#queue(request);
    if (!requests.includes(request)) requests.unshift(request);
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
    for (const { requests } of this.#queues.values()) count += requests.filter(wantsSlot).length;
    return count;
  }

  /** Those of them that are no background work. */
  wantingInForeground(): number {
    let count = 0;
    for (const { requests } of this.#queues.values())
      count += requests.filter((request) => isForeground(request) && wantsSlot(request)).length;
    return count;
  }

  someWant(): boolean {
    for (const { requests } of this.#queues.values()) if (requests.some(wantsSlot)) return true;
    return false;
  }

  /**
   * Offers slots to the scopes in turn, as long as `free` says that there are any and `admit` seats a request.
   * Background work gets one only while no other request wants any.
   */
  serve(free: () => boolean, admit: (request: Request) => boolean): void {
    for (let idle = 0; free() && idle < this.#queues.size;) {
      const next = this.#queues.entries().next();
      if (next.done === true) return;
      const [scope, queue] = next.value;
      this.#queues.delete(scope);
      this.#queues.set(scope, queue);
      const request = nextOf(queue, this.wantingInForeground() > 0);
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

  #queue(request: Request): Queue {
    const found = this.#queues.get(request.job.scope) ?? { requests: [], turns: new AdapterTurns() };
    this.#queues.set(request.job.scope, found);
    return found;
  }

  #takeOut(request: Request): void {
    const queue = this.#queues.get(request.job.scope);
    if (queue === undefined) return;
    const at = queue.requests.indexOf(request);
    if (at >= 0) queue.requests.splice(at, 1);
    if (queue.requests.length === 0) this.#queues.delete(request.job.scope);
  }
}

/** Of one scope. */
interface Queue {
  /** Oldest first. */
  readonly requests: Request[];
  readonly turns: AdapterTurns;
}

function nextOf({ requests, turns }: Queue, foreground: boolean): Request | undefined {
  const wanting = requests.filter((request) => wantsSlot(request) && (!foreground || isForeground(request)));
  const adapter = turns.next(wanting.map(({ job }) => job.adapter ?? 0));
  return wanting.find(({ job }) => (job.adapter ?? 0) === adapter);
}

function isForeground({ job }: Request): boolean {
  return job.background !== true;
}

/** A request waits while it has choices to start; later choices wait for the first one's prompt. */
function wantsSlot(request: Request): boolean {
  if (request.paused || request.cancelled) return false;
  if (request.preempted.length > 0) return true;
  return request.nextChoice < request.job.n && (request.nextChoice === 0 || request.promptLogits !== null);
}
