// Requests with images on their way to the scheduler: their prompt is laid out and checked at once, before
// any pixel is read; then their images are prepared, and the request is queued. A cancelled one leaves at
// once.

import type { ChatMessage } from '../../seam/engine.ts';
import { unframeImages } from '../../seam/framed-images.ts';
import type { FramedImage, WireRequest } from '../../seam/wire.ts';
import { ApiError } from '../../../base/errors.ts';
import type { Job } from '../decode/batch.ts';
import type { ImageRoom, Laid } from './images.ts';

export type QueuedJob = Omit<Job, 'id' | 'emit' | 'fail'>;

/** `laid` gives a prompt its length; one without images is as long as its tokens. */
export type MakeJob = (
  request: WireRequest,
  laid: (tokens: readonly number[]) => Pick<Laid, 'tokens' | 'length'>,
) => QueuedJob;

export class Pictures {
  readonly #room: ImageRoom | null;
  readonly #submit: (id: number, job: QueuedJob) => void;
  readonly #failed: (id: number, error: unknown) => void;
  /** Until they are queued. */
  readonly #preparing = new Map<number, AbortController>();

  constructor(
    room: ImageRoom | null,
    submit: (id: number, job: QueuedJob) => void,
    failed: (id: number, error: unknown) => void,
  ) {
    this.#room = room;
    this.#submit = submit;
    this.#failed = failed;
  }

  /** Throws what the request can be refused for without reading its images. */
  add(
    id: number,
    given: {
      readonly request: WireRequest;
      readonly images: readonly FramedImage[];
      readonly raw: Uint8Array;
    },
    toJob: MakeJob,
  ): void {
    const { request } = given;
    const room = this.#room;
    if (room === null || request.prompt.kind !== 'chat')
      throw new ApiError('engine_failed', 'the engine takes no images');
    // The frame's memory is the connection's.
    const { messages, images } = unframeImages(request.prompt.messages, given.images, given.raw.slice());
    let laid: Laid | null = null;
    const job = toJob(withMessages(request, messages), (tokens) => (laid = room.lay(tokens, images)));
    if (laid === null) throw new Error('a prompt with images was not laid out');
    void this.#prepare(id, job, room, laid);
  }

  cancel(id: number): void {
    this.#preparing.get(id)?.abort(new Error('cancelled'));
    this.#preparing.delete(id);
  }

  async #prepare(id: number, job: QueuedJob, room: ImageRoom, laid: Laid): Promise<void> {
    const controller = new AbortController();
    this.#preparing.set(id, controller);
    try {
      const pictured = await room.prepare(job.scope, laid, controller.signal);
      if (controller.signal.aborted) return pictured.release();
      this.#submit(id, { ...job, ...pictured });
    } catch (error) {
      if (!controller.signal.aborted) this.#failed(id, error);
    } finally {
      this.#preparing.delete(id);
    }
  }
}

function withMessages(request: WireRequest, messages: readonly ChatMessage[]): WireRequest {
  return request.prompt.kind === 'chat' ? { ...request, prompt: { ...request.prompt, messages } } : request;
}
