// Waiting jobs of one worker, taken in turn between scopes (one per API key) and within a scope in the order
// they came. The scope whose job was taken last goes behind all others, so that a caller waits for at most
// one job of each other caller, however many those have.

interface Job {
  readonly id: number;
  readonly scope: string;
}

export class CallerTurns<T extends Job> {
  /** The scopes in the order of their turns. */
  readonly #waiting = new Map<string, T[]>();
  #count = 0;
  #last: string | undefined;

  get count(): number {
    return this.#count;
  }

  add(job: T): void {
    const jobs = this.#waiting.get(job.scope);
    if (jobs === undefined) this.#waiting.set(job.scope, [job]);
    else jobs.push(job);
    this.#count += 1;
  }

  /** Called when the job before is over. */
  next(): T | undefined {
    this.#goBehind(this.#last);
    const [first] = this.#waiting;
    this.#last = first?.[0];
    const job = first?.[1].shift();
    if (job !== undefined) this.#taken(job.scope);
    return job;
  }

  remove(id: number): void {
    for (const [scope, jobs] of this.#waiting) {
      const at = jobs.findIndex((job) => job.id === id);
      if (at < 0) continue;
      jobs.splice(at, 1);
      return this.#taken(scope);
    }
  }

  #goBehind(scope: string | undefined): void {
    const jobs = scope === undefined ? undefined : this.#waiting.get(scope);
    if (scope === undefined || jobs === undefined) return;
    this.#waiting.delete(scope);
    this.#waiting.set(scope, jobs);
  }

  #taken(scope: string): void {
    this.#count -= 1;
    if (this.#waiting.get(scope)?.length === 0) this.#waiting.delete(scope);
  }
}
