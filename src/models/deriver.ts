// Derives models into the store: one conversion at a time, for each takes a core and much disk, and the same
// files and type only once. A request that is given up leaves the queue, or ends its conversion. What is
// unfinished lies beside the blobs under a temporary name, which the next start removes.

import { rm } from 'node:fs/promises';
import { ApiError } from '../base/errors.ts';
import type { ConvertedBase } from '../engine/seam/convert.ts';
import type { Converters } from '../engine/seam/converters.ts';
import type { QuantizeName } from '../engine/seam/quantize.ts';
import { deriveAdapter } from './derive-adapter.ts';
import { derivationKey, derivationOf, deriveFile, measureSources, partsOf } from './derive.ts';
import type { ModelFolder, SourceDigest } from './model-folder.ts';
import type { FolderFiles, FolderKind } from '../base/job-proof.ts';
import type { Derivation } from './model.ts';
import { Derivations, type DerivedRecord } from './store/derivations.ts';
import type { ModelStore, StoredBlob } from './store/store.ts';

const MAX_WAITING = 8;

export interface DerivedBlob {
  /** Leased: the caller releases it. */
  readonly blob: StoredBlob;
  /** Of a model that sees; leased as well. */
  readonly projector?: StoredBlob | undefined;
  readonly derivation: Derivation;
  readonly folder: FolderFiles;
}

export interface DerivedAdapter {
  /** Leased: the caller releases it. */
  readonly blob: StoredBlob;
  readonly folder: FolderFiles;
}

export interface DerivingRequest {
  /** Called once it is this request's turn; closed at its end. */
  readonly open: () => Promise<ModelFolder>;
  readonly isq?: QuantizeName | undefined;
  /** Whether the folder is one of a model that sees, of which a projector is made too. */
  readonly sees?: boolean | undefined;
  readonly signal: AbortSignal;
}

/** A file that was made now and has a path, or that the store has. */
interface Part {
  readonly key: string;
  readonly made: DerivedRecord;
  readonly path?: string | undefined;
  blob?: StoredBlob | undefined;
}

export class Deriver {
  readonly #store: ModelStore;
  readonly #converters: Converters;
  readonly #derivations: Derivations;
  #opened: Promise<void> | undefined;
  #last: Promise<void> = Promise.resolve();
  #waiting = 0;

  constructor(store: ModelStore, converters: Converters) {
    this.#store = store;
    this.#converters = converters;
    this.#derivations = new Derivations(store);
  }

  /** As `deriveFile`; 429 server_overloaded when too many wait. */
  async derive(request: DerivingRequest): Promise<DerivedBlob> {
    const release = await this.#turn(request.signal);
    try {
      await this.#open();
      const folder = await request.open();
      try {
        return await this.#deriveFolder(folder, request);
      } finally {
        await folder.close();
      }
    } finally {
      release();
    }
  }

  /** A PEFT folder as an adapter of the base. It is made anew each time: it takes a moment. */
  async deriveAdapter(
    open: () => Promise<ModelFolder>,
    base: ConvertedBase,
    signal: AbortSignal,
  ): Promise<DerivedAdapter> {
    const release = await this.#turn(signal);
    try {
      const folder = await open();
      try {
        const { digests, check } = await measureSources(folder, signal);
        const path = this.#store.temporary();
        const sha256 = await deriveAdapter({ folder, base, path, signal }, this.#converters.convert);
        try {
          await check();
          const blob = await this.#store.adopt(path, sha256);
          return { blob, folder: namedFiles('adapter', digests) };
        } catch (error) {
          await rm(path, { force: true });
          throw error;
        }
      } finally {
        await folder.close();
      }
    } finally {
      release();
    }
  }

  #open(): Promise<void> {
    this.#opened ??= this.#derivations.open().catch((error: unknown) => {
      this.#opened = undefined;
      throw error;
    });
    return this.#opened;
  }

  /** All files of the model, or none: the first is adopted once the last one is made. */
  async #deriveFolder(
    folder: ModelFolder,
    { isq, sees = false, signal }: DerivingRequest,
  ): Promise<DerivedBlob> {
    const { digests, check } = await measureSources(folder, signal);
    const parts: Part[] = [];
    try {
      for (const wanted of partsOf(sees, isq)) {
        const key = derivationKey(digests, wanted);
        const known = await this.#derivations.find(key);
        if (known !== undefined) {
          parts.push({ key, ...known });
          continue;
        }
        const temporary = (): string => this.#store.temporary();
        const made = await deriveFile({ folder, ...wanted, temporary, signal }, this.#converters);
        parts.push({ key, made, path: made.path });
      }
      if (parts.some(({ path }) => path !== undefined)) await check();
      for (const part of parts) part.blob ??= await this.#keep(part);
      const [text, projector] = parts.toReversed();
      return {
        blob: text!.blob!,
        projector: projector?.blob,
        derivation: derivationOf(digests, text!.made, projector?.made),
        folder: namedFiles(sees ? 'vision' : 'model', digests),
      };
    } catch (error) {
      for (const { blob, path } of parts) {
        blob?.release();
        if (path !== undefined) await rm(path, { force: true });
      }
      throw error;
    }
  }

  async #keep({ key, made, path = '' }: Part): Promise<StoredBlob> {
    const blob = await this.#store.adopt(path, made.sha256);
    await this.#derivations.keep(key, made).catch((error: unknown) => {
      blob.release();
      throw error;
    });
    return blob;
  }

  /** Resolves, when those before have ended, with what ends this one. */
  async #turn(signal: AbortSignal): Promise<() => void> {
    if (this.#waiting >= MAX_WAITING)
      throw new ApiError('server_overloaded', 'too many folders wait to be converted', {
        retryAfterSeconds: 30,
      });
    const before = this.#last;
    let release = (): void => undefined;
    const ended = new Promise<void>((resolve) => (release = resolve));
    this.#last = before.then(() => ended);
    this.#waiting += 1;
    try {
      await unlessAborted(before, signal);
      return release;
    } catch (error) {
      release();
      throw error;
    } finally {
      this.#waiting -= 1;
    }
  }
}

function namedFiles(kind: FolderKind, digests: readonly SourceDigest[]): FolderFiles {
  return { kind, files: digests.map(({ name, sha256 }) => ({ name, sha256 })) };
}

function unlessAborted(task: Promise<void>, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const leave = (): void => reject(signal.reason as Error);
    if (signal.aborted) return leave();
    signal.addEventListener('abort', leave, { once: true });
    const go = (): void => {
      signal.removeEventListener('abort', leave);
      resolve();
    };
    void task.then(go);
  });
}
