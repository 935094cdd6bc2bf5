// The models this server may serve, each identified by the digests of the bytes the engine reads. A model is
// listed only after its file passed the strict GGUF reader and its bytes were hashed; ids are unique and
// compared exactly. Registering other bytes under a taken id is refused (409 model_already_exists).
// base/model-name decides the form of an id.

import { createHash } from 'node:crypto';
import { attestedModel, fromHex, toHex, type AttestedModel } from '@assay/attestation';
import { ApiError } from '../base/errors.ts';
import type { ProjectorFacts } from './gguf/projector.ts';
import type {
  Derivation,
  KvCacheType,
  RegisteredModelType,
  Residency,
  RegisteredBlob,
  ModelDefaults,
  RegisteredModel,
  ModelFile,
  ModelSummary,
  RegistryEntry,
} from './model.ts';

export interface Registry {
  list(): readonly RegistryEntry[];
  get(id: string): RegistryEntry | undefined;
  /**
   * 409 model_already_exists for a taken id with another digest; the same digest keeps the first; 409
   * too_many_models.
   */
  add(entry: RegistryEntry): RegistryEntry;
  /**
   * Keeps the room of this id while the work goes on, so that no two take the same. Throws 409
   * too_many_models before the work begins.
   */
  withRoom<T>(id: string, work: () => Promise<T>): Promise<T>;
  remove(id: string): boolean;
  /** For attestation: never hashes, cost does not depend on size. */
  attested(): readonly AttestedModel[];
}

/** A verifier refuses evidence that names more models, and so every connection to the server. */
const MAX_MODELS = 256;

export function createRegistry(): Registry {
  const entries = new Map<string, RegistryEntry>();
  let attested: readonly AttestedModel[] = [];
  const refresh = (): void => {
    attested = [...entries.values()].map(({ model }) => toAttested(model));
  };
  /** Ids whose room is kept, and by how many. */
  const kept = new Map<string, number>();
  const checkRoom = (id: string): void => {
    const more = [...kept.keys()].filter((each) => !entries.has(each)).length;
    if (entries.has(id) || kept.has(id) || entries.size + more < MAX_MODELS) return;
    const message = `${MAX_MODELS} models are registered, which is the most that evidence can name`;
    throw new ApiError('too_many_models', message, {
      status: 409,
      param: 'name',
      shouldRetry: false,
    });
  };
  return {
    withRoom(id, work) {
      checkRoom(id);
      kept.set(id, (kept.get(id) ?? 0) + 1);
      return work().finally(() => {
        const others = (kept.get(id) ?? 1) - 1;
        if (others > 0) kept.set(id, others);
        else kept.delete(id);
      });
    },
    list: () => [...entries.values()],
    get: (id) => entries.get(id),
    add(entry) {
      const existing = entries.get(entry.model.id);
      if (existing !== undefined && existing.model.sha256 !== entry.model.sha256) {
        throw new ApiError(
          'model_already_exists',
          `a model of that name with sha256 ${existing.model.sha256} is registered already`,
          {
            param: 'name',
          },
        );
      }
      if (existing !== undefined) return existing;
      checkRoom(entry.model.id);
      entries.set(entry.model.id, entry);
      refresh();
      return entry;
    },
    remove(id) {
      const removed = entries.delete(id);
      refresh();
      return removed;
    },
    attested: () => attested,
  };
}

export interface DescribeOptions {
  readonly id: string;
  /** Unix seconds. */
  readonly created: number;
  readonly files: readonly ModelFile[];
  readonly summary: ModelSummary;
  readonly residency: Residency;
  readonly type?: RegisteredModelType | undefined;
  /** Upper limit from the configuration. */
  readonly contextLength: number;
  readonly defaults: ModelDefaults;
  readonly chatTemplate?: string | undefined;
  readonly derived?: Derivation | undefined;
  readonly projector?: ProjectorFacts | undefined;
  /** Whether engines can be given a projector here. */
  readonly imagesAllowed?: boolean | undefined;
  readonly hashed: boolean;
  /** Set for this model. */
  readonly kvType?: KvCacheType | undefined;
  /** For models that generate and have none of their own. */
  readonly defaultKvType?: KvCacheType | undefined;
}

/** Builds an entry; its digest follows from the blobs as the verifier computes it (`attestedModel`). */
export function describeModel(options: DescribeOptions): RegistryEntry {
  const { summary } = options;
  const kvType = kvTypeOf(options);
  const blobs: RegisteredBlob[] = options.files.map(({ role, sha256, size }) => ({ role, sha256, size }));
  if (options.chatTemplate !== undefined) {
    blobs.push(textBlob('template', options.chatTemplate));
  }
  const type = typeOf(options);
  const generates = type === 'chat' || type === 'completion';
  const sizeBytes = blobs.reduce((sum, blob) => sum + blob.size, 0);
  for (const { sha256, size } of options.derived?.sources ?? []) blobs.push({ role: 'source', sha256, size });
  const model: RegisteredModel = {
    ...composedModel(options.id, blobs, options.residency),
    created: options.created,
    type,
    format: summary.type === 'transcription' ? 'whisper' : 'gguf',
    sizeBytes,
    contextLength: Math.min(options.contextLength, summary.contextLength),
    residency: options.residency,
    defaults: options.defaults,
    kvType,
    details: {
      architecture: summary.architecture,
      parameters: summary.parameters,
      quantization: summary.quantization,
      hasChatTemplate: summary.hasChatTemplate,
      tokenizer: summary.tokenizer,
    },
    derived: options.derived,
    vision: (generates && options.projector?.served && options.imagesAllowed) === true || undefined,
  };
  return {
    model,
    files: options.files,
    summary,
    hashed: options.hashed,
    chatTemplate: options.chatTemplate,
    kvType: options.kvType,
    projector: options.projector,
  };
}

/** A file says whether its model hears; no configuration can make it another. */
function typeOf({ type, summary }: DescribeOptions): RegisteredModelType {
  if (type !== undefined && (type === 'transcription') !== (summary.type === 'transcription'))
    throw new ApiError(
      'invalid_value',
      `type ${type} does not suit the model: its file is of type ${summary.type}`,
      {
        param: 'type',
      },
    );
  return type ?? summary.type;
}

/** The identity of a model, as the verifier computes it from its blobs (`attestedModel`). */
export function composedModel(
  id: string,
  files: readonly RegisteredBlob[],
  residency: Residency,
): Pick<RegisteredModel, 'id' | 'blobs' | 'sha256' | 'kind'> {
  // A client that pins the file's own SHA-256 gets P3 in full or a refusal: bytes on a disk could
  // change after they were hashed.
  const blobs = residency === 'disk' ? [...files, textBlob('residency', 'disk')] : files;
  const { sha256, kind } = attestedModel(id, blobs.map(toAttestedBlob));
  return { id, blobs, sha256: toHex(sha256), kind };
}

/** Elements of a Q8_0 block. */
const Q8_BLOCK = 32;

/** Refuses a type that the model cannot have; the engine would find out only when it loads. */
function kvTypeOf({ kvType, defaultKvType, summary, type }: DescribeOptions): KvCacheType | undefined {
  const generates = ['chat', 'completion'].includes(type ?? summary.type);
  const wanted = kvType ?? (generates ? defaultKvType : undefined);
  if (wanted === undefined) return undefined;
  const refuse = (why: string): ApiError =>
    new ApiError('invalid_value', `kv_type ${wanted} does not suit the model: ${why}`, { param: 'kv_type' });
  if (summary.cacheBytesPerToken === 0) throw refuse('it keeps no keys and values');
  const odd = summary.headWidths.find((width) => width % Q8_BLOCK !== 0);
  if (wanted === 'q8_0' && odd !== undefined)
    throw refuse(`its attention heads have a width of ${odd}, expected a multiple of ${Q8_BLOCK}`);
  return wanted;
}

/** A text of the manifest that is no file. */
export function textBlob(role: 'template' | 'scale' | 'residency', text: string): RegisteredBlob {
  const bytes = Buffer.from(text);
  return { role, sha256: createHash('sha256').update(bytes).digest('hex'), size: bytes.length };
}

function toAttested(model: RegisteredModel): AttestedModel {
  return {
    id: model.id,
    kind: model.kind,
    sha256: fromHex(model.sha256),
    blobs: model.blobs.map(toAttestedBlob),
  };
}

function toAttestedBlob(blob: RegisteredBlob): AttestedModel['blobs'][number] {
  return { role: blob.role, sha256: fromHex(blob.sha256), size: blob.size };
}
