// The files of a batch that is over: the answers, and the lines that failed or never ran (OpenAI API reference,
// "Batch output"). Made under ids that the state names already, so that a second try replaces the first.

import type { BatchStore, StoredBatch } from '../../files/batch-store.ts';
import type { FileStore, FileUpload } from '../../files/file-store.ts';
import { isRequest, linesOf, readLine } from './lines.ts';
import { lineId } from './run.ts';

const NEWLINE = Buffer.from('\n');

export interface WriteContext {
  readonly store: FileStore;
  readonly batches: BatchStore;
  readonly maxLineBytes: number;
}

type Written = Pick<StoredBatch, 'outputFileId' | 'errorFileId'>;

/** The ids of the files there are; one without lines is not made. */
export async function writeFiles(context: WriteContext, batch: StoredBatch): Promise<Written> {
  const output = new ResultFile(context.store, batch, 'output');
  const errors = new ResultFile(context.store, batch, 'error');
  try {
    const done = new Set<number>();
    for await (const { line, good, text } of context.batches.results(batch.id)) {
      done.add(line);
      await (good ? output : errors).add(text);
    }
    if (batch.endsAs === 'expired') await addUnrun(context, batch, done, errors);
    return { outputFileId: await output.finish(), errorFileId: await errors.finish() };
  } finally {
    await output.abandon();
    await errors.abandon();
  }
}

/** Lines that the end of the window kept from running. */
async function addUnrun(
  { store, maxLineBytes }: WriteContext,
  { id, owner, inputFileId, endpoint, total }: StoredBatch,
  done: ReadonlySet<number>,
  errors: ResultFile,
): Promise<void> {
  if (total === 0) return;
  for await (const raw of linesOf(store.read(owner, inputFileId), maxLineBytes)) {
    const read = readLine(raw, endpoint);
    if (done.has(raw.line) || !isRequest(read)) continue;
    const message = 'This request could not be executed before the completion window expired.';
    const error = { code: 'batch_expired', message };
    await errors.add(
      JSON.stringify({ id: lineId(id, raw.line), custom_id: read.customId, response: null, error }),
    );
  }
}

class ResultFile {
  readonly #store: FileStore;
  readonly #batch: StoredBatch;
  readonly #kind: 'output' | 'error';
  #upload: FileUpload | undefined;

  constructor(store: FileStore, batch: StoredBatch, kind: 'output' | 'error') {
    this.#store = store;
    this.#batch = batch;
    this.#kind = kind;
  }

  async add(line: string): Promise<void> {
    const { owner, outputFileId, errorFileId } = this.#batch;
    const id = (this.#kind === 'output' ? outputFileId : errorFileId) ?? '';
    this.#upload ??= await this.#store.create(owner, { id });
    await this.#upload.write(Buffer.from(line));
    await this.#upload.write(NEWLINE);
  }

  async finish(): Promise<string | undefined> {
    const { id, outputExpiresAfterMs: expiresAfterMs } = this.#batch;
    const filename = `${id}_${this.#kind}.jsonl`;
    return (await this.#upload?.finish({ filename, purpose: 'batch_output', expiresAfterMs }))?.id;
  }

  async abandon(): Promise<void> {
    await this.#upload?.abandon();
  }
}
