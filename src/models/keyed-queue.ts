// Tasks with a key, such as changes of one model: in order for each key, keys beside each other.

/** Runs tasks of one key one after another; a failed one does not stop the next. */
export class KeyedQueue {
  readonly #last = new Map<string, Promise<unknown>>();

  run<T>(key: string, task: () => Promise<T>): Promise<T> {
    const result = (this.#last.get(key) ?? Promise.resolve()).then(task, task);
    const settled = result.catch(() => undefined);
    this.#last.set(key, settled);
    void settled.finally(() => {
      if (this.#last.get(key) === settled) this.#last.delete(key);
    });
    return result;
  }
}
