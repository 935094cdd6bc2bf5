// Which adapters a base has, and which base an adapter is served by: the registration it was made for, with
// the same bytes. A base that another has replaced leaves its adapters listed, and each request for one is
// refused until the adapter is loaded again.

import { ApiError } from '../base/errors.ts';
import type { RegisteredModel, RegistryEntry } from './model.ts';
import type { Registry } from './registry.ts';

/** Adapters of one base: each takes memory beside it. */
const MAX_ADAPTERS = 32;

export class Bases {
  readonly #registry: Registry;
  /** Why adapters that were to be loaded were not. Each is refused until it is registered again. */
  readonly #broken = new WeakMap<RegisteredModel, ApiError>();

  /** Why no adapter can be used here. */
  readonly #refusal: ApiError | null;

  constructor(registry: Registry, adaptersAllowed: boolean) {
    this.#registry = registry;
    this.#refusal = adaptersAllowed ? null : withoutAdapters();
  }

  adaptersOf(base: RegisteredModel): readonly RegistryEntry[] {
    return this.#registry
      .list()
      .filter(({ model, adapter }) => model.parent === base.id && adapter?.baseSha256 === base.sha256);
  }

  /** Those of them that an engine can have. */
  loadableOf(base: RegisteredModel): readonly RegistryEntry[] {
    return this.adaptersOf(base).filter(({ model }) => !this.isBroken(model));
  }

  setBroken(adapter: RegisteredModel, error: ApiError): void {
    this.#broken.set(adapter, error);
  }

  isBroken(adapter: RegisteredModel): boolean {
    return this.#refusal !== null || this.#broken.has(adapter);
  }

  /** Throws why an adapter cannot be used, before and after its engine was loaded. */
  checkUsable(model: RegisteredModel): void {
    const broken = this.#refusal ?? this.#broken.get(model);
    if (broken !== undefined) throw broken;
  }

  baseOf({ model, adapter }: RegistryEntry): RegistryEntry | undefined {
    const base = model.parent === undefined ? undefined : this.#registry.get(model.parent);
    return base?.model.sha256 === adapter?.baseSha256 ? base : undefined;
  }

  /** Whose engine serves it: its own, or its base's. 409 adapter_stale. */
  hostOf(entry: RegistryEntry): RegistryEntry {
    if (entry.adapter === undefined) return entry;
    const base = this.baseOf(entry);
    if (base === undefined) throw staleAdapter(this.#registry.get(entry.model.parent ?? '') === undefined);
    return base;
  }

  /** 400 unsupported_parameter. */
  checkAllowed(): void {
    if (this.#refusal !== null) throw this.#refusal;
  }

  /** The base where a request names none. 400 missing_required_parameter. */
  only(): RegistryEntry {
    const bases = this.#registry
      .list()
      .filter(({ model }) => model.parent === undefined && ['chat', 'completion'].includes(model.type));
    const [only] = bases;
    if (only !== undefined && bases.length === 1) return only;
    const message = `model is missing, and ${bases.length} models could be the base`;
    throw new ApiError('missing_required_parameter', message, { param: 'model' });
  }

  /** 409 too_many_adapters. */
  checkRoom(base: RegisteredModel): void {
    if (this.adaptersOf(base).length < MAX_ADAPTERS) return;
    const message = `the model has ${MAX_ADAPTERS} adapters, which is the most`;
    throw new ApiError('too_many_adapters', message, { param: 'model', shouldRetry: false });
  }

  /** 409 model_has_adapters. */
  checkWithout(model: RegisteredModel): void {
    if (this.adaptersOf(model).length === 0) return;
    const message = 'adapters of the model are registered: unload them first';
    throw new ApiError('model_has_adapters', message, { param: 'model', shouldRetry: false });
  }
}

function withoutAdapters(): ApiError {
  return new ApiError('unsupported_parameter', 'adapters need `engine.backend = "cpu"`', {
    param: 'model',
    shouldRetry: false,
  });
}

/** `gone`: there is no base of that name at all. */
export function staleAdapter(gone: boolean): ApiError {
  const message = gone
    ? 'the base of the adapter is not registered'
    : 'the base of the adapter has other bytes than the adapter was loaded for: unload it and load it again';
  return new ApiError('adapter_stale', message, { param: 'model', shouldRetry: false });
}

/** The requests that use an adapter: its removal waits for them, as that of a model does for its own. */
export class AdapterUses {
  readonly #uses = new Map<RegisteredModel, { count: number; readonly idle: (() => void)[] }>();

  /** Returns what ends the use; idempotent. */
  begin(model: RegisteredModel): () => void {
    const use = this.#uses.get(model) ?? { count: 0, idle: [] };
    this.#uses.set(model, use);
    use.count += 1;
    let held = true;
    return () => {
      if (!held) return;
      held = false;
      use.count -= 1;
      if (use.count > 0) return;
      this.#uses.delete(model);
      for (const done of use.idle) done();
    };
  }

  countOf(model: RegisteredModel): number {
    return this.#uses.get(model)?.count ?? 0;
  }

  /** Resolves when no request uses it. */
  async whenIdle(model: RegisteredModel): Promise<void> {
    const use = this.#uses.get(model);
    if (use !== undefined) await new Promise<void>((resolve) => use.idle.push(resolve));
  }
}
